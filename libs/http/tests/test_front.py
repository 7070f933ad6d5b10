from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servery_http.client import Client
from servery_http.limits import Limits
from servery_http.server import Server

Connect = Callable[[], Awaitable["Wire"]]  # type: ignore[name-defined]  # noqa: F821

ECHO = b"POST /echo?q=1 HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi"
ASGI = b"POST /cold%20path HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nho"


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"host: h", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def test_hot_route_is_answered_and_the_connection_kept(connect: Connect) -> None:
    wire = await connect()
    for _ in range(2):
        await wire.send(ECHO)
        status, headers, body = await wire.answer()
        assert (status, headers["x-query"], body) == (200, "q=1", b"hot hi")


async def test_other_routes_go_on_to_the_application(connect: Connect) -> None:
    wire = await connect()
    await wire.send(b"POST /cold%20path HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: 2\r\n\r\nho")
    assert b"asgi /cold path ho" in await wire.reader.read()


async def test_pipelined_requests_are_answered_in_order(connect: Connect, site) -> None:  # type: ignore[no-untyped-def]
    wire = await connect()
    await wire.send(post(b"/later", b"1") + ECHO + post(b"/echo", b"3"))
    await site.entered.wait()
    site.release.set()
    assert [(await wire.answer())[2] for _ in range(3)] == [b"later 1", b"hot hi", b"hot 3"]


async def test_hot_and_application_requests_share_a_pipeline(connect: Connect) -> None:
    wire = await connect()
    await wire.send(ECHO + ASGI + ECHO)
    assert (await wire.answer())[2] == b"hot hi"
    assert b"asgi /cold path ho" in await wire.reader.readuntil(b"0\r\n\r\n")
    assert (await wire.answer())[2] == b"hot hi"


async def test_chunked_body_is_put_together(connect: Connect) -> None:
    wire = await connect()
    await wire.send(
        b"POST /echo HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
    )
    assert (await wire.answer())[2] == b"hot abc"


@pytest.mark.parametrize("path", [b"/echo", b"/cold"])
async def test_client_that_waits_for_100_continue_gets_it(connect: Connect, path: bytes) -> None:
    wire = await connect()
    await wire.send(b"POST " + path + b" HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n")
    assert (await wire.answer())[0] == 100
    await wire.send(b"x")
    assert (await wire.reader.readuntil(b"x")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n\r\n", 414, id="long-url"),
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"a" * 2000 + b"\r\n\r\n", 431, id="long-headers"),
        pytest.param(b"POST /echo HTTP/1.1\r\ncontent-length: 100001\r\n\r\n", 413, id="announced-body"),
        pytest.param(
            b"POST /echo HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n186a1\r\n" + b"a" * 100_001,
            413,
            id="chunked-body",
        ),
        pytest.param(b"hello\r\n\r\n", 400, id="no-http"),
        pytest.param(b"POST /echo HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400, id="broken-length"),
    ],
)
async def test_request_beyond_a_limit_is_refused_and_the_server_lives_on(
    connect: Connect, request_bytes: bytes, status: int
) -> None:
    wire = await connect()
    await wire.send(request_bytes)
    found, headers, body = await wire.answer()
    assert (found, headers["connection"]) == (status, "close")
    assert body.startswith(b'{"error": ')
    assert await wire.closed()
    other = await connect()
    await other.send(ECHO)
    assert (await other.answer())[0] == 200


async def test_handler_that_raises_answers_500_and_keeps_the_connection(connect: Connect) -> None:
    wire = await connect()
    await wire.send(post(b"/broken", b"") + ECHO)
    assert (await wire.answer())[0] == 500
    assert (await wire.answer())[2] == b"hot hi"


async def test_http_1_0_connection_is_closed_after_its_answer(connect: Connect) -> None:
    wire = await connect()
    await wire.send(b"POST /echo HTTP/1.0\r\ncontent-length: 1\r\n\r\nx")
    assert (await wire.answer())[1]["connection"] == "close"
    assert await wire.closed()


async def test_client_that_goes_away_cancels_its_handler(connect: Connect, site) -> None:  # type: ignore[no-untyped-def]
    wire = await connect()
    await wire.send(post(b"/later", b""))
    await site.entered.wait()
    wire.writer.transport.abort()
    await asyncio.wait_for(site.cancelled.wait(), 10)


async def test_drain_finishes_what_is_in_flight(site) -> None:  # type: ignore[no-untyped-def]
    server = Server(site.hot, drain_seconds=10)
    await server.start()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(post(b"/later", b"x"))
    await site.entered.wait()
    stopping = asyncio.create_task(server.stop())
    while True:
        try:
            _, other = await asyncio.open_connection(server.host, server.port)
        except OSError:
            break
        other.close()
    site.release.set()
    answer = await asyncio.wait_for(reader.read(), 10)
    await stopping
    writer.close()
    assert b"connection: close" in answer
    assert answer.endswith(b"later x")


async def test_refusal_waits_for_the_answers_before_it(connect: Connect, site) -> None:  # type: ignore[no-untyped-def]
    wire = await connect()
    await wire.send(post(b"/later", b"1") + b"nonsense\r\n\r\n")
    await site.entered.wait()
    site.release.set()
    assert (await wire.answer())[2] == b"later 1"
    assert (await wire.answer())[0] == 400
    assert await wire.closed()


async def test_thousands_of_pipelined_requests_behind_a_slow_one_are_answered(connect: Connect, site) -> None:  # type: ignore[no-untyped-def]
    wire = await connect()
    small = b"GET /echo HTTP/1.1\r\n\r\n"
    await wire.send(post(b"/later", b"1"))
    await site.entered.wait()
    sending = asyncio.create_task(wire.send(small * 4000))
    site.release.set()
    assert (await wire.answer())[2] == b"later 1"
    for _ in range(4000):
        assert (await wire.answer())[2] == b"hot "
    await sending


async def test_drain_that_takes_too_long_is_cut_off(site) -> None:  # type: ignore[no-untyped-def]
    server = Server(site.hot, drain_seconds=0.1)
    await server.start()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(post(b"/later", b"x"))
    await site.entered.wait()
    await asyncio.wait_for(server.stop(), 10)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 503")
    assert site.cancelled.is_set()


@pytest.mark.parametrize("question", [ECHO, ASGI], ids=["hot", "asgi"])
async def test_request_on_its_way_when_the_drain_begins_is_answered(server: Server, question: bytes) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(ECHO)
    await reader.readuntil(b"hot hi")
    (connection,) = server.server_state.connections
    connection.shutdown()
    writer.write(question)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()


async def test_given_socket_is_served(site) -> None:  # type: ignore[no-untyped-def]
    sock = socket.create_server(("127.0.0.1", 0))
    async with Server(site.hot, sock=sock, drain_seconds=5).running() as server:
        assert server.port == sock.getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(ECHO)
        assert (await reader.readline()) == b"HTTP/1.1 200 OK\r\n"
        writer.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate; it is not installed")
async def test_tls_is_spoken(site, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await made.wait() == 0
    trust = ssl.create_default_context(cafile=certificate)
    secure = Server(site.hot, certificate=certificate, private_key=key, drain_seconds=5)
    async with secure.running() as server, Client(tls=trust) as client:
        answer = await client.request("POST", f"{server.url}/echo", body=b"secret")
    assert server.url.startswith("https://")
    assert answer.body == b"hot secret"


class TestManyClients:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(max_connections=1)

    async def test_connection_beyond_the_limit_is_refused(self, connect: Connect) -> None:
        first = await connect()
        await first.send(ECHO)
        await first.answer()
        second = await connect()
        assert (await second.answer())[0] == 503
        assert await second.closed()
        await first.send(ECHO)
        assert (await first.answer())[0] == 200


class TestSlowClients:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(read_timeout_seconds=0.05, keep_alive_seconds=0.05)

    @pytest.mark.parametrize("part", [ECHO[:-1], b"POST /ec"], ids=["body", "url"])
    async def test_request_that_does_not_end_is_timed_out(self, connect: Connect, part: bytes) -> None:
        wire = await connect()
        await wire.send(part)
        answer = await asyncio.wait_for(wire.reader.read(), 10)
        assert answer.startswith(b"HTTP/1.1 408")

    async def test_idle_connection_is_closed(self, connect: Connect) -> None:
        wire = await connect()
        await wire.send(ECHO)
        await wire.answer()
        assert await wire.closed()

    async def test_slow_answer_is_waited_for(self, connect: Connect, site) -> None:  # type: ignore[no-untyped-def]
        wire = await connect()
        await wire.send(post(b"/later", b"x"))
        await site.entered.wait()
        asyncio.get_running_loop().call_later(0.2, site.release.set)
        assert (await wire.answer())[2] == b"later x"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 10_000), max_size=6))
async def test_answers_do_not_depend_on_how_bytes_arrive(connect: Connect, cuts: list[int]) -> None:
    stream = post(b"/echo", b"one") + post(b"/echo", b"two" * 50, b"x-h: v") + ECHO
    wire = await connect()
    places = sorted({cut % len(stream) for cut in cuts} | {0, len(stream)})
    for start, stop in itertools.pairwise(places):
        await wire.send(stream[start:stop])
        await asyncio.sleep(0)
    assert [(await wire.answer())[2] for _ in range(3)] == [b"hot one", b"hot " + b"two" * 50, b"hot hi"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(garbage=st.binary(max_size=200))
async def test_no_bytes_take_the_server_down(connect: Connect, garbage: bytes) -> None:
    wire = await connect()
    await wire.send(garbage)
    wire.writer.transport.abort()
    other = await connect()
    await other.send(ECHO)
    assert (await other.answer())[0] == 200
