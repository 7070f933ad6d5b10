"""Probes of Kubernetes against real servers and processes."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from servery.local.localize import Process
from servery.local.probes import probing_client, succeeds
from servery_http.client import Client
from servery_http.messages import Handler, Request, Response
from servery_http.server import Server

HOST = "127.0.0.1"


class Site:
    """Answers ``/<status>`` with that status, ``/never`` never, and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    def hot(self, method: str, path: str) -> Handler:
        return self.answer

    async def answer(self, request: Request) -> Response:
        self.seen.append(request)
        if request.path == "/never":
            await asyncio.Event().wait()
        return Response(int(request.path.strip("/") or 200))


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def server(site: Site) -> AsyncIterator[Server]:
    async with Server(site.hot, host=HOST, drain_seconds=0.1).running() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with probing_client() as client:
        yield client


@pytest.fixture
def probe(client: Client) -> Callable[..., Any]:
    """Tries one probe of a container on this machine's own address."""

    def run(
        *,
        ports: tuple[dict[str, Any], ...] = (),
        directories: dict[str, Path] | None = None,
        seconds: float = 10,
        **action: Any,
    ) -> Any:
        process = Process(
            container={"name": "main", "ports": ports},
            arguments=(),
            environment={"WORD": "said"},
            directories=directories or {},
        )
        return succeeds({"timeoutSeconds": seconds, **action}, process, HOST, client)

    return run


@pytest.mark.parametrize(
    ("path", "succeeded"),
    [("/200", True), ("/301", True), ("/399", True), ("/400", False), ("/503", False), ("200", True), ("", True)],
)
async def test_http_succeeds_from_200_to_399(
    server: Server, probe: Callable[..., Any], path: str, succeeded: bool
) -> None:
    assert await probe(httpGet={"path": path, "port": server.port}) is succeeded


async def test_http_sends_its_headers_to_a_named_port(server: Server, site: Site, probe: Callable[..., Any]) -> None:
    action = {
        "path": "/200?deep=1",
        "port": "http1",
        "scheme": "HTTP",
        "httpHeaders": [{"name": "Host", "value": "a.b"}, {"name": "X-Key", "value": "1"}],
    }
    assert await probe(
        httpGet=action, ports=({"name": "h2c", "containerPort": 1}, {"name": "http1", "containerPort": server.port})
    )
    (request,) = site.seen
    assert (request.path, request.query) == ("/200", b"deep=1")
    assert {(b"host", b"a.b"), (b"x-key", b"1")} <= set(request.headers)


async def test_port_that_no_container_names_fails(server: Server, probe: Callable[..., Any]) -> None:
    assert not await probe(httpGet={"port": "none"}, ports=({"name": "http1", "containerPort": server.port},))


async def test_https_takes_any_certificate(site: Site, probe: Callable[..., Any], tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    secure = Server(site.hot, host=HOST, certificate=certificate, private_key=key, drain_seconds=0.1)
    async with secure.running():
        assert await probe(httpGet={"port": secure.port, "scheme": "HTTPS", "path": "/200"})
        assert not await probe(httpGet={"port": secure.port, "scheme": "HTTP", "path": "/200"})


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nobody")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_tcp_succeeds_where_somebody_listens(server: Server, probe: Callable[..., Any]) -> None:
    assert await probe(tcpSocket={"port": server.port})
    assert await probe(tcpSocket={"port": "main"}, ports=({"name": "main", "containerPort": server.port},))
    assert not await probe(tcpSocket={"port": 1})
    assert not await probe(tcpSocket={"port": server.port, "host": "127.0.0.2"})


async def test_exec_succeeds_by_the_exit_code_with_the_containers_variables_and_paths(
    probe: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "ready").write_text("said")
    command = ["sh", "-c", 'test "$(cat /mnt/models/ready)" = "$WORD"']
    assert await probe(exec={"command": command}, directories={"/mnt/models": tmp_path})
    assert not await probe(exec={"command": ["sh", "-c", "exit 3"]})
    assert not await probe(exec={"command": ["/no/such/program"]})


@pytest.mark.parametrize(
    ("service", "succeeded"), [("", True), ("model", True), ("loading", False), ("unknown", False)]
)
async def test_grpc_succeeds_where_the_service_is_serving(
    probe: Callable[..., Any], service: str, succeeded: bool
) -> None:
    servicer = health.aio.HealthServicer()
    await servicer.set("model", health_pb2.HealthCheckResponse.SERVING)
    await servicer.set("loading", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        assert await probe(grpc={"port": port, "service": service}) is succeeded
    finally:
        await server.stop(None)


async def test_grpc_fails_where_nobody_listens(probe: Callable[..., Any]) -> None:
    assert not await probe(grpc={"port": 1})


async def test_answer_that_does_not_come_in_time_is_a_failure(server: Server, probe: Callable[..., Any]) -> None:
    assert not await probe(httpGet={"port": server.port, "path": "/never"}, seconds=0.05)
    held: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, writer: held.append(writer), HOST, 0) as silent:
        port = silent.sockets[0].getsockname()[1]
        assert not await probe(grpc={"port": port}, seconds=0.05)
        for writer in held:
            writer.close()


async def test_command_that_takes_too_long_goes_with_all_that_it_started(
    probe: Callable[..., Any], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    child = f"{sys.executable} -c 'import sys; sys.stdin.read()' <>{fifo} & wait"
    assert not await probe(exec={"command": ["sh", "-c", child]}, seconds=0.3)
    os.set_blocking(reading, True)
    try:
        # The end of the file comes only when nobody holds it open for writing any more.
        assert await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1), 10) == b""
    finally:
        os.close(reading)
