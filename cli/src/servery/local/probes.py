"""Probes of Kubernetes: does a container answer?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Mapping

from servery_http.client import Client
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Json, Manifest

from servery.local.localize import Process


def probing_client() -> Client:
    """Return a client that takes any certificate, as a kubelet does: a probe asks for life, not for identity."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    return Client(tls=anybody)


async def succeeds(probe: Manifest, process: Process, address: str, client: Client) -> bool:
    """Return whether one try of ``probe`` succeeds within its timeout."""
    seconds = float(probe.get("timeoutSeconds", 1))
    try:
        async with asyncio.timeout(seconds):
            if "httpGet" in probe:
                return await _http(probe["httpGet"], process, address, client, seconds)
            if "tcpSocket" in probe:
                action = probe["tcpSocket"]
                return await _tcp(action.get("host") or address, _port(action["port"], process.container))
            if "grpc" in probe:
                return await _grpc(probe["grpc"], address, process.container)
            return await _exec(probe["exec"]["command"], process)
    except (TimeoutError, OSError, ServeryError):
        return False


async def _http(action: Manifest, process: Process, address: str, client: Client, seconds: float) -> bool:
    host = action.get("host") or address
    url = f"{action.get('scheme', 'http').lower()}://{host}:{_port(action['port'], process.container)}"
    headers = [(str(h["name"]).lower().encode(), str(h["value"]).encode()) for h in action.get("httpHeaders", ())]
    path = f"/{action.get('path', '').removeprefix('/')}"
    answer = await client.request("GET", url + path, headers=headers, timeout_seconds=seconds)
    return 200 <= answer.status < 400  # Kubernetes' own bounds


async def _tcp(address: str, port: int) -> bool:
    _, writer = await asyncio.open_connection(address, port)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def _grpc(action: Manifest, address: str, container: Manifest) -> bool:
    import grpc.aio  # half a second that only those who use it should pay
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async with grpc.aio.insecure_channel(f"{address}:{_port(action['port'], container)}") as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=action.get("service", ""))
            answer = await health_pb2_grpc.HealthStub(channel).Check(request)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _exec(command: list[str], process: Process) -> bool:
    running = await asyncio.create_subprocess_exec(
        *map(process.placed, command),
        env={**os.environ, **process.environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return await running.wait() == 0
    finally:
        # What it has started goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        await running.wait()


def _port(port: Json, container: Mapping[str, Json]) -> int:
    if isinstance(port, int) or str(port).isdigit():
        return int(port)
    return next((int(p["containerPort"]) for p in container.get("ports", ()) if p.get("name") == port), 0)
