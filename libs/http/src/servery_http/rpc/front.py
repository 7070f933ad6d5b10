"""The server's side of a gRPC connection: known unary calls are answered here, all others are relayed.

A call that its handler answers at once is never a task, a context or a queue: frames, one function, one write.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from servery_http.address import Address
from servery_http.gateway.gate import Gate
from servery_http.http2 import connection, frames
from servery_http.http2.connection import Connection, Stream
from servery_http.http2.frames import ConnectionBroken, ErrorCode, Setting, StreamBroken
from servery_http.http2.headers import Fields, check_request, check_trailers, encode, first, list_bytes
from servery_http.rpc.calls import (
    HEAD,
    OK,
    PREFIX,
    Failure,
    Handler,
    Handlers,
    Headed,
    Status,
    timeout_seconds,
    trailers_only,
)
from servery_http.rpc.compression import WINDOW_BITS, inflated
from servery_http.rpc.relay import Relayed, Upstream, known_code
from servery_http.rpc.waiting import Waiting
from servery_http.rpc.watching import WatchCall, watch_none

logger = logging.getLogger(__name__)

_LAST_STREAM = 2**31 - 1
_DRAIN = b"draining"
_NO_GRPC = b"this port speaks gRPC; REST has another\n"
_NOT_GRPC = encode(((b":status", b"415"), (b"content-type", b"text/plain")))
_HTTP_CODES = {Status.RESOURCE_EXHAUSTED: b"429", Status.UNAVAILABLE: b"503"}
"""Of what is refused at the gate and is no gRPC."""
_OF_THE_SERVER = (b"/grpc.health.v1.Health/", b"/grpc.reflection.")
"""Calls that ask what the server is, not for its work: some last as long as their client, so they need no room."""
_RESETS = 1000.0
"""That a client may give up at once; more come back with time and with each call that it waits for."""
_RESETS_PER_SECOND = 200.0
_PREFACE_SECONDS = 10.0
_BUG = "internal error; the server's log has the traceback"
_LINGER_SECONDS = 1.0
"""That a client has to answer the PING of a drain."""
_PLAIN = frozenset({b"application/grpc", b"application/grpc+proto"})
_INLINE_BYTES = 16 * 1024
"""Of a compressed message that is inflated at once: a millisecond's work, even where it is made to be long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """Bounds of one front.

    Attributes:
        max_message_bytes: Of a message, either way, compressed or not; RESOURCE_EXHAUSTED.
        max_streams: Calls of one connection at once; more are refused, and clients wait.
        max_header_bytes: Of a call's head, as SETTINGS_MAX_HEADER_LIST_SIZE counts; RESOURCE_EXHAUSTED.
        max_connections: At once; one more is closed.
        queue_seconds: That a call waits at the gate; UNAVAILABLE.
        max_waiting_bytes: Of all bodies that wait there; RESOURCE_EXHAUSTED.
    """

    max_message_bytes: int = 256 * 1024 * 1024
    max_streams: int = 1000
    max_header_bytes: int = 16 * 1024
    max_connections: int = 16 * 1024
    queue_seconds: float = 60.0
    max_waiting_bytes: int = 64 * 1024 * 1024


ObserveCall: TypeAlias = Callable[[str, float], None]
"""Told the status of each call, by gRPC's name or HTTP's number, and its seconds."""


@dataclass(slots=True)
class _Head:
    """What a header block asks for.

    Attributes:
        handler: Of a call that is answered here.
        window_bits: How zlib reads its messages, where they may be compressed.
        block: As it is passed on.
        seconds: The deadline; None where there is none.
        refusal: Why it is not answered.
        is_grpc: Whether gRPC is asked for at all.
        needs_room: Whether it waits at the gate, where there is one.
        body_bytes: What ``content-length`` says.
    """

    fields: Fields
    handler: Handler | None = None
    window_bits: int | None = None
    seconds: float | None = None
    refusal: StreamBroken | Failure | None = None
    is_grpc: bool = True
    needs_room: bool = True
    body_bytes: int | None = None
    block: bytes = b""


class _Call(Stream):
    """A call that is answered here."""

    __slots__ = ("began", "cancel", "handler", "pieces", "size", "timer", "window_bits")

    def __init__(
        self, connection: Connection, number: int, window: int, handler: Handler, window_bits: int | None
    ) -> None:
        super().__init__(connection, number, window)
        self.handler = handler
        self.window_bits = window_bits
        self.pieces: list[bytes] = []
        self.size = 0
        self.cancel: Callable[[], object] | None = None
        self.began = 0.0
        self.timer: asyncio.TimerHandle | None = None


class RpcFront(Connection):
    """One client's connection.

    Args:
        handlers: Of the calls that are answered here.
        upstream: The server that answers all others; None where nobody does.
        open_connections: All of one server's; this one enters and leaves it.
        relays_all: What is no gRPC goes on as well, instead of being refused.
        watch: Makes the watcher of a call that goes on.
        gate: Bounds those that go on.
        observe: Told of every call, answered here or there.
    """

    def __init__(
        self,
        handlers: Handlers,
        upstream: Address | None,
        limits: CallLimits,
        open_connections: set[RpcFront],
        *,
        relays_all: bool = False,
        watch: WatchCall = watch_none,
        gate: Gate | None = None,
        observe: ObserveCall | None = None,
    ) -> None:
        # A head that is a little too long is answered; only one that is far too long ends the connection.
        super().__init__(max_list_bytes=4 * limits.max_header_bytes)
        self._handlers = handlers
        self._address = upstream
        self._relays_all = relays_all
        self._watch = watch
        self._gate = gate
        self._observe = observe
        self._limits = limits
        self._open_connections = open_connections
        self._upstream: Upstream | None = None
        self._upstreams: set[Upstream] = set()
        self._preface = frames.PREFACE
        self._timer: asyncio.TimerHandle | None = None
        self._resets = _RESETS
        self._resets_at = time.monotonic()
        self._is_draining = False
        self._is_final = False
        self.lost = asyncio.Event()
        """Set when the connection has ended."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._open_connections.add(self)
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: self._limits.max_streams,
            Setting.INITIAL_WINDOW_SIZE: connection.STREAM_WINDOW_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: self._limits.max_header_bytes,
        }
        self._out.append(frames.settings(settings))
        self._out.append(frames.window_update(0, connection.CONNECTION_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES))
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self.close(ErrorCode.HTTP_1_1_REQUIRED, "this port speaks HTTP/2 only; offer h2 by ALPN")
        elif len(self._open_connections) > self._limits.max_connections:
            self.close(ErrorCode.ENHANCE_YOUR_CALM, f"{self._limits.max_connections} connections are open, the limit")
        else:
            self._timer = self._loop.call_later(_PREFACE_SECONDS, self._on_silence)

    def _on_silence(self) -> None:
        if not self._is_settled:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_connections.discard(self)
        self.lost.set()
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        streams = list(self._streams.values())
        for stream in streams:
            # First, so that none is let in by another one's end.
            if isinstance(stream.twin, Waiting):
                self._give_up(stream)
        for stream in streams:
            self._drop(stream)
            self._give_up(stream)
        self._streams.clear()
        for upstream in self._upstreams:
            upstream.abort()

    def _feed(self, data: bytes) -> None:
        if self._preface:
            size = min(len(data), len(self._preface))
            if data[:size] != self._preface[:size]:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 preface; this port speaks gRPC")
            self._preface = self._preface[size:]
            data = data[size:]
        super()._feed(data)

    # Heads.

    def is_idle(self, number: int) -> bool:
        return number > self._last or number % 2 == 0

    def on_head(self, number: int, block: bytes, *, end: bool) -> None:
        if number % 2 == 0:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"stream {number} is the server's to open")
        head: _Head | None = self._heads.get(block)
        if head is None:
            fields, is_stable = self.decode(block)
            if number <= self._last:
                self._on_trailers(number, fields, end=end)
                return
            head = self._head(fields)
            if is_stable:
                self._heads[block] = head
        elif number <= self._last:
            self._on_trailers(number, head.fields, end=end)
            return
        self._last = number
        if self._is_final:
            self._remember_cut(number)
            return
        if len(self._streams) >= self._limits.max_streams:
            if not end:
                self._remember_cut(number)
            raise StreamBroken(ErrorCode.REFUSED_STREAM, f"{len(self._streams)} streams are open, the limit")
        self._begin(number, head, end=end)

    def _head(self, fields: Fields) -> _Head:
        head = _Head(fields)
        try:
            check_request(fields)
            length = first(fields, b"content-length")
            if length is not None:
                if not length.isdigit():
                    raise StreamBroken(ErrorCode.PROTOCOL_ERROR, f"content-length is {length!r}")
                head.body_bytes = int(length)
            if list_bytes(fields) > self._limits.max_header_bytes:
                head.refusal = Failure(
                    Status.RESOURCE_EXHAUSTED,
                    f"the call's metadata has {list_bytes(fields)} bytes, the limit is {self._limits.max_header_bytes}",
                )
                return head
            head.seconds = timeout_seconds(first(fields, b"grpc-timeout"))
        except StreamBroken as broken:
            head.refusal = broken
            return head
        except ValueError as wrong:
            head.refusal = Failure(Status.INTERNAL, str(wrong))
            return head
        kind = first(fields, b"content-type") or b""
        is_post = first(fields, b":method") == b"POST"
        head.is_grpc = is_post and kind.startswith(b"application/grpc")
        encoding = first(fields, b"grpc-encoding") or b"identity"
        head.window_bits = WINDOW_BITS.get(encoding)
        if kind in _PLAIN and (head.window_bits or encoding == b"identity") and is_post:
            handler = self._handlers.get(first(fields, b":path") or b"")
            head.handler = handler.handler_of(fields) if isinstance(handler, Headed) else handler
        if head.handler is None:
            head.block = encode(fields)
            head.needs_room = not (first(fields, b":path") or b"").startswith(_OF_THE_SERVER)
        return head

    def _begin(self, number: int, head: _Head, *, end: bool) -> None:
        if head.handler is not None:
            call = _Call(self, number, self._peer_window, head.handler, head.window_bits)
            self._streams[number] = call
            call.expected_bytes = head.body_bytes
            if self._observe is not None:
                call.began = self._loop.time()
            if head.seconds is not None:
                call.timer = self._loop.call_later(head.seconds, self._on_late, call)
            if end:
                call.receiving = False
                self._ask(call)
            return
        stream = Stream(self, number, self._peer_window)
        self._streams[number] = stream
        stream.receiving = not end
        stream.expected_bytes = head.body_bytes
        if isinstance(head.refusal, StreamBroken) or (end and head.body_bytes):
            raise head.refusal or StreamBroken(ErrorCode.PROTOCOL_ERROR, "content-length of a body that never came")
        if head.refusal is not None:
            self._refuse(stream, head.refusal)
        elif not (head.is_grpc or self._relays_all):
            self.send_block(stream, _NOT_GRPC, end=False)
            self.send_data(stream, _NO_GRPC, end=True)
        elif self._address is None:
            self._refuse(stream, Failure(Status.UNIMPLEMENTED, "there is no such method"))
        elif self._gate is None or not head.needs_room:
            since = self._loop.time()
            over = None if self._observe is None else partial(self._on_over, since, is_inside=False)
            self._relay_to(self._address).open(stream, head.block, self._watch(head.fields), over, end=end)
        else:
            self._go_in(self._gate, stream, head, end=end)

    def _relay_to(self, address: Address) -> Upstream:
        if self._upstream is None or self._upstream.is_leaving:
            self._upstreams = {upstream for upstream in self._upstreams if not upstream.is_done}
            self._upstream = Upstream(address)
            self._upstreams.add(self._upstream)
        return self._upstream

    # At the gate.

    def _go_in(self, gate: Gate, stream: Stream, head: _Head, *, end: bool) -> None:
        waiting = Waiting(self, stream, head.block, head.fields, self._let_in, since=self._loop.time(), is_over=end)
        entered = gate.enter(waiting.let_in)
        if entered:
            self._pass_on(waiting)
        elif entered is None:
            why = f"{gate.waiting} requests wait for the predictor, which is the limit; ask again later"
            self._turn_away(stream, head.fields, Failure(Status.RESOURCE_EXHAUSTED, why))
        else:
            stream.twin = waiting
            waiting.timer = self._loop.call_later(self._limits.queue_seconds, self._on_queued_for_long, waiting)

    def _let_in(self, waiting: Waiting) -> None:
        assert self._gate is not None
        self._gate.held_bytes -= waiting.held_bytes
        if waiting.timer is not None:
            waiting.timer.cancel()
        self._pass_on(waiting)

    def _pass_on(self, waiting: Waiting) -> None:
        stream = waiting.twin
        assert stream is not None
        assert self._address is not None
        has_more = bool(waiting.pieces) or waiting.trailers is not None
        upstream = self._relay_to(self._address)
        watcher = self._watch(waiting.fields)
        over = partial(self._on_over, waiting.since, is_inside=True)
        relayed = upstream.open(stream, waiting.block, watcher, over, end=waiting.is_over and not has_more)
        # The room for what waited is given back a second time as it leaves.
        self._dealt -= waiting.held_bytes
        last = len(waiting.pieces) - 1
        for number, piece in enumerate(waiting.pieces):
            if watcher is not None:
                watcher.on_request_piece(piece)
            upstream.send_data(relayed, piece, end=number == last and waiting.is_over and waiting.trailers is None)
        if waiting.trailers is not None:
            upstream.send_block(relayed, waiting.trailers, end=True)

    def _on_over(self, since: float, status: bytes, *, is_inside: bool) -> None:
        if is_inside and self._gate is not None:
            self._gate.leave()
        if self._observe is not None:
            self._observe(_name_of(status), self._loop.time() - since)

    def _hold(self, waiting: Waiting, data: bytes, *, end: bool) -> None:
        assert self._gate is not None
        # Of the connection, for others are not to wait for this one; its own stream's window stays shut.
        self._give_back(len(data))
        waiting.hold(data, end=end)
        self._gate.held_bytes += len(data)
        if self._gate.held_bytes > self._limits.max_waiting_bytes:
            why = f"bodies of {self._gate.held_bytes} bytes wait for the predictor, which is too much; ask again later"
            self._leave_with(waiting, Failure(Status.RESOURCE_EXHAUSTED, why))

    def _on_queued_for_long(self, waiting: Waiting) -> None:
        why = f"the call waited {self._limits.queue_seconds:g} s for the predictor; ask again later"
        self._leave_with(waiting, Failure(Status.UNAVAILABLE, why))

    def _leave_with(self, waiting: Waiting, failure: Failure) -> None:
        stream = waiting.twin
        assert stream is not None
        self._leave_queue(stream)
        self._turn_away(stream, waiting.fields, failure, since=waiting.since)

    def _leave_queue(self, stream: Stream) -> None:
        waiting = stream.twin
        if isinstance(waiting, Waiting) and self._gate is not None:
            stream.twin = None
            self._gate.give_up(waiting.let_in)
            self._gate.held_bytes -= waiting.held_bytes
            if waiting.timer is not None:
                waiting.timer.cancel()

    def _turn_away(self, stream: Stream, fields: Fields, failure: Failure, since: float | None = None) -> None:
        if (first(fields, b"content-type") or b"").startswith(b"application/grpc"):
            self._refuse(stream, failure, since=since)
            return
        code = _HTTP_CODES[failure.status]
        head = ((b":status", code), (b"content-type", b"text/plain"), (b"retry-after", b"1"))
        self.send_block(stream, encode(head), end=False)
        self.send_data(stream, str(failure).encode() + b"\n", end=True)
        if stream.receiving and not stream.queue:
            self.reset(stream, ErrorCode.NO_ERROR)
        self._tell(code.decode(), since)

    def _tell(self, status: str, since: float | None) -> None:
        if self._observe is not None:
            self._observe(status, 0.0 if since is None else self._loop.time() - since)

    def _on_trailers(self, number: int, fields: Fields, *, end: bool) -> None:
        stream = self._streams.get(number)
        if stream is None:
            if number in self._cut:
                return
            raise ConnectionBroken(ErrorCode.STREAM_CLOSED, f"HEADERS of stream {number}, which has ended")
        if not stream.receiving:
            raise StreamBroken(ErrorCode.STREAM_CLOSED, "HEADERS after the end")
        if not end:
            raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "a second head that does not end the stream")
        check_trailers(fields)
        if stream.expected_bytes:
            raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "the body is shorter than content-length says")
        stream.receiving = False
        if isinstance(stream, _Call):
            self._ask(stream)
        elif isinstance(stream.twin, Waiting):
            stream.twin.trailers, stream.twin.is_over = encode(fields), True
        elif stream.twin is not None:
            stream.twin.connection.send_block(stream.twin, encode(fields), end=True)
        if not stream.sending:
            self._streams.pop(number, None)

    # Bodies.

    def on_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        if isinstance(stream, _Call):
            self._on_piece(stream, data, end=end)
        elif isinstance(stream.twin, Waiting):
            self._hold(stream.twin, data, end=end)
        elif stream.twin is not None:
            if isinstance(stream.twin, Relayed) and stream.twin.watcher is not None:
                stream.twin.watcher.on_request_piece(data)
            stream.twin.connection.send_data(stream.twin, data, end=end)

    def _on_piece(self, call: _Call, data: bytes, *, end: bool) -> None:
        if not call.sending:
            return
        call.pieces.append(data)
        call.size += len(data)
        if not end:
            limit = self._limits.max_message_bytes
            announced = PREFIX.unpack_from(call.pieces[0])[1] if len(call.pieces[0]) >= PREFIX.size else 0
            if announced > limit or call.size > limit + PREFIX.size:
                self._refuse(call, self._too_long("message", max(announced, call.size - PREFIX.size)))
            return
        self._ask(call)

    def _too_long(self, what: str, size: int) -> Failure:
        limit = self._limits.max_message_bytes
        return Failure(Status.RESOURCE_EXHAUSTED, f"the {what} has {size} bytes, the limit is {limit}")

    def _ask(self, call: _Call) -> None:
        body = call.pieces[0] if len(call.pieces) == 1 else b"".join(call.pieces)
        call.pieces.clear()
        try:
            window_bits = self._check(call, body)
            message = body[PREFIX.size :]
            if window_bits is not None:
                if len(message) > _INLINE_BYTES:
                    self._inflate(call, message, window_bits)
                    return
                message = inflated(message, window_bits, max_bytes=self._limits.max_message_bytes)
            self._hand_over(call, message)
        except Failure as failure:
            self._refuse(call, failure)

    def _hand_over(self, call: _Call, message: bytes) -> None:
        try:
            call.cancel = call.handler(message, partial(self._on_done, call))
        except Failure as failure:
            self._refuse(call, failure)
        except Exception:
            # The rim of the process: a handler that raises is a bug, and its client must still hear something.
            logger.exception("handler failed")
            self._refuse(call, Failure(Status.INTERNAL, _BUG))

    def _inflate(self, call: _Call, message: bytes, window_bits: int) -> None:
        # Elsewhere: a long message would keep all other calls waiting, and zlib lets go of the interpreter.
        work = partial(inflated, message, window_bits, max_bytes=self._limits.max_message_bytes)
        inflating = self._loop.run_in_executor(None, work)
        call.cancel = inflating.cancel
        inflating.add_done_callback(partial(self._on_inflated, call))

    def _on_inflated(self, call: _Call, inflating: asyncio.Future[bytes]) -> None:
        if inflating.cancelled():
            return
        failure = inflating.exception()
        if isinstance(failure, Failure):
            self._refuse(call, failure)
        elif call.sending:
            self._hand_over(call, inflating.result())

    def _check(self, call: _Call, body: bytes) -> int | None:
        """Return how zlib reads the one message of a body, None where it is as it is."""
        if len(body) < PREFIX.size:
            raise Failure(Status.INTERNAL, "a unary call has one message, found none or part of one")
        is_compressed, size = PREFIX.unpack_from(body)
        if size > self._limits.max_message_bytes:
            raise self._too_long("message", size)
        if size != len(body) - PREFIX.size:
            raise Failure(
                Status.INTERNAL, f"a unary call has one message; its {size} bytes come in a body of {len(body)}"
            )
        if not is_compressed:
            return None
        if is_compressed > 1:
            raise Failure(Status.INTERNAL, f"a message starts with 0, or 1 if it is compressed; found {is_compressed}")
        if call.window_bits is None:
            raise Failure(Status.INTERNAL, "the message is compressed, but grpc-encoding does not say how")
        return call.window_bits

    # Answers.

    def _on_done(self, call: _Call, outcome: bytes | Failure) -> None:
        if not isinstance(outcome, bytes):
            self._refuse(call, outcome)
        elif len(outcome) > self._limits.max_message_bytes:
            self._refuse(call, self._too_long("answer", len(outcome)))
        else:
            self._answer(call, outcome)

    def _answer(self, call: _Call, message: bytes) -> None:
        if not call.sending:
            return
        if call.timer is not None:
            call.timer.cancel()
        if self._observe is not None:
            self._observe("OK", self._loop.time() - call.began)
        self._resets = min(self._resets + 1.0, _RESETS)
        number, size = call.id, len(message) + PREFIX.size
        if size > frames.MAX_FRAME_BYTES or size > self._window or size > call.window or not self._has_sent_block:
            self.send_block(call, HEAD, end=False)
            self.send_data(call, PREFIX.pack(0, len(message)) + message, end=False)
            self.send_block(call, OK, end=True)
        else:
            self._window -= size
            pack = frames.HEADER.pack
            self._send(
                pack(0, len(HEAD), frames.HEADERS, frames.END_HEADERS, number)
                + HEAD
                + pack(0, size, frames.DATA, 0, number)
                + PREFIX.pack(0, size - PREFIX.size)
                + message
                + pack(0, len(OK), frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number)
                + OK
            )
            self._end(call)

    def _refuse(self, stream: Stream, failure: Failure, *, since: float | None = None) -> None:
        if not stream.sending:
            return
        if isinstance(stream, _Call):
            since = stream.began
            if stream.timer is not None:
                stream.timer.cancel()
        self._tell(failure.status.name, since)
        self.send_block(stream, trailers_only(failure.status, str(failure)), end=True)
        if stream.receiving:
            # It has its answer; the rest of what it would say need not come.
            self.reset(stream, ErrorCode.NO_ERROR)

    def _on_late(self, call: _Call) -> None:
        call.timer = None
        self._refuse(call, Failure(Status.DEADLINE_EXCEEDED, "Deadline Exceeded"))
        self._give_up(call)

    # Ends.

    @property
    def calls(self) -> int:
        """Calls that have no whole answer yet."""
        return len(self._streams)

    def on_reset(self, stream: Stream, code: int) -> None:
        self._give_up(stream, code)
        now = time.monotonic()
        self._resets = min(self._resets + (now - self._resets_at) * _RESETS_PER_SECOND, _RESETS) - 1.0
        self._resets_at = now
        if self._resets < 0:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "too many calls are given up")

    def _give_up(self, stream: Stream, code: int = ErrorCode.CANCEL) -> None:
        if isinstance(stream, _Call):
            stream.sending = False
            if stream.timer is not None:
                stream.timer.cancel()
            if stream.cancel is not None:
                stream.cancel()
        elif isinstance(stream.twin, Waiting):
            since = stream.twin.since
            self._leave_queue(stream)
            self._tell(Status.CANCELLED.name, since)
        elif stream.twin is not None:
            if isinstance(stream.twin, Relayed):
                stream.twin.give_up()
            stream.twin.connection.reset(stream.twin, known_code(code))

    def on_goaway(self, last: int) -> None:
        # We open no streams; the client goes when it has its answers.
        pass

    def shutdown(self) -> None:
        """Take no new calls, finish those that are there, close."""
        if self._closing or self._is_draining:
            return
        self._is_draining = True
        # Calls may be on their way: only what is asked after the answer to this PING was asked in spite of the GOAWAY.
        self._send(frames.goaway(_LAST_STREAM, ErrorCode.NO_ERROR) + frames.frame(frames.PING, 0, 0, _DRAIN))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(_LINGER_SECONDS, self._finish)

    def on_ping_ack(self, payload: bytes) -> None:
        if payload == _DRAIN and self._is_draining:
            self._finish()

    def _finish(self) -> None:
        if not self._is_final:
            self._is_final = True
            self._send(frames.goaway(self._last, ErrorCode.NO_ERROR))

    def _flush(self) -> None:
        if self._is_final and not self._streams:
            self._closing = True
        super()._flush()


def _name_of(status: bytes) -> str:
    """Return ``OK`` for ``0``, and HTTP's numbers as they are."""
    code = int(status) if status.isdigit() and len(status) <= 3 else -1
    if 0 <= code <= max(Status):
        return Status(code).name
    return str(code) if code >= 100 else Status.UNKNOWN.name
