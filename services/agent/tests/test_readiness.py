"""A Kubernetes probe of each kind, asked of real sockets and processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from servery_agent.readiness import Readiness, WrongProbe, probe_of
from servery_http.address import Address
from servery_http.messages import Handler, Request, Response
from servery_http.server import Server


def readiness(probe: object, default_port: int = 0) -> Readiness:
    return Readiness(probe_of(json.dumps(probe)), Address(port=default_port))


class Site:
    """Answers what it is told, when it is told to."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[Request] = []
        self.release = asyncio.Event()
        self.release.set()

    def hot(self, _method: str, _path: str) -> Handler:
        return self.answer

    async def answer(self, request: Request) -> Response:
        self.asked.append(request)
        await self.release.wait()
        return Response(self.status)


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def component(site: Site) -> AsyncIterator[Server]:
    async with Server(site.hot, drain_seconds=0).running() as server:
        yield server


@pytest.mark.parametrize(("status", "is_ready"), [(200, True), (302, True), (404, False), (503, False)])
async def test_http_probe_is_ready_on_any_good_status(
    site: Site, component: Server, status: int, is_ready: bool
) -> None:
    site.status = status
    headers = [{"name": "X-Probe", "value": "1"}]
    probe = {
        "httpGet": {"path": "/v2/health/ready", "port": component.port, "httpHeaders": headers},
        "successThreshold": 1,
    }
    assert await readiness(probe)() is is_ready
    (asked,) = site.asked
    assert (asked.method, asked.path, (b"x-probe", b"1") in asked.headers) == ("GET", "/v2/health/ready", True)


async def test_port_that_a_probe_leaves_out_is_the_components(component: Server) -> None:
    assert await readiness({"httpGet": {}}, component.port)()
    assert await readiness({"tcpSocket": {"port": 0}}, component.port)()


async def test_tcp_probe_is_ready_where_somebody_listens(component: Server) -> None:
    probe = readiness({"tcpSocket": {"port": component.port, "host": "127.0.0.1"}})
    assert await probe()
    await component.stop()
    assert not await probe()


@pytest.mark.parametrize(
    ("command", "is_ready"),
    [
        ([sys.executable, "-c", ""], True),
        ([sys.executable, "-c", "raise SystemExit(3)"], False),
        ([sys.executable, "-c", "import time; time.sleep(60)"], False),
        (["/no/such/command"], False),
    ],
)
async def test_exec_probe_is_ready_where_the_command_ends_well_in_time(command: list[str], is_ready: bool) -> None:
    assert (
        await readiness({"exec": {"command": command}, "timeoutSeconds": 1 if "60" in command[-1] else 20})()
        is is_ready
    )


async def test_grpc_probe_asks_the_health_service() -> None:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        probe = readiness({"grpc": {"port": port, "service": "m"}, "timeoutSeconds": 20})
        assert not await probe()
        await servicer.set("m", health_pb2.HealthCheckResponse.SERVING)
        assert await probe()
        await servicer.set("m", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert not await probe()
    finally:
        await server.stop(None)


async def test_probe_that_hangs_is_not_ready_and_asked_once(site: Site, component: Server) -> None:
    site.release.clear()
    probe = readiness({"httpGet": {"port": component.port}, "timeoutSeconds": 1})
    assert await asyncio.gather(*(probe() for _ in range(50))) == [False] * 50
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("{", "Invalid JSON", id="no JSON"),
        pytest.param("{}", "one of exec, grpc, httpGet, tcpSocket; this one has 0", id="no way"),
        pytest.param('{"httpGet":{},"tcpSocket":{}}', "this one has 2", id="two ways"),
        pytest.param(
            '{"tcpSocket":{"port":"http"}}', "tcpSocket.port: Input should be a valid integer", id="a port's name"
        ),
        pytest.param('{"exec":{"command":[]}}', "exec.command", id="no command"),
    ],
)
def test_what_is_no_probe_is_said(text: str, words: str) -> None:
    with pytest.raises(WrongProbe, match=f"SERVING_READINESS_PROBE: .*{words}"):
        probe_of(text)
