"""Bodies that are read as they come: by a handler, and through ``forward``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servery_http.client import Client
from servery_http.incoming import BodyBroke
from servery_http.limits import Limits
from servery_http.messages import Handler, Request, Response, Streamed
from servery_http.proxy import forward
from servery_http.server import Server

Connect = Callable[[], Awaitable["Wire"]]  # type: ignore[name-defined]  # noqa: F821

PIECE = b"x" * 64 * 1024
PIECES = 1024
BOUND_BYTES = 8 * 1024 * 1024
"""Far below the 64 MiB that pass, far above the buffers on their way."""


class Uploads:
    """``/count`` reads, ``/echo`` answers piece by piece, ``/early`` does not read, ``/held`` reads after ``release``."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    def hot(self, method: str, path: str) -> Streamed:
        handlers: dict[str, Handler] = {"/echo": self.echo, "/early": self.early, "/held": self.held}
        return Streamed(handlers.get(path, self.count))

    async def count(self, request: Request) -> Response:
        self.seen.append(request)
        self.entered.set()
        assert request.stream is not None
        try:
            return Response(200, b"%d" % sum([len(piece) async for piece in request.stream]))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    def echo(self, request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            assert request.stream is not None
            async for piece in request.stream:
                yield piece

        return Response(200, content_type=b"text/plain", stream=pieces())

    def early(self, request: Request) -> Response:
        return Response(200, b"early")

    async def held(self, request: Request) -> Response:
        await self.release.wait()
        return await self.count(request)


@pytest.fixture
def site() -> Uploads:
    return Uploads()


@pytest.fixture
def limits() -> Limits:
    return Limits(max_body_bytes=PIECES * len(PIECE))


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client() as client:
        yield client


@pytest.fixture
async def way_in(server: Server, limits: Limits, client: Client) -> AsyncIterator[Server]:
    async def pass_on(request: Request) -> Response:
        return await forward(request, server.url, client)

    async with Server(lambda method, path: Streamed(pass_on), limits=limits, drain_seconds=5).running() as passing:
        yield passing


def head(path: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", b"host: h", *headers]) + b"\r\n\r\n"


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield PIECE


async def test_piece_is_read_before_the_next_one_is_sent(connect: Connect) -> None:
    wire = await connect()
    await wire.send(head(b"/echo", b"transfer-encoding: chunked") + b"3\r\none\r\n")
    assert (await wire.reader.readuntil(b"one\r\n")).startswith(b"HTTP/1.1 200")
    await wire.send(b"3\r\ntwo\r\n0\r\n\r\n")
    assert await wire.reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("sized", [True, False], ids=["content-length", "chunked"])
async def test_64_mib_pass_in_bounded_memory(client: Client, way_in: Server, site: Uploads, sized: bool) -> None:
    length = PIECES * len(PIECE)
    headers = [(b"content-length", b"%d" % length)] if sized else []
    tracemalloc.start()
    try:
        async with client.stream("POST", f"{way_in.url}/count", headers=headers, body=pieces(PIECES)) as answer:
            assert [chunk async for chunk in answer.chunks()] == [b"%d" % length]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < BOUND_BYTES
    names = {name for name, _ in site.seen[0].headers}
    assert names & {b"content-length", b"transfer-encoding"} == {b"content-length" if sized else b"transfer-encoding"}


async def test_client_waits_for_a_slow_reader(client: Client, way_in: Server, server: Server, site: Uploads) -> None:
    sent = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal sent
        async for piece in pieces(PIECES):
            sent += len(piece)
            yield piece

    async def ask() -> bytes:
        async with client.stream("POST", f"{way_in.url}/held", body=counted()) as answer:
            return b"".join([chunk async for chunk in answer.chunks()])

    asking = asyncio.create_task(ask())
    for passed in (server, way_in):
        # Nobody announces that a transport is paused.
        while not any(one._flow.read_paused for one in passed.server_state.connections):  # type: ignore[union-attr]  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert sent < BOUND_BYTES
    site.release.set()
    assert await asking == b"%d" % sent == b"%d" % (PIECES * len(PIECE))


async def test_answer_before_the_end_of_the_body_keeps_the_connection(connect: Connect) -> None:
    wire = await connect()
    await wire.send(head(b"/early", b"content-length: 200000") + b"x" * 100_000)
    assert (await wire.answer())[2] == b"early"
    await wire.send(b"x" * 100_000 + head(b"/count", b"content-length: 2") + b"hi")
    assert (await wire.answer())[2] == b"2"


async def test_last_answer_of_a_connection_waits_for_the_rest_of_the_body(connect: Connect) -> None:
    wire = await connect()
    await wire.send(head(b"/early", b"content-length: 200000", b"connection: close") + b"x" * 100_000)
    status, headers, body = await wire.answer()
    assert (status, headers["connection"], body) == (200, "close", b"early")
    await wire.send(b"x" * 100_000)
    assert await wire.closed()


async def test_client_that_waits_for_100_continue_gets_it(connect: Connect) -> None:
    wire = await connect()
    await wire.send(head(b"/count", b"expect: 100-continue", b"content-length: 1"))
    assert (await wire.answer())[0] == 100
    await wire.send(b"x")
    assert (await wire.answer())[2] == b"1"


async def test_streamed_request_waits_for_its_turn(connect: Connect, site: Uploads) -> None:
    wire = await connect()
    sending = asyncio.create_task(
        wire.send(
            head(b"/held", b"content-length: 1") + b"x" + head(b"/count", b"content-length: 300000") + b"x" * 300_000
        )
    )
    site.release.set()
    assert [(await wire.answer())[2] for _ in range(2)] == [b"1", b"300000"]
    await sending


async def test_client_that_goes_away_cancels_the_reader(connect: Connect, site: Uploads) -> None:
    wire = await connect()
    await wire.send(head(b"/count", b"content-length: 10") + b"x")
    await site.entered.wait()
    wire.writer.transport.abort()
    await asyncio.wait_for(site.cancelled.wait(), 10)


async def test_client_that_goes_away_cancels_the_reader_upstream(way_in: Server, site: Uploads) -> None:
    _, writer = await asyncio.open_connection(way_in.host, way_in.port)
    writer.write(head(b"/count", b"content-length: 100000") + b"x" * 50_000)
    await asyncio.wait_for(site.entered.wait(), 10)
    writer.transport.abort()
    await asyncio.wait_for(site.cancelled.wait(), 10)


async def test_body_that_breaks_is_its_senders_error(client: Client, server: Server) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise BodyBroke("half of it")

    with pytest.raises(BodyBroke, match="half of it"):
        async with client.stream("POST", f"{server.url}/count", body=broken()):
            raise AssertionError("half a request was answered")
    assert (await client.request("POST", f"{server.url}/count", body=b"xy")).body == b"2"


class TestBounds:
    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(max_body_bytes=1000, read_timeout_seconds=0.3)

    async def test_body_beyond_the_limit_is_refused_and_its_reader_cancelled(
        self, connect: Connect, site: Uploads
    ) -> None:
        wire = await connect()
        await wire.send(head(b"/count", b"transfer-encoding: chunked"))
        await site.entered.wait()
        await wire.send(b"3e9\r\n" + b"x" * 1001)
        status, headers, _ = await wire.answer()
        assert (status, headers["connection"]) == (413, "close")
        assert await wire.closed()
        assert site.cancelled.is_set()

    async def test_body_beyond_the_limit_cuts_an_answer_that_has_begun(self, connect: Connect) -> None:
        wire = await connect()
        await wire.send(head(b"/echo", b"transfer-encoding: chunked") + b"1\r\nx\r\n")
        await wire.reader.readuntil(b"x\r\n")
        await wire.send(b"3e9\r\n" + b"x" * 1001)
        rest = b""
        with contextlib.suppress(ConnectionResetError):
            rest = await asyncio.wait_for(wire.reader.read(), 10)
        assert b"0\r\n\r\n" not in rest

    async def test_silence_in_the_middle_of_a_body_is_timed_out(self, connect: Connect, site: Uploads) -> None:
        wire = await connect()
        await wire.send(head(b"/count", b"content-length: 10") + b"x")
        assert (await wire.answer())[0] == 408
        assert site.cancelled.is_set()

    async def test_silence_after_the_answer_closes_without_another(self, connect: Connect) -> None:
        wire = await connect()
        await wire.send(head(b"/early", b"content-length: 10") + b"x")
        assert (await wire.answer())[2] == b"early"
        assert await wire.closed()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 10_000), max_size=6))
async def test_answers_do_not_depend_on_how_bytes_arrive(connect: Connect, cuts: list[int]) -> None:
    chunked = head(b"/count", b"transfer-encoding: chunked") + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    stream = head(b"/count", b"content-length: 4") + b"four" + chunked + head(b"/early", b"content-length: 3") + b"abc"
    wire = await connect()
    places = sorted({cut % len(stream) for cut in cuts} | {0, len(stream)})
    for start, stop in itertools.pairwise(places):
        await wire.send(stream[start:stop])
        await asyncio.sleep(0)
    assert [(await wire.answer())[2] for _ in range(3)] == [b"4", b"5", b"early"]
