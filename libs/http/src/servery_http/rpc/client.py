"""Unary calls of our own: one HTTP/2 connection, a stream for each call; no task and no context for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import unquote

from servery_http.address import Address
from servery_http.http2 import connection, frames
from servery_http.http2.connection import Connection, Stream
from servery_http.http2.frames import ErrorCode, Setting
from servery_http.http2.headers import Fields, encode, first
from servery_http.rpc.calls import PREFIX, Answer, Done, Failure, Outcome, Status, metadata_of

_MAX_LIST_BYTES = 256 * 1024
_PROBE_SECONDS = 2.0
_PAUSE_SECONDS = 5.0
_STATUS_OF_HTTP = {400: Status.INTERNAL, 401: Status.UNAUTHENTICATED, 403: Status.PERMISSION_DENIED}
"""Source: "gRPC over HTTP2", "HTTP2 Transport Mapping": what has no ``grpc-status``; 404 is UNIMPLEMENTED, all else UNKNOWN."""


class Unsent(Failure):
    """The server has not seen the call: it may be made again, here or by another way."""


def block_of(path: bytes, metadata: Fields = ()) -> bytes:
    """Return the head of a call of ``path``."""
    ours: Fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    return encode((*ours, *metadata))


class _Asked(Stream):
    """A call on its way."""

    __slots__ = ("done", "head", "pieces", "size")

    def __init__(self, connection: Connection, number: int, window: int, done: Done) -> None:
        super().__init__(connection, number, window)
        self.done = done
        self.head: Fields = ()
        self.pieces: list[bytes] = []
        self.size = 0

    def finish(self, outcome: Outcome) -> None:
        """Tell who asked, who may hold what holds this: neither should wait for the collector."""
        done, self.done = self.done, _nobody
        done(outcome)


def _nobody(_outcome: Outcome) -> None:
    pass


class _Calls(Connection):
    """One connection; it may be used before it is connected."""

    def __init__(self, address: Address, max_message_bytes: int) -> None:
        super().__init__(max_list_bytes=_MAX_LIST_BYTES)
        self.is_leaving = False
        self._max_message_bytes = max_message_bytes
        self._next = 1
        self._corked = True
        settings = {Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: connection.STREAM_WINDOW_BYTES}
        self._out.append(frames.PREFACE + frames.settings(settings))
        self._out.append(frames.window_update(0, connection.CONNECTION_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES))
        self._opening = self._loop.create_task(self._open(address), name="grpc-calls")

    async def _open(self, address: Address) -> None:
        try:
            await address.connect(lambda: self)
        except OSError as error:
            self._lose_all(Unsent(Status.UNAVAILABLE, f"nobody listens at {address}: {error.strerror or error}"))

    def ask(self, block: bytes, message: bytes, done: Done) -> Callable[[], None]:
        """Send a call; return what gives it up."""
        stream = _Asked(self, self._next, self._peer_window, done)
        self._next += 2
        self._streams[stream.id] = stream
        self.send_block(stream, block, end=False)
        self.send_data(stream, PREFIX.pack(0, len(message)) + message, end=True)
        return lambda: self.reset(stream, ErrorCode.CANCEL)

    def is_idle(self, number: int) -> bool:
        return number >= self._next or number % 2 == 0

    def on_head(self, number: int, block: bytes, *, end: bool) -> None:
        fields: Fields | None = self._heads.get(block)
        if fields is None:
            fields, is_stable = self.decode(block)
            if is_stable:
                self._heads[block] = fields
        stream = self._streams.get(number)
        if stream is None or not stream.receiving:
            return
        assert isinstance(stream, _Asked)
        if end:
            self._end_with(stream, _outcome(fields, b"".join(stream.pieces), stream.head))
        else:
            stream.head = metadata_of(fields)

    def on_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        assert isinstance(stream, _Asked)
        stream.pieces.append(data)
        stream.size += len(data)
        if stream.size > self._max_message_bytes + PREFIX.size:
            words = f"the answer is longer than {self._max_message_bytes} bytes"
            self._end_with(stream, Failure(Status.RESOURCE_EXHAUSTED, words))
        elif end:
            self._end_with(stream, Failure(Status.INTERNAL, "the answer ended without a status"))

    def _end_with(self, stream: _Asked, outcome: Outcome) -> None:
        if stream.receiving and stream.sending:
            self.reset(stream, ErrorCode.NO_ERROR)
        self._streams.pop(stream.id, None)
        self._drop(stream)
        stream.finish(outcome)

    def on_reset(self, stream: Stream, code: int) -> None:
        assert isinstance(stream, _Asked)
        words = f"the server gave the call up, by code {code}"
        is_unsent = code == ErrorCode.REFUSED_STREAM
        stream.finish(Unsent(Status.UNAVAILABLE, words) if is_unsent else Failure(Status.UNAVAILABLE, words))

    def on_goaway(self, last: int) -> None:
        self.is_leaving = True
        for stream in [stream for number, stream in self._streams.items() if number > last]:
            self._lose(stream, Unsent(Status.UNAVAILABLE, "the server is going away"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_settled:
            self._lose_all(Failure(Status.UNAVAILABLE, "the server went away before it answered"))
        else:
            self._lose_all(Unsent(Status.UNAVAILABLE, "what listens there does not speak HTTP/2"))

    def _lose_all(self, why: Failure) -> None:
        self._closing = self.is_leaving = True
        for stream in list(self._streams.values()):
            self._lose(stream, why)

    def _lose(self, stream: Stream, why: Failure) -> None:
        assert isinstance(stream, _Asked)
        self._streams.pop(stream.id, None)
        self._drop(stream)
        stream.finish(why)

    def abort(self) -> None:
        """Cut the connection, made or not; nobody is told."""
        self._streams.clear()
        self.is_leaving = True
        self._opening.cancel()
        super().abort()


def _outcome(fields: Fields, body: bytes, head: Fields) -> Outcome:
    said = first(fields, b"grpc-status")
    if said is None:
        http = int(first(fields, b":status") or b"0")
        unknown = Status.UNIMPLEMENTED if http == 404 else Status.UNKNOWN
        return Failure(_STATUS_OF_HTTP.get(http, unknown), f"the server answers HTTP {http} and no grpc-status")
    if said != b"0":
        status = Status(int(said)) if said.isdigit() and int(said) <= max(Status) else Status.UNKNOWN
        words = unquote((first(fields, b"grpc-message") or b"").decode("latin-1"))
        return Failure(status, words, (*head, *metadata_of(fields)))
    if len(body) < PREFIX.size or PREFIX.unpack_from(body) != (0, len(body) - PREFIX.size):
        return Failure(Status.INTERNAL, "the answer is not one message that is not compressed")
    message, trailers = body[PREFIX.size :], metadata_of(fields)
    return Answer(message, head, trailers) if head or trailers else message


class RpcChannel:
    """Calls to one server, which may or may not speak gRPC. Made inside a running loop.

    Args:
        probe: Path of a call that every server of the wanted kind answers, and the empty message asks for.
    """

    def __init__(self, address: Address, *, probe: bytes, max_message_bytes: int = 256 * 1024 * 1024) -> None:
        self._address = address
        self._probe = block_of(probe)
        self._max_message_bytes = max_message_bytes
        self._loop = asyncio.get_running_loop()
        self._calls: _Calls | None = None
        self._asked_at = float("-inf")
        self._is_spoken = False

    @property
    def is_spoken(self) -> bool:
        """Whether the server is known to speak gRPC; asks it, where not, and does not wait for the answer."""
        if self._calls is not None and self._calls.is_leaving:
            self._is_spoken = False
        if not self._is_spoken and self._loop.time() - self._asked_at > _PAUSE_SECONDS:
            self._asked_at = self._loop.time()
            cancel = self.ask(self._probe, b"", self._on_probed)
            self._loop.call_later(_PROBE_SECONDS, cancel)
        return self._is_spoken

    def _on_probed(self, outcome: Outcome) -> None:
        self._is_spoken = not isinstance(outcome, Failure)

    def ask(self, block: bytes, message: bytes, done: Done) -> Callable[[], None]:
        """Call ``done`` once with what comes of a call, never before this returns; return what gives it up."""
        if self._calls is None or self._calls.is_leaving:
            self._calls = _Calls(self._address, self._max_message_bytes)
        return self._calls.ask(block, message, done)

    def close(self) -> None:
        """Cut the connection."""
        if self._calls is not None:
            self._calls.abort()
