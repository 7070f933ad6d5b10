"""A client's connection: reads its requests one after the other, passes them on, and passes the answers back.

The common exchange — a small request that is here whole, a connection that waits, an answer that comes whole — is two
reads and two writes, with no task, no timer and no parser's callbacks between them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING

from servery_http.front import encode, error
from servery_http.gateway.chunks import LAST, BadChunks, Chunks, chunk, last
from servery_http.gateway.heads import CHUNKED, AnswerHead, BadHead, RequestHead, fields_of
from servery_http.gateway.routes import Answer, Watcher
from servery_http.gateway.upstream import LONG_BYTES, Upstream
from servery_http.messages import Later, Request, Response, header

if TYPE_CHECKING:
    from servery_http.gateway.server import Gateway

logger = logging.getLogger(__name__)

_AHEAD_BYTES = 64 * 1024
"""Of a body that has nowhere to go yet, or of requests behind one; beyond it nothing more is read."""
_LINGER_SECONDS = 2.0
"""That a client has to read why it was refused, while what it still sends is dropped."""
_DRAIN_LINGER_SECONDS = 0.25
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_NEVER = float("inf")
_CLIENT_GONE = 499
"""The status of an exchange whose client did not wait for its answer; nobody is sent it, it is counted."""
_RETRY_SECONDS = b"1"


class _Mode(Enum):
    """What the next bytes of the client are."""

    HEAD = auto()
    SIZED = auto()
    CHUNKS = auto()
    NEXT = auto()
    TUNNEL = auto()
    DROPPED = auto()


_HEAD, _SIZED, _CHUNKS, _NEXT, _TUNNEL, _DROPPED = _Mode


class Downstream(asyncio.Protocol):
    """One connection; what is said of an exchange is of the one that is going on."""

    __slots__ = (
        "_ahead",
        "_ahead_bytes",
        "_answer",
        "_answering",
        "_by",
        "_chunks",
        "_closing",
        "_gateway",
        "_held",
        "_id",
        "_is_chunked",
        "_is_client_full",
        "_is_inside",
        "_is_new",
        "_is_paused",
        "_is_pumping",
        "_left",
        "_loop",
        "_mode",
        "_reads_whole",
        "_searched",
        "_started",
        "_transport",
        "_upstream",
        "_watcher",
        "deadline",
        "head",
        "is_sent",
    )

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._loop = gateway.loop
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made sets it first
        self._by = b""
        self._mode = _HEAD
        self._held = b""
        self._searched = 0
        self._is_new = True
        self._is_paused = False
        self._is_pumping = False
        self._is_client_full = False
        self._closing = False
        self.deadline = _NEVER
        self.head: RequestHead = None  # type: ignore[assignment]  # an exchange begins with it
        self._forget()

    def _forget(self) -> None:
        self._id = b""
        self._started = 0.0
        self.is_sent = True
        self._left = 0
        self._chunks: Chunks | None = None
        self._upstream: Upstream | None = None
        self._ahead: list[bytes | memoryview] = []
        self._ahead_bytes = 0
        self._reads_whole: Answer | None = None
        self._is_inside = False
        self._answer: AnswerHead | None = None
        self._is_chunked = False
        self._answering: Later | asyncio.Future[Response] | None = None
        self._watcher: Watcher | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport
        peer = transport.get_extra_info("peername")
        self._by = (peer[0].encode() if isinstance(peer, tuple) else b"127.0.0.1") + b"\r\nx-request-id: "
        self.deadline = self._loop.time() + self._gateway.limits.read_seconds
        if not self._gateway.enter(self):
            most = self._gateway.limits.max_connections
            self._refuse(503, f"{most} connections are open, which is the limit")

    def connection_lost(self, exc: Exception | None) -> None:
        self._gateway.leave(self)
        if self._mode is not _HEAD and self._mode is not _DROPPED:
            self._end(
                self._answer.status if self._mode is _TUNNEL and self._answer else _CLIENT_GONE, is_complete=False
            )
        self._mode = _DROPPED

    def pause_writing(self) -> None:
        self._is_client_full = True
        self.deadline = self._loop.time() + self._gateway.limits.read_seconds
        if self._upstream is not None:
            self._upstream.pause_reading()

    def resume_writing(self) -> None:
        self._is_client_full = False
        if self._upstream is not None:
            self._upstream.resume_reading()
        if self._mode is _HEAD:
            self.deadline = self._loop.time() + self._gateway.limits.keep_alive_seconds
            self._go_on()
        elif self._mode is not _DROPPED:
            self._expect_answer()

    def eof_received(self) -> bool:
        # A client that says it will send no more has gone, as every proxy takes it; in a tunnel it may well listen.
        if self._mode is _TUNNEL and self._upstream is not None and self._upstream.transport.can_write_eof():
            self._upstream.transport.write_eof()
            return True
        return False

    def data_received(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = b""
        self._take(data)
        if self._mode is _HEAD and self._held:
            self._pump()

    def _take(self, data: bytes) -> None:
        mode = self._mode
        if mode is _HEAD and not self._is_client_full:
            self._on_head(data)
        elif mode is _SIZED or mode is _CHUNKS:
            self._on_sized(data) if mode is _SIZED else self._on_chunks(data)
            if self.is_sent and self._mode is _NEXT:
                if self._reads_whole is not None:
                    self._answer_whole(self._reads_whole)
                else:
                    self._expect_answer()
        elif mode is _NEXT or mode is _HEAD:
            # Behind a request that goes on, or whose client does not read: who takes no answers may not ask for more.
            self._held = data
            if len(data) > _AHEAD_BYTES:
                self._flow()
        elif mode is _TUNNEL and self._upstream is not None:
            self._pass_on(self._upstream, data)

    def _pump(self) -> None:
        # A loop, not recursion: hundreds of requests may stand behind one that was answered at once.
        if self._is_pumping:
            return
        self._is_pumping = True
        while self._mode is _HEAD and self._held and not (self._searched or self._is_client_full):
            data, self._held = self._held, b""
            self._on_head(data)
        self._is_pumping = False

    def _go_on(self) -> None:
        """Look for what waited behind an exchange that is over."""
        if self._held:
            self._pump()
        if self._is_paused:
            self._flow()

    # Requests in.

    def _on_head(self, data: bytes) -> None:
        while data[:2] == b"\r\n":
            # Source: RFC 9112, 2.2: an empty line in front of a request is ignored.
            data = data[2:]
        end = data.find(b"\r\n\r\n", self._searched) + 4
        limits = self._gateway.limits
        if end < 4 or end > limits.max_head_bytes:
            if len(data) > limits.max_head_bytes:
                self._refuse(431, f"the request's line and headers are longer than {limits.max_head_bytes} bytes")
            elif data:
                if not self._searched:
                    self.deadline = self._loop.time() + limits.read_seconds
                self._searched = max(len(data) - 3, 1)
                self._held = data
            return
        self._searched = 0
        try:
            self.head = head = self._gateway.known(data[:end])
        except BadHead as bad:
            if self._is_new and data.startswith(_HTTP2):
                self._gateway.switch_to_http2(self, self._transport, data)
            else:
                self._refuse(bad.status, str(bad))
            return
        self._is_new = False
        self._started = self._loop.time()
        self._id = head.request_id or self._gateway.new_id()
        self._begin(head, data, end)

    def _begin(self, head: RequestHead, data: bytes, end: int) -> None:
        self.is_sent = False
        self._mode = _NEXT
        if head.route is not None:
            if head.route.watch is not None:
                self._watcher = head.route.watch(head, self._id)
            self._reads_whole = head.route.answer if head.probe is None else None
            if head.expects and self._reads_whole is not None:
                self._transport.write(_CONTINUE)
        if head.length == 0:
            self.is_sent = True
            self._held = data[end:]
        elif head.length == CHUNKED:
            self._mode, self._chunks = _CHUNKS, Chunks()
            self._on_chunks(data[end:])
        else:
            if self._reads_whole is not None and head.length > self._gateway.limits.max_body_bytes:
                self._refuse_body(head.length)
                return
            self._mode, self._left = _SIZED, head.length
            # A view keeps all of what was read: only where that is this body.
            is_kept = LONG_BYTES <= len(data) - end <= head.length
            self._on_sized(memoryview(data)[end:] if is_kept else data[end:])
        if self._mode is _DROPPED:
            return
        if head.probe is not None:
            self._reply(self._gateway.readiness(head.probe))
        elif self._reads_whole is None:
            self._go_in()
        elif self.is_sent:
            self._answer_whole(self._reads_whole)
        # What was answered at once may have been followed by the next exchange: then this is of that one.
        if self.is_sent and self._mode is _NEXT:
            self._expect_answer()

    def _on_sized(self, data: bytes | memoryview) -> None:
        left = self._left - len(data)
        if left <= 0:
            self.is_sent = True
            self._mode = _NEXT
            if left < 0:
                self._held = bytes(data[left:])
                data = data[:left]
        else:
            self.deadline = self._loop.time() + self._gateway.limits.read_seconds
        self._left = left
        self._on_piece(data)

    def _on_chunks(self, data: bytes) -> None:
        assert self._chunks is not None
        try:
            pieces = self._chunks.feed(data)
        except BadChunks as bad:
            self._refuse(400, str(bad))
            return
        if self._chunks.is_complete:
            self.is_sent = True
            self._mode = _NEXT
            self._held = self._chunks.rest
        else:
            self.deadline = self._loop.time() + self._gateway.limits.read_seconds
        self._on_piece(pieces[0] if len(pieces) == 1 else b"".join(pieces))

    def _on_piece(self, piece: bytes | memoryview) -> None:
        if piece and self._watcher is not None:
            self._watcher.on_request_piece(piece)
        if self._upstream is not None:
            self._pass_on(self._upstream, piece)
            return
        self._ahead.append(piece)
        self._ahead_bytes += len(piece)
        if self._reads_whole is not None:
            if self._ahead_bytes > self._gateway.limits.max_body_bytes:
                self._refuse_body(self._ahead_bytes)
        elif self._ahead_bytes > _AHEAD_BYTES:
            self._flow()

    def _refuse_body(self, size: int) -> None:
        self._refuse(413, f"the body has {size} bytes or more, the limit is {self._gateway.limits.max_body_bytes}")

    # On to the server behind.

    def _go_in(self) -> None:
        entered = self._gateway.gate.enter(self._let_in)
        if entered:
            self._is_inside = True
            self._connect()
        elif entered is None:
            waiting = self._gateway.gate.waiting
            self._tell(429, f"{waiting} requests wait for the predictor, which is the limit; ask again later")
        elif self._ahead_bytes > _AHEAD_BYTES:
            self._flow()

    def _let_in(self) -> None:
        self._is_inside = True
        self._connect()
        if self._upstream is not None:
            self._expect_answer()

    def _connect(self) -> None:
        upstream = self._gateway.pool.take()
        if upstream is None:
            self._gateway.pool.connect(self)
        else:
            self.on_connected(upstream)

    def on_connected(self, upstream: Upstream) -> None:
        if not self._is_inside or self._upstream is not None:
            # The exchange it was opened for is over.
            self._gateway.pool.give_back(upstream)
            return
        self._upstream = upstream
        upstream.begin(self)
        told = b"\r\n\r\n" if self._watcher is None else b"\r\n%b\r\n" % self._watcher.to_server
        head = (self.head.passed, self._by, self._id, told)
        if self._chunks is not None:
            upstream.transport.write(b"".join((*head, self._framed(self._chunks, b"".join(self._ahead)))))
        elif self._ahead_bytes < LONG_BYTES:
            upstream.transport.write(b"".join((*head, *self._ahead)))
        else:
            upstream.transport.writelines((b"".join(head), *self._ahead))
        self._ahead = []
        self._ahead_bytes = 0
        if self._is_paused:
            self._flow()

    def _pass_on(self, upstream: Upstream, piece: bytes | memoryview) -> None:
        if upstream.transport.is_closing():
            # We shall hear why in a moment.
            return
        if self._chunks is not None:
            piece = self._framed(self._chunks, piece)
        if piece:
            upstream.transport.write(piece)

    def _framed(self, chunks: Chunks, piece: bytes | memoryview) -> bytes:
        return (chunk(piece) if piece else b"") + (last(chunks.trailers) if self.is_sent else b"")

    def on_full(self) -> None:
        self._flow()

    def on_room(self) -> None:
        self._flow()

    def _flow(self) -> None:
        """Read from the client as long as what it sends has somewhere to go."""
        upstream = self._upstream
        if upstream is not None:
            is_full = upstream.is_full
        else:
            is_full = self._reads_whole is None and self._ahead_bytes > _AHEAD_BYTES
        is_full = (is_full or len(self._held) > _AHEAD_BYTES) and self._mode is not _DROPPED
        if is_full == self._is_paused or self._transport.is_closing():
            return
        self._is_paused = is_full
        if is_full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            if not self.is_sent:
                self.deadline = self._loop.time() + self._gateway.limits.read_seconds

    def on_unreachable(self, why: str) -> None:
        if self._is_inside and self._upstream is None:
            where = self._gateway.pool.address
            self._tell(
                503,
                f"the predictor does not accept connections at {where}: {why}; it is starting, or has died: "
                "see its container's log",
            )

    def on_lost(self, upstream: Upstream, why: str) -> None:
        self._upstream = None
        if self._mode is _TUNNEL:
            self._transport.close()
        elif self._answer is not None:
            logger.warning("the predictor went away in the middle of an answer", extra={"reason": why})
            self._cut()
        elif self.head.is_repeatable and not upstream.is_fresh and not upstream.received:
            # It closed a connection that waited while we were writing to it.
            self._gateway.pool.connect(self)
        else:
            self._tell(
                502,
                f"the predictor went away before it answered: {why}; it may have died of this request or of "
                "another: see its container's log",
            )

    # Answers.

    def on_interim(self, answer: AnswerHead) -> None:
        if not self.head.is_old and not self._transport.is_closing():
            self._transport.write(answer.passed + b"\r\n")

    def on_switched(self, answer: AnswerHead, data: bytes) -> None:
        self._answer = answer
        self._mode = _TUNNEL
        self.deadline = _NEVER
        switched = b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % (answer.upgrade or self.head.upgrade or b"")
        self._transport.write(answer.passed + switched + data)
        held, self._held = self._held, b""
        if held and self._upstream is not None:
            self._pass_on(self._upstream, held)
        self._flow()

    def on_answer(self, answer: AnswerHead, body: bytes | memoryview) -> None:
        self._upstream = None
        if self._watcher is not None:
            self._watcher.on_answer_head(answer.status, answer)
            self._watcher.on_answer_piece(body)
        if not self._transport.is_closing():
            head = self._head_of(answer, answer.sized)
            if len(body) < LONG_BYTES:
                self._transport.write(head + body)
            else:
                self._transport.writelines((head, body))
        self._done(answer.status)

    def on_answer_head(self, answer: AnswerHead) -> None:
        self._answer = answer
        if self._watcher is not None:
            self._watcher.on_answer_head(answer.status, answer)
        framed = answer.sized
        if not answer.has_length:
            if self.head.is_old:
                # HTTP/1.0 knows no chunks: there the end of the connection is the end of the body.
                self._closing = True
            else:
                self._is_chunked = True
                framed = answer.passed + b"transfer-encoding: chunked\r\n"
        if not self._transport.is_closing():
            self._transport.write(self._head_of(answer, framed))
        self._expect_answer()

    def _head_of(self, answer: AnswerHead, framed: bytes) -> bytes:
        if not answer.has_request_id:
            framed += b"x-request-id: " + self._id + b"\r\n"
        if self._watcher is not None:
            framed += self._watcher.to_client
        if self._is_last():
            framed += b"connection: close\r\n"
        elif self.head.is_old:
            framed += b"connection: keep-alive\r\n"
        return framed + b"\r\n"

    def _is_last(self) -> bool:
        """Return whether the connection ends with this exchange; who has not read the whole request cannot find the next."""
        if not self.head.keep_alive or not self.is_sent or self._gateway.is_leaving:
            self._closing = True
        return self._closing

    def on_answer_piece(self, piece: bytes) -> None:
        if self._transport.is_closing():
            return
        if not piece:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            return
        if self._watcher is not None:
            self._watcher.on_answer_piece(piece)
        self._transport.write(chunk(piece) if self._is_chunked else piece)
        if self._gateway.limits.idle_seconds is not None and not self._is_client_full and self._mode is not _TUNNEL:
            self._expect_answer()

    def on_answer_end(self, trailers: bytes = b"") -> None:
        self._upstream = None
        assert self._answer is not None
        if self._is_chunked and not self._transport.is_closing():
            self._transport.write(last(trailers) if trailers and self.head.takes_trailers else LAST)
        self._done(self._answer.status)

    # Answers of our own.

    def _answer_whole(self, answer: Answer) -> None:
        head = self.head
        fields = head.fields()
        if head.request_id is None:
            fields.append((b"x-request-id", self._id))
        if self._watcher is not None:
            fields += fields_of(self._watcher.to_server)
        try:
            answering = answer(Request(head.method, head.path, head.query, fields, b"".join(self._ahead)))
        except Exception:
            self._finish(self._broken(None))
            return
        self._ahead = []
        self._reply(answering)

    def _reply(self, answering: Response | Later | Awaitable[Response]) -> None:
        if isinstance(answering, Response):
            self._finish(answering)
        elif isinstance(answering, Later):
            self._answering = answering
            answering.then(partial(self._on_later, answering))
        else:
            self._answering = asyncio.ensure_future(answering)
            self._answering.add_done_callback(self._on_future)

    def _on_later(self, later: Later, response: Response | None) -> None:
        if self._answering is later:
            self._answering = None
            self._finish(response or error(503, "the request was given up"))

    def _on_future(self, future: asyncio.Future[Response]) -> None:
        if self._answering is not future:
            return
        self._answering = None
        failure = None if future.cancelled() else future.exception()
        if failure is not None:
            self._finish(self._broken(failure))
        else:
            self._finish(error(503, "the request was given up") if future.cancelled() else future.result())

    @staticmethod
    def _broken(failure: BaseException | None) -> Response:
        # The rim of the process: a function that raises is a bug, and its client must still hear something.
        logger.error("answering failed", exc_info=failure or True)
        return error(500, "internal error; the agent's log has the traceback")

    def _tell(self, status: int, message: str) -> None:
        told = error(status, message)
        if status in {429, 503}:
            told.headers = ((b"retry-after", _RETRY_SECONDS),)
        self._finish(told)

    def _finish(self, response: Response) -> None:
        if self._upstream is not None:
            self._upstream.abandon()
            self._upstream = None
        if self._watcher is not None:
            self._watcher.on_answer_head(response.status, None)
            self._watcher.on_answer_piece(response.body)
        if header(response.headers, b"x-request-id") is None:
            response.headers = (*response.headers, (b"x-request-id", self._id))
        if self._watcher is not None:
            response.headers = (*response.headers, *fields_of(self._watcher.to_client))
        close = self._is_last()
        if self.head.is_old and not close:
            response.headers = (*response.headers, (b"connection", b"keep-alive"))
        if not self._transport.is_closing():
            self._transport.write(encode(response, close=close, head=self.head.is_head))
        self._done(response.status)

    # Ends.

    def _done(self, status: int) -> None:
        is_sent = self.is_sent
        self._end(status, is_complete=True)
        if self._closing:
            if is_sent and not self._held:
                self._mode = _DROPPED
                self._transport.close()
            else:
                self._linger()
            return
        self._mode = _HEAD
        limits = self._gateway.limits
        self.deadline = self._loop.time() + (limits.read_seconds if self._is_client_full else limits.keep_alive_seconds)
        if self._held or self._is_paused:
            self._go_on()

    def _end(self, status: int, *, is_complete: bool) -> None:
        """Let go of everything that the exchange held."""
        if self._watcher is not None:
            self._watcher.on_end(is_complete=is_complete)
        if self._upstream is not None:
            self._upstream.abandon()
        answering, self._answering = self._answering, None
        if answering is not None:
            answering.cancel()
        seconds = self._loop.time() - self._started
        is_inside = self._is_inside
        self._forget()
        if is_inside:
            self._gateway.gate.leave()
        else:
            self._gateway.gate.give_up(self._let_in)
        self._gateway.observe(status, seconds)

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is no request, or has stopped being one; nothing after it can be understood."""
        if self._mode is _DROPPED:
            return
        if self._answer is not None:
            self._cut()
            return
        self._transport.write(encode(error(status, message), close=True))
        if self._mode is _HEAD:
            self._gateway.observe(status, 0.0)
        else:
            self._end(status, is_complete=False)
        self._linger()

    def _linger(self) -> None:
        # Closed while its client still sends, a connection takes back the answer that is on its way.
        self._mode = _DROPPED
        self._held = b""
        self.deadline = self._loop.time() + _LINGER_SECONDS
        if self._is_paused:
            self._flow()
        if not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    def _cut(self) -> None:
        """End in the middle of an answer: its length, or the missing last chunk, tells the client."""
        is_told = self._is_chunked or (self._answer is not None and self._answer.has_length)
        self._end(502, is_complete=False)
        self._mode = _DROPPED
        if is_told:
            self._transport.close()
        else:
            self._transport.abort()

    # Time.

    def _expect_answer(self) -> None:
        limits = self._gateway.limits
        if self._mode is _TUNNEL:
            seconds = None
        elif self._answer is not None:
            seconds = limits.idle_seconds
        elif self._is_inside or self._reads_whole is not None:
            seconds = limits.answer_seconds
        else:
            seconds = limits.queue_seconds
        self.deadline = _NEVER if seconds is None else self._loop.time() + seconds

    def on_late(self) -> None:
        """Act on ``deadline``, which has passed."""
        limits = self._gateway.limits
        self.deadline = _NEVER
        if self._mode is _DROPPED or self._is_client_full:
            self._transport.abort()
        elif self._mode is _HEAD and not self._held:
            self._mode = _DROPPED
            self._transport.close()
        elif self._mode is _HEAD or (not self.is_sent and not self._is_paused):
            self._refuse(408, f"the request did not go on within {limits.read_seconds:g} s")
        elif self._answer is not None:
            logger.warning("the predictor's answer did not go on", extra={"seconds": limits.idle_seconds})
            self._cut()
        elif self._is_inside or self._reads_whole is not None:
            self._tell(504, f"the predictor did not answer within {limits.answer_seconds or limits.read_seconds:g} s")
        else:
            self._tell(503, f"the request waited {limits.queue_seconds:g} s for the predictor; ask again later")

    def shutdown(self) -> None:
        """Finish what is in flight and close; called once, when a drain begins."""
        if self._mode is _HEAD:
            # A request may be on its way to us this moment; closing now would lose it, and no client may repeat a POST.
            self.deadline = min(self.deadline, self._loop.time() + _DRAIN_LINGER_SECONDS)

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no exchange goes on."""
        return self._mode is _HEAD or self._mode is _DROPPED
