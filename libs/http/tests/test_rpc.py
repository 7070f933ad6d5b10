"""The gRPC front with a real ``grpcio`` server behind it: other people's client, and frames by hand."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import hpack
import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servery_http.http2 import connection, frames
from servery_http.http2.frames import ErrorCode, Setting
from servery_http.http2.headers import encode
from servery_http.rpc.calls import Done, Failure, Status, percent_encoded, timeout_seconds
from servery_http.rpc.compression import WINDOW_BITS, inflated
from servery_http.rpc.front import CallLimits
from servery_http.rpc.server import RpcServer

PATIENCE_SECONDS = 20
LIMITS = CallLimits(max_message_bytes=32_000_000, max_streams=200, max_header_bytes=8192, max_connections=1200)
GZIP = (b"grpc-encoding", b"gzip")
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Site:
    """Calls that the front answers: ``Echo`` at once, ``Later`` when released, ``Broken`` raises."""

    def __init__(self) -> None:
        self.waiting: list[Done] = []
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.handlers = {
            b"/hot/Echo": lambda message, done: done(b"hot " + message),
            b"/hot/Later": self.later,
            b"/hot/Broken": self.broken,
            b"/hot/Refused": self.refused,
        }

    def later(self, message: bytes, done: Done) -> Callable[[], None]:
        self.waiting.append(lambda outcome: done(b"later " + message if outcome == b"" else outcome))
        self.entered.set()
        return self.cancelled.set

    def release(self) -> None:
        for done in self.waiting:
            done(b"")

    def broken(self, message: bytes, done: Done) -> None:
        raise ZeroDivisionError

    def refused(self, message: bytes, done: Done) -> None:
        done(Failure(Status.NOT_FOUND, "100 % nicht da: größer\n"))


class Behind(grpc.GenericRpcHandler):
    """Calls that only the ``grpcio`` server knows."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.metadata: dict[str, object] = {}

    def service(self, details):  # type: ignore[no-untyped-def]
        return {
            "/cold/Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "/cold/Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "/cold/Count": grpc.unary_stream_rpc_method_handler(self.count),
            "/cold/Early": grpc.stream_unary_rpc_method_handler(self.early),
            "/cold/Never": grpc.unary_unary_rpc_method_handler(self.never),
        }.get(details.method)

    async def echo(self, message: bytes, context) -> bytes:  # type: ignore[no-untyped-def]
        self.metadata = dict(context.invocation_metadata())
        await context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last-bin", b"\x00\xff"),))
        return b"cold " + message

    async def chat(self, messages, context) -> AsyncIterator[bytes]:  # type: ignore[no-untyped-def]
        async for message in messages:
            yield b"cold " + message

    async def count(self, message: bytes, context) -> AsyncIterator[bytes]:  # type: ignore[no-untyped-def]
        for number in range(int(message)):
            yield b"%d" % number + b"." * 100_000

    async def early(self, messages, context) -> bytes:  # type: ignore[no-untyped-def]
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now")
        raise AssertionError

    async def never(self, message: bytes, context) -> bytes:  # type: ignore[no-untyped-def]
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        return b""


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def behind(tmp_path: Path) -> AsyncIterator[Behind]:
    handler = Behind()
    most = LIMITS.max_message_bytes
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", most), ("grpc.max_send_message_length", most)]
    )
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{tmp_path}/behind.sock")
    await server.start()
    yield handler
    await server.stop(0)


@pytest.fixture
async def server(site: Site, behind: Behind, tmp_path: Path) -> AsyncIterator[RpcServer]:
    made = RpcServer(site.handlers, tmp_path / "behind.sock", limits=LIMITS)
    async with made.running(drain_seconds=1) as server:
        yield server


@pytest.fixture
async def channel(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=OPTIONS) as channel:
        yield channel


async def call(channel: grpc.aio.Channel, path: str, message: bytes = b"x", **options: object) -> bytes:
    return await channel.unary_unary(path)(message, timeout=PATIENCE_SECONDS, **options)


async def refusal(calling: Awaitable[bytes]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await calling
    return refused.value.code(), refused.value.details() or ""


@pytest.mark.parametrize("where", ["hot", "cold"])
async def test_unary_calls_are_answered_wherever_they_are_known(channel: grpc.aio.Channel, where: str) -> None:
    for message in (b"", b"a", b"b" * 100_000):
        assert await call(channel, f"/{where}/Echo", message) == f"{where} ".encode() + message


async def test_unknown_call_is_unimplemented(channel: grpc.aio.Channel) -> None:
    code, _ = await refusal(call(channel, "/hot/Nothing"))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_failure_keeps_its_status_and_every_letter(channel: grpc.aio.Channel) -> None:
    found = await refusal(call(channel, "/hot/Refused"))
    assert found == (grpc.StatusCode.NOT_FOUND, "100 % nicht da: größer\n")


async def test_handler_that_raises_is_an_internal_error_and_the_connection_lives(channel: grpc.aio.Channel) -> None:
    assert (await refusal(call(channel, "/hot/Broken")))[0] is grpc.StatusCode.INTERNAL
    assert await call(channel, "/hot/Echo") == b"hot x"


async def test_metadata_pass_both_ways(channel: grpc.aio.Channel, behind: Behind) -> None:
    calling = channel.unary_unary("/cold/Echo")(b"m", metadata=(("x-key", "1"), ("x-more-bin", b"\x80\x00")))
    assert await calling == b"cold m"
    assert (behind.metadata["x-key"], behind.metadata["x-more-bin"]) == ("1", b"\x80\x00")
    assert dict(await calling.initial_metadata())["x-first"] == "1"
    assert dict(await calling.trailing_metadata())["x-last-bin"] == b"\x00\xff"


async def test_streams_pass_both_ways_as_they_come(channel: grpc.aio.Channel) -> None:
    chat = channel.stream_stream("/cold/Chat")()
    for number in range(5):
        await chat.write(b"%d" % number)
        assert await asyncio.wait_for(chat.read(), PATIENCE_SECONDS) == b"cold %d" % number
    await chat.done_writing()
    assert await chat.code() is grpc.StatusCode.OK


async def test_long_stream_waits_for_its_reader_and_not_for_others(channel: grpc.aio.Channel) -> None:
    counting = channel.unary_stream("/cold/Count")(b"300")
    assert (await counting.read()).startswith(b"0.")
    assert await call(channel, "/cold/Echo") == b"cold x"
    assert await call(channel, "/hot/Echo") == b"hot x"
    rest = []
    while (message := await counting.read()) is not grpc.aio.EOF:
        rest.append(message)
    assert [int(message.partition(b".")[0]) for message in rest] == list(range(1, 300))


async def test_server_that_answers_before_the_end_is_heard(channel: grpc.aio.Channel) -> None:
    calling = channel.stream_unary("/cold/Early")()
    assert await calling.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert await calling.details() == "not now"
    assert await call(channel, "/cold/Echo") == b"cold x"


@pytest.mark.parametrize("where", ["hot", "cold"])
async def test_large_messages_fit_through_the_windows(channel: grpc.aio.Channel, where: str) -> None:
    message = bytes(range(256)) * 80_000
    assert await call(channel, f"/{where}/Echo", message) == f"{where} ".encode() + message


async def test_message_beyond_the_limit_is_refused_before_it_is_all_here(channel: grpc.aio.Channel) -> None:
    code, words = await refusal(call(channel, "/hot/Echo", bytes(40_000_000)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "40000000 bytes, the limit is 32000000" in words
    assert await call(channel, "/hot/Echo") == b"hot x"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("where", ["hot", "cold"])
async def test_compressed_messages_are_read_wherever_the_call_is_known(
    channel: grpc.aio.Channel, where: str, compression: grpc.Compression
) -> None:
    # The last ones are too long to be inflated between two frames.
    noise = random.Random(0).randbytes(1_000_000)
    for message in (b"", b"a", b"a" * 10_000, noise, noise * 20):
        answer = await call(channel, f"/{where}/Echo", message, compression=compression)
        assert answer == f"{where} ".encode() + message


async def test_compressed_call_that_is_given_up_is_not_handed_over(
    connect: Callable[..., Awaitable[Wire]], site: Site
) -> None:
    wire = await connect({Setting.INITIAL_WINDOW_SIZE: 2_000_000})
    wire.send(frames.window_update(0, 2_000_000))
    long = gzip.compress(random.Random(0).randbytes(1_000_000), 1)
    wire.send(wire.call(b"/hot/Later", long, GZIP, flag=1), frames.rst_stream(wire.last, ErrorCode.CANCEL))
    wire.send(wire.call(b"/hot/Echo", long, GZIP, flag=1))
    assert len(await wire.answer(wire.last)) == 1_000_004
    assert not site.entered.is_set()


@pytest.mark.parametrize("path", ["/hot/Later", "/cold/Never"])
async def test_deadline_ends_the_call_and_its_work(
    channel: grpc.aio.Channel, site: Site, behind: Behind, path: str
) -> None:
    code, _ = await refusal(channel.unary_unary(path)(b"", timeout=0.3))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for((site if "hot" in path else behind).cancelled.wait(), PATIENCE_SECONDS)


@pytest.mark.parametrize("path", ["/hot/Later", "/cold/Never"])
async def test_cancelling_a_call_cancels_its_work(
    channel: grpc.aio.Channel, site: Site, behind: Behind, path: str
) -> None:
    at = site if "hot" in path else behind
    calling = channel.unary_unary(path)(b"")
    waiting = asyncio.ensure_future(calling.wait_for_connection())
    await asyncio.wait_for(at.entered.wait(), PATIENCE_SECONDS)
    calling.cancel()
    await asyncio.wait_for(at.cancelled.wait(), PATIENCE_SECONDS)
    await asyncio.gather(waiting, return_exceptions=True)
    site.release()
    assert await call(channel, "/hot/Echo") == b"hot x"


async def test_client_that_goes_away_cancels_its_calls(connect: Connect, site: Site, behind: Behind) -> None:
    wire = await connect()
    wire.send(wire.call(b"/hot/Later"), wire.call(b"/cold/Never"))
    await asyncio.wait_for(asyncio.gather(site.entered.wait(), behind.entered.wait()), PATIENCE_SECONDS)
    wire.writer.transport.abort()
    await asyncio.wait_for(asyncio.gather(site.cancelled.wait(), behind.cancelled.wait()), PATIENCE_SECONDS)


async def test_kernel_looks_after_clients_that_are_silent(connect: Connect, server: RpcServer) -> None:
    wire = await connect()
    wire.send(wire.call(b"/hot/Echo", b"here"))
    assert await wire.answer(1) == b"hot here"
    (front,) = server._connections
    assert front._transport is not None
    accepted = front._transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_answer_to_a_connection_that_was_just_cut_goes_nowhere(tmp_path: Path) -> None:
    raised: list[dict[str, object]] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
        site = Site()
        async with RpcServer(site.handlers, tmp_path / "nobody.sock").running(drain_seconds=1) as server:
            wire = Wire(*await asyncio.open_connection("127.0.0.1", server.port))
            wire.send(frames.PREFACE, frames.settings({}), wire.call(b"/hot/Later"))
            await asyncio.wait_for(site.entered.wait(), PATIENCE_SECONDS)
            (front,) = server._connections
            # The transport is gone, but nobody has told the front yet.
            front.abort()
            site.release()
            await asyncio.wait_for(wire.reader.read(), PATIENCE_SECONDS)
            wire.writer.close()

    # The loop that predictors run on: its transports raise where asyncio's own say a word.
    uvloop.run(scene())
    assert raised == []


async def test_many_calls_of_one_connection_keep_their_answers_apart(channel: grpc.aio.Channel) -> None:
    # More than the front takes at once: the client waits with the rest.
    paths = [("/hot/Echo", b"hot %d"), ("/cold/Echo", b"cold %d")]
    calls = [(call(channel, path, b"%d" % n), form % n) for n in range(300) for path, form in paths]
    answers = await asyncio.gather(*(calling for calling, _ in calls))
    assert answers == [expected for _, expected in calls]


async def test_a_thousand_connections_are_served(connect: Connect) -> None:
    wires = [await connect() for _ in range(1000)]
    for wire in wires:
        wire.send(wire.call(b"/hot/Echo", b"%d" % wires.index(wire)))
    for number, wire in enumerate(wires):
        assert await wire.answer(1) == b"hot %d" % number


async def test_drain_finishes_what_is_in_flight(site: Site, behind: Behind, tmp_path: Path) -> None:
    server = RpcServer(site.handlers, tmp_path / "behind.sock", limits=LIMITS)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        hot = asyncio.ensure_future(call(channel, "/hot/Later"))
        chat = channel.stream_stream("/cold/Chat")()
        await chat.write(b"1")
        await chat.read()
        await asyncio.wait_for(site.entered.wait(), PATIENCE_SECONDS)
        stopping = asyncio.ensure_future(server.stop(PATIENCE_SECONDS))
        await chat.write(b"2")
        assert await asyncio.wait_for(chat.read(), PATIENCE_SECONDS) == b"cold 2"
        await chat.done_writing()
        site.release()
        assert await hot == b"later x"
        assert await chat.code() is grpc.StatusCode.OK
        await asyncio.wait_for(stopping, PATIENCE_SECONDS)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)


async def test_nobody_behind_is_unavailable_and_known_calls_are_answered(site: Site, tmp_path: Path) -> None:
    async with (
        RpcServer(site.handlers, tmp_path / "nobody.sock").running(drain_seconds=1) as server,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        assert (await refusal(call(channel, "/cold/Echo")))[0] is grpc.StatusCode.UNAVAILABLE
        assert await call(channel, "/hot/Echo") == b"hot x"


# By hand.


class Wire:
    """One connection, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._next = -1
        self._decoder = hpack.Decoder()

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def head(self, path: bytes, *more: tuple[bytes, bytes]) -> bytes:
        self._next += 2
        return encode(
            (
                *((b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"h")),
                *((b"te", b"trailers"), (b"content-type", b"application/grpc"), *more),
            )
        )

    @property
    def last(self) -> int:
        return self._next

    def call(self, path: bytes, message: bytes = b"", *more: tuple[bytes, bytes], flag: int = 0) -> bytes:
        head = frames.headers(self._next + 2, self.head(path, *more), end=False)
        body = prefixed(message, flag)
        pieces = [body[at : at + frames.MAX_FRAME_BYTES] for at in range(0, len(body), frames.MAX_FRAME_BYTES)]
        data = [frames.frame(frames.DATA, 0, self._next, piece) for piece in pieces[:-1]]
        return head + b"".join(data) + frames.frame(frames.DATA, frames.END_STREAM, self._next, pieces[-1])

    async def frame(self) -> tuple[int, int, int, bytes]:
        header = await asyncio.wait_for(self.reader.readexactly(9), PATIENCE_SECONDS)
        high, low, kind, flags, stream = frames.HEADER.unpack(header)
        return kind, flags, stream, await self.reader.readexactly(high << 16 | low)

    async def until(self, kind: int, stream: int | None = None) -> tuple[int, bytes]:
        """Skip what comes before a frame; header blocks are read all the same."""
        while True:
            found, flags, number, payload = await self.frame()
            if found == frames.HEADERS and kind != frames.HEADERS:
                self._decoder.decode(payload)
            if found == kind and stream in {None, number}:
                return flags, payload

    async def answer(self, stream: int) -> bytes:
        """Return the message of a call that succeeds."""
        body = b""
        while True:
            kind, flags, number, payload = await self.frame()
            if kind == frames.HEADERS:
                fields = dict(self._decoder.decode(payload))
                if number == stream and flags & frames.END_STREAM:
                    assert fields["grpc-status"] == "0", fields
                    return body[5:]
            elif kind == frames.DATA and number == stream:
                body += payload

    async def trailers(self, stream: int) -> dict[str, str]:
        while True:
            kind, flags, number, payload = await self.frame()
            if kind == frames.HEADERS:
                fields = dict(self._decoder.decode(payload))
                if number == stream and flags & frames.END_STREAM:
                    return fields

    async def goodbye(self) -> ErrorCode:
        _, payload = await self.until(frames.GOAWAY)
        assert await asyncio.wait_for(self.reader.read(), PATIENCE_SECONDS) == b""
        return ErrorCode(struct.unpack(">II", payload[:8])[1])


Connect = Callable[[], Awaitable[Wire]]


def prefixed(message: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(message)) + message


@pytest.fixture
async def connect(server: RpcServer) -> AsyncIterator[Callable[..., Awaitable[Wire]]]:
    wires: list[Wire] = []

    async def open_wire(asked: dict[Setting, int] | None = None) -> Wire:
        wires.append(Wire(*await asyncio.open_connection("127.0.0.1", server.port)))
        wires[-1].send(frames.PREFACE, frames.settings(asked or {}))
        return wires[-1]

    yield open_wire
    for wire in wires:
        wire.writer.close()


async def test_head_in_pieces_padded_and_with_a_priority_is_read(connect: Connect) -> None:
    wire = await connect()
    block = wire.head(b"/hot/Echo")
    first = b"\x03" + struct.pack(">IB", 0, 7) + block[:10] + b"\0\0\0"
    wire.send(
        frames.frame(frames.PRIORITY, 0, 1, struct.pack(">IB", 0, 1)),
        frames.frame(frames.HEADERS, frames.PADDED | frames.HAS_PRIORITY, 1, first),
        frames.frame(frames.CONTINUATION, 0, 1, block[10:12]),
        frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[12:]),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x02" + prefixed(b"hi")[:3] + b"\0\0"),
        frames.frame(frames.DATA, frames.END_STREAM, 1, prefixed(b"hi")[3:]),
    )
    assert await wire.answer(1) == b"hot hi"


async def test_frames_cut_anywhere_are_put_together(connect: Connect) -> None:
    wire = await connect()
    for byte in wire.call(b"/hot/Echo", b"abc"):
        wire.send(bytes([byte]))
        await wire.writer.drain()
    assert await wire.answer(1) == b"hot abc"


@pytest.mark.parametrize("path", [b"/hot/Echo", b"/cold/Echo"])
async def test_answer_keeps_to_the_clients_windows(connect: Callable[..., Awaitable[Wire]], path: bytes) -> None:
    wire = await connect({Setting.INITIAL_WINDOW_SIZE: 3})
    wire.send(wire.call(path, b"abcdef"))
    expected = prefixed(path[1:].partition(b"/")[0] + b" abcdef")
    _, first = await wire.until(frames.DATA)
    assert first == expected[:3]
    wire.send(frames.window_update(1, 2))
    _, second = await wire.until(frames.DATA)
    assert second == expected[3:5]
    # Smaller than what has been sent: the window is negative, and has to be opened beyond that.
    wire.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 0}), frames.window_update(1, 3))
    wire.send(frames.frame(frames.PING, 0, 0, b"12345678"))
    kinds = [(await wire.frame())[0] for _ in range(2)]
    assert kinds == [frames.SETTINGS, frames.PING]
    wire.send(frames.settings({Setting.INITIAL_WINDOW_SIZE: 100}))
    _, rest = await wire.until(frames.DATA)
    assert rest == expected[5:]
    assert (await wire.trailers(1))["grpc-status"] == "0"


async def test_connections_window_is_shared_and_each_stream_gets_its_turn(connect: Connect) -> None:
    wire = await connect()
    wire.send(wire.call(b"/hot/Echo", bytes(80_000)))
    received = 0
    while received < frames.DEFAULT_WINDOW_BYTES:
        received += len((await wire.until(frames.DATA))[1])
    assert received == frames.DEFAULT_WINDOW_BYTES
    wire.send(wire.call(b"/hot/Echo", b"short"), frames.window_update(1, 100_000), frames.window_update(3, 100_000))
    wire.send(frames.window_update(0, 40_000))
    order: list[int] = []
    while len(order) < 2:
        kind, flags, stream, payload = await wire.frame()
        if kind == frames.HEADERS:
            wire._decoder.decode(payload)
            if flags & frames.END_STREAM:
                order.append(stream)
    assert sorted(order) == [1, 3]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param(b"", 13, "found none", id="no-message"),
        pytest.param(prefixed(b"a")[:5], 13, "one message", id="half-a-message"),
        pytest.param(prefixed(b"a") * 2, 13, "one message", id="two-messages"),
        pytest.param(b"\x01" + prefixed(b"a")[1:], 13, "does not say how", id="compressed-without-an-encoding"),
        pytest.param(struct.pack(">BI", 0, 2**32 - 1), 8, "the limit is", id="huge"),
    ],
)
async def test_wrong_body_is_told_and_the_connection_lives(
    connect: Connect, body: bytes, status: int, words: str
) -> None:
    wire = await connect()
    wire.send(frames.headers(1, wire.head(b"/hot/Echo"), end=False))
    wire.send(frames.frame(frames.DATA, frames.END_STREAM, 1, body))
    found = await wire.trailers(1)
    assert found["grpc-status"] == str(status)
    assert words in found["grpc-message"]
    wire.send(wire.call(b"/hot/Echo", b"next"))
    assert await wire.answer(3) == b"hot next"


ZIPPED = gzip.compress(b"hello" * 10)


@pytest.mark.parametrize("where", ["hot", "cold"])
@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        pytest.param(b"gzip", prefixed(b"as it is"), 0, id="not-compressed-after-all"),
        pytest.param(b"gzip", prefixed(b"", 1), 0, id="nothing-compressed"),
        pytest.param(b"identity", prefixed(ZIPPED, 1), 13, id="compressed-as-identity"),
        pytest.param(b"snappy", prefixed(b"x", 1), 13, id="unknown-encoding"),
        pytest.param(b"gzip", prefixed(bytes(30), 1), 13, id="no-gzip"),
        pytest.param(b"gzip", prefixed(bytes(30_000), 1), 13, id="no-gzip-and-long"),
        pytest.param(b"gzip", prefixed(zlib.compress(b"hello"), 1), 13, id="deflate-as-gzip"),
        pytest.param(b"deflate", prefixed(ZIPPED, 1), 13, id="gzip-as-deflate"),
        pytest.param(b"gzip", prefixed(ZIPPED[:-12], 1), 13, id="cut"),
        pytest.param(b"gzip", prefixed(ZIPPED[:-8] + bytes(8), 1), 13, id="wrong-sum"),
        pytest.param(b"gzip", prefixed(ZIPPED + ZIPPED, 1), 13, id="two-members"),
        pytest.param(b"gzip", prefixed(gzip.compress(bytes(40_000_000)), 1), 8, id="bomb"),
    ],
)
async def test_compressed_body_is_answered_as_grpcio_answers_it(
    connect: Connect, where: str, encoding: bytes, body: bytes, status: int
) -> None:
    wire = await connect()
    wire.send(frames.headers(1, wire.head(f"/{where}/Echo".encode(), (b"grpc-encoding", encoding)), end=False))
    pieces = [body[at : at + frames.MAX_FRAME_BYTES] for at in range(0, len(body), frames.MAX_FRAME_BYTES)]
    wire.send(*(frames.frame(frames.DATA, 0, 1, piece) for piece in pieces), frames.frame(frames.DATA, 1, 1))
    assert (await wire.trailers(1))["grpc-status"] == str(status)
    wire.send(wire.call(b"/hot/Echo", b"next"))
    assert await wire.answer(3) == b"hot next"


async def test_flag_that_is_neither_is_refused(connect: Connect) -> None:
    wire = await connect()
    wire.send(wire.call(b"/hot/Echo", ZIPPED, GZIP, flag=2))
    found = await wire.trailers(1)
    assert (found["grpc-status"], "found 2" in found["grpc-message"]) == ("13", True)


@pytest.mark.parametrize("where", ["hot", "cold"])
async def test_answer_beyond_the_limit_is_refused(channel: grpc.aio.Channel, where: str) -> None:
    # The answer says some bytes more than the message.
    code, words = await refusal(call(channel, f"/{where}/Echo", bytes(LIMITS.max_message_bytes)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(LIMITS.max_message_bytes) in words
    assert await call(channel, f"/{where}/Echo") == f"{where} x".encode()


async def test_wrong_deadline_is_an_internal_error(connect: Connect) -> None:
    wire = await connect()
    wire.send(wire.call(b"/hot/Echo", b"", (b"grpc-timeout", b"soon")))
    assert (await wire.trailers(1))["grpc-status"] == "13"


async def test_metadata_beyond_the_limit_are_refused_and_the_connection_lives(connect: Connect) -> None:
    wire = await connect()
    wire.send(wire.call(b"/hot/Echo", b"", (b"x", b"a" * 9000)))
    found = await wire.trailers(1)
    assert (found["grpc-status"], "the limit is 8192" in found["grpc-message"]) == ("8", True)
    wire.send(wire.call(b"/hot/Echo", b"next"))
    assert await wire.answer(3) == b"hot next"


async def test_what_is_no_grpc_is_told_so(connect: Connect) -> None:
    wire = await connect()
    wire.head(b"")
    block = encode(((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"h")))
    wire.send(frames.headers(1, block, end=True))
    _, payload = await wire.until(frames.HEADERS)
    assert (b":status", b"415") in hpack.Decoder().decode(payload, raw=True)
    assert (await wire.until(frames.DATA))[1].startswith(b"this port speaks gRPC")


async def test_more_streams_than_allowed_are_refused_and_can_be_asked_again(connect: Connect, site: Site) -> None:
    wire = await connect()
    for _ in range(LIMITS.max_streams + 1):
        wire.send(wire.call(b"/hot/Later"))
    _, code = await wire.until(frames.RST_STREAM, wire.last)
    assert frames.NUMBER.unpack(code)[0] == ErrorCode.REFUSED_STREAM
    site.release()
    await wire.answer(wire.last - 2)
    wire.send(wire.call(b"/hot/Echo", b"again"))
    assert await wire.answer(wire.last) == b"hot again"


async def rapid_resets(wire: Wire) -> None:
    for _ in range(3000):
        wire.send(wire.call(b"/hot/Later"), frames.rst_stream(wire.last, ErrorCode.CANCEL))


async def endless_head(wire: Wire) -> None:
    wire.send(frames.frame(frames.HEADERS, 0, 1, wire.head(b"/hot/Echo")))
    for _ in range(100):
        wire.send(frames.frame(frames.CONTINUATION, 0, 1, b"\x00\x01a\x7f" + b"\x81\x03" + b"a" * 512))


async def header_bomb(wire: Wire) -> None:
    entry = b"\x40\x01a\x7f" + hpack.hpack.encode_integer(3800, 7)[1:] + b"a" * 3800
    wire.send(frames.headers(1, wire.head(b"/hot/Echo") + entry + b"\xbe" * 4000, end=True))


async def more_than_the_window(wire: Wire) -> None:
    wire.send(frames.headers(1, wire.head(b"/hot/Nothing"), end=False))
    for _ in range(connection.CONNECTION_WINDOW_BYTES // frames.MAX_FRAME_BYTES + 1):
        wire.send(frames.frame(frames.DATA, 0, 3, bytes(frames.MAX_FRAME_BYTES)))


@pytest.mark.parametrize(
    ("abuse", "code"),
    [
        pytest.param(rapid_resets, ErrorCode.ENHANCE_YOUR_CALM, id="rapid-reset"),
        pytest.param(endless_head, ErrorCode.ENHANCE_YOUR_CALM, id="continuation-flood"),
        pytest.param(header_bomb, ErrorCode.ENHANCE_YOUR_CALM, id="header-bomb"),
        pytest.param(more_than_the_window, ErrorCode.PROTOCOL_ERROR, id="data-of-idle-stream"),
    ],
)
async def test_abuse_ends_its_connection_and_no_other(
    connect: Connect, abuse: Callable[[Wire], Awaitable[None]], code: ErrorCode
) -> None:
    good, bad = await connect(), await connect()
    await abuse(bad)
    assert await bad.goodbye() is code
    good.send(good.call(b"/hot/Echo", b"on"))
    assert await good.answer(1) == b"hot on"


async def test_relayed_stream_that_overruns_its_window_is_reset_alone(connect: Connect) -> None:
    wire = await connect()
    wire.send(frames.headers(1, wire.head(b"/cold/Chat"), end=False))
    # A message that never ends, of a server that has room for a part of it.
    wire.send(frames.frame(frames.DATA, 0, 1, struct.pack(">BI", 0, 2**30)))
    for _ in range(200):
        wire.send(frames.frame(frames.DATA, 0, 1, bytes(frames.MAX_FRAME_BYTES)))
    _, code = await wire.until(frames.RST_STREAM, 1)
    assert frames.NUMBER.unpack(code)[0] == ErrorCode.FLOW_CONTROL_ERROR
    wire.send(wire.call(b"/hot/Echo", b"on"))
    assert await wire.answer(3) == b"hot on"


FRAMES = st.builds(
    lambda kind, flags, stream, payload: frames.frame(kind, flags, stream, payload),
    st.integers(0, 12),
    st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13, 32, 37, 45, 255]),
    st.sampled_from([0, 1, 2, 3, 5, 7, 2**31 - 1]),
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                encode(((b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b"content-type", kind)))
                for path in (b"/hot/Echo", b"/hot/Later", b"/cold/Chat", b"/cold/Never")
                for kind in (b"application/grpc", b"text/plain")
            ]
        ),
        st.sampled_from(
            [prefixed(b""), prefixed(b"abc"), b"\0\0\0\1", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\4\0\0\0\0"]
        ),
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.one_of(FRAMES, st.binary(max_size=30)), max_size=12), cut=st.integers(1, 60))
async def test_no_frames_crash_the_front_or_stop_others(
    server: RpcServer, caplog: pytest.LogCaptureFixture, pieces: list[bytes], cut: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    good = Wire(*await asyncio.open_connection("127.0.0.1", server.port))
    sent = frames.PREFACE + frames.settings({}) + b"".join(pieces)
    for at in range(0, len(sent), cut):
        writer.write(sent[at : at + cut])
    good.send(frames.PREFACE, frames.settings({}), good.call(b"/hot/Echo", b"on"))
    assert await good.answer(1) == b"hot on"
    writer.write_eof()
    await asyncio.wait_for(reader.read(), PATIENCE_SECONDS)
    for each in (writer, good.writer):
        each.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"1H", 3600.0), (b"90S", 90.0), (b"5m", 0.005), (b"7u", 7e-6), (b"99999999n", 0.099999999)]
)
def test_deadline_is_read_in_every_unit(value: bytes, seconds: float) -> None:
    assert timeout_seconds(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", [b"", b"S", b"1", b"123456789S", b"-1S", b"1.5S", b"1D"])
def test_what_is_no_deadline_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="grpc-timeout is"):
        timeout_seconds(value)


@given(st.text())
def test_message_survives_its_encoding(message: str) -> None:
    from urllib.parse import unquote

    encoded = percent_encoded(message)
    assert encoded.isascii()
    assert encoded.decode().isprintable()
    assert unquote(encoded.decode()) == message


@given(st.lists(st.tuples(st.binary(min_size=1).map(bytes.lower), st.binary())))
def test_header_block_says_the_same_to_any_decoder(fields: list[tuple[bytes, bytes]]) -> None:
    decoder = hpack.Decoder()
    for _ in range(2):
        assert [tuple(field) for field in decoder.decode(encode(fields), raw=True)] == fields
    assert not decoder.header_table.dynamic_entries


@given(st.binary(max_size=5000), st.sampled_from([(gzip.compress, b"gzip"), (zlib.compress, b"deflate")]))
def test_message_survives_its_compression(message: bytes, way: tuple[Callable[[bytes], bytes], bytes]) -> None:
    compress, encoding = way
    assert inflated(compress(message), WINDOW_BITS[encoding], max_bytes=len(message)) == message
    if message:
        with pytest.raises(Failure) as refused:
            inflated(compress(message), WINDOW_BITS[encoding], max_bytes=len(message) - 1)
        assert refused.value.status is Status.RESOURCE_EXHAUSTED


@given(st.binary(min_size=1, max_size=200))
def test_bytes_that_are_not_compressed_are_refused(data: bytes) -> None:
    with pytest.raises(Failure) as refused:
        inflated(b"\x00" + data, WINDOW_BITS[b"gzip"], max_bytes=1000)
    assert refused.value.status is Status.INTERNAL
