"""The HTTP protocol class: hot routes answered here, everything else handed to the ASGI application.

It plugs into uvicorn (``http=front(...)``), whose lifecycle, TLS, signals and ASGI cycle it uses. A request of a hot
route never becomes a task, a scope or a queue: bytes, parser, handler, one write.
"""

from __future__ import annotations

import asyncio
import http
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from servery_http.heads import CHUNKED, Head, Heads
from servery_http.incoming import Incoming
from servery_http.limits import Limits
from servery_http.manners import Manner, wrapped
from servery_http.messages import Handler, Pending, Request, Response, Router, Stream, Streamed, header

logger = logging.getLogger(__name__)

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}
_PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ncontent-type: %b\r\n\r\n%b"
"""What most answers are, written at once."""
_METHODS = {method.value.encode(): method.value for method in http.HTTPMethod}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_READ_AHEAD_BYTES = 64 * 1024
_CORK_BYTES = 64 * 1024
_LINGER_SECONDS = 0.25
_NO_CONTENT = frozenset({204, 304})
_LOOKED_AT = frozenset({b"expect", b"content-length", b"transfer-encoding"})


def encode(response: Response, *, close: bool, head: bool = False) -> bytes:
    """Return the bytes of ``response`` on the wire; of a streamed one, what comes before its first piece."""
    if response.status == 200 and response.body and not (response.headers or close or head or response.stream):
        return _PLAIN % (len(response.body), response.content_type, response.body)
    parts = [_STATUS_LINES.get(response.status) or f"HTTP/1.1 {response.status} \r\n".encode()]
    # A HEAD's handler may know the length of what GET would have answered.
    knows_length = head and header(response.headers, b"content-length") is not None
    if response.stream is None and response.status not in _NO_CONTENT and not knows_length:
        parts.append(b"content-length: %d\r\n" % len(response.body))
    if response.body or response.stream is not None:
        parts.append(b"content-type: %b\r\n" % response.content_type)
    parts.extend(b"%b: %b\r\n" % pair for pair in response.headers)
    parts.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    if not head:
        parts.append(response.body)
    return b"".join(parts)


def error(status: int, message: str) -> Response:
    """Return the error body that KServe's clients read."""
    return Response(status, json.dumps({"error": message}).encode())


_NO_HEAD = Head("", b"", "", b"", "1.1", [], [], keep_alive=False, expect_continue=False, body_bytes=0)
_GOING_AWAY = error(503, "the server is shutting down")


class _Exchange:
    """One request of a connection, hot (``handler``) or on its way through ASGI (``cycle``).

    Attributes:
        begun: Its answer, or the head of it, has been written.
        incoming: Its body, where the handler reads it as it comes.
        received_bytes: Of that body.
    """

    __slots__ = (
        "begun",
        "complete",
        "cycle",
        "handler",
        "head",
        "incoming",
        "keep_alive",
        "received_bytes",
        "request",
    )

    def __init__(self, head: Head, keep_alive: bool, body: bytes = b"") -> None:
        self.head = head
        self.keep_alive = keep_alive
        self.request = Request(head.method, head.path, head.query, head.headers, body)
        self.handler: Handler | None = None
        self.cycle: RequestResponseCycle | None = None
        self.complete = False
        self.begun = False
        self.incoming: Incoming | None = None
        self.received_bytes = 0


class Front(asyncio.Protocol):
    """One connection. Answers leave in the order in which requests came."""

    hot: Router
    heads: Heads
    limits: Limits
    manners: tuple[Manner, ...]
    looked_at: frozenset[bytes]
    """Headers that mean something to the front itself."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made sets it first
        self._flow: FlowControl = None  # type: ignore[assignment]  # likewise
        self._current: _Exchange | None = None
        self._waiting: deque[_Exchange] = deque()
        self._reading: _Exchange | None = None
        self._task: asyncio.Future[Any] | None = None
        self._later: Pending | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        self._closing = False
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = 0
        self._body_bytes = 0
        self._expect_continue = False
        self._asked: list[bytes] = []
        self._head: Head | None = None
        self._in_head = False
        self._is_between = True
        self._refused = False
        self._closed = False
        self._corked = False
        self._out: list[bytes] = []
        self._out_bytes = 0

    # What uvicorn calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport
        self._state.connections.add(self)  # type: ignore[arg-type]  # a protocol of our own
        self._flow = FlowControl(self._transport)
        self._scope = {
            "type": "http",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.3"},
            "server": get_local_addr(self._transport),
            "client": get_remote_addr(self._transport),
            "scheme": "https" if is_ssl(self._transport) else "http",
            "root_path": self._config.root_path,
        }
        self._deadline = self._loop.time() + self.limits.read_timeout_seconds
        self._arm()
        if len(self._state.connections) > self.limits.max_connections:
            self._refuse(503, f"{self.limits.max_connections} connections are open, which is the limit")

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for exchange in filter(None, (self._current, *self._waiting)):
            if exchange.incoming is not None:
                exchange.incoming.fail("the client went away before its body was complete")
            if exchange.cycle is not None:
                exchange.cycle.disconnected = True
                exchange.cycle.message_event.set()
        if self._task is not None:
            self._task.cancel()
        if self._later is not None:
            self._later.cancel()
        self._waiting.clear()
        self._flow.resume_writing()

    def pause_writing(self) -> None:
        self._flow.pause_writing()
        # Who does not read answers may not send more questions.
        self._flow.pause_reading()

    def resume_writing(self) -> None:
        self._flow.resume_writing()
        self._flow.resume_reading()
        self._pump()

    def shutdown(self) -> None:
        """Finish what is in flight and close; uvicorn calls it once, when it drains."""
        self._closing = True
        if self._current is None and self._reading is None and not self._in_head:
            # A request may be on its way to us this moment; closing now would lose it, and no client may repeat a POST.
            self._deadline = self._loop.time() + _LINGER_SECONDS
            if self._timer is not None:
                self._timer.cancel()
            self._arm()
        elif self._current is not None and self._current.cycle is not None:
            self._current.cycle.keep_alive = False

    def abort(self) -> None:
        """Cut the connection; for what is left when a drain's time is over."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        # Only where the parser waits for a first byte: it need not know of a request that it does not see.
        is_first = self._is_between
        known = self.heads.of(data) if is_first and not (self._closing or self._closed) else None
        if known is not None and self._current is None and not self._waiting and not self._flow.write_paused:
            found = self.hot(known.method, known.path)
            if found is not None and not isinstance(found, Streamed):
                # What most requests are: all of it is here, and nothing before it. So what follows is not needed.
                exchange = self._current = _Exchange(known, True, data[known.size :])
                exchange.handler = wrapped(found, self.manners, known.asked) if known.asked else found
                exchange.complete = True
                self._answer(exchange)
                return
        self._corked = True
        if known is not None:
            self._begin(known)
            if known.body_bytes:
                self.on_body(data[known.size :])
            self.on_message_complete()
        else:
            self._parse(data)
            if is_first and self._is_between and self._head is not None:
                self.heads.learn(data, self._head)
        self._pump()

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(501, "this server does not switch protocols")
        except httptools.HttpParserError as broken:
            self._refuse(400, f"not an HTTP/1.1 request: {broken}")

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._in_head = True
        self._is_between = False
        self._url = b""
        self._headers = []
        self._header_bytes = 0
        self._body_bytes = 0
        self._expect_continue = False
        self._asked = []
        self._head = None
        self._deadline = self._loop.time() + self.limits.read_timeout_seconds

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self.limits.max_url_bytes:
            self._refuse(414, f"the URL is longer than {self.limits.max_url_bytes} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self.limits.max_header_bytes:
            self._refuse(431, f"the headers are longer than {self.limits.max_header_bytes} bytes")
            return
        if name in self.looked_at:
            if name == b"content-length":
                self._body_bytes = int(value)
                if self._body_bytes > self.limits.max_body_bytes:
                    self._refuse(
                        413, f"the body has {self._body_bytes} bytes, the limit is {self.limits.max_body_bytes}"
                    )
            elif name == b"transfer-encoding":
                self._body_bytes = CHUNKED
            elif name != b"expect":
                self._asked.append(name)
            elif value.lower() == b"100-continue":
                self._expect_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._refused or self._closed:
            return
        sent = self._parser.get_method()
        path, _, query = self._url.partition(b"?")
        self._head = Head(
            method=_METHODS.get(sent) or sent.decode("ascii"),
            url=self._url,
            path=path.decode("latin-1"),
            query=query,
            version=self._parser.get_http_version(),
            headers=self._headers,
            asked=self._asked,
            keep_alive=self._parser.should_keep_alive() and not self._parser.should_upgrade(),
            expect_continue=self._expect_continue,
            body_bytes=self._body_bytes,
        )
        self._begin(self._head)

    def _begin(self, head: Head) -> None:
        exchange = _Exchange(head, head.keep_alive and not self._closing)
        found = self.hot(head.method, head.path)
        if found is None:
            exchange.cycle = self._cycle(exchange)
        elif isinstance(found, Streamed):
            exchange.handler = found.handler
            exchange.incoming = exchange.request.stream = Incoming(self._read_no_more, self._read_again)
        else:
            exchange.handler = wrapped(found, self.manners, head.asked) if head.asked else found
        self._reading = exchange
        if self._current is None and not self._waiting and not self._flow.write_paused:
            self._start(exchange)
        else:
            self._waiting.append(exchange)
            if len(self._waiting) >= self.limits.max_pipelined:
                self._flow.pause_reading()

    def on_body(self, body: bytes) -> None:
        exchange = self._reading
        if exchange is None:
            return
        if exchange.cycle is not None:
            if exchange.cycle.response_complete:
                return
            exchange.cycle.body += body
            if len(exchange.cycle.body) > _READ_AHEAD_BYTES:
                self._flow.pause_reading()
            exchange.cycle.message_event.set()
            return
        if exchange.incoming is not None:
            self._on_piece(exchange, exchange.incoming, body)
            return
        # Mostly a body comes in one piece, and then it is not copied.
        request = exchange.request
        request.body = request.body + body if request.body else body
        if len(request.body) > self.limits.max_body_bytes:
            self._refuse(413, f"the body is longer than {self.limits.max_body_bytes} bytes")

    def _on_piece(self, exchange: _Exchange, incoming: Incoming, piece: bytes) -> None:
        exchange.received_bytes += len(piece)
        if exchange.received_bytes > self.limits.max_body_bytes:
            self._refuse(413, f"the body is longer than {self.limits.max_body_bytes} bytes")
            return
        # Its reader may be slow, and then the client must be: only its silence is timed.
        if not self._is_answered(exchange):
            self._deadline = self._loop.time() + self.limits.read_timeout_seconds
        incoming.feed(piece)

    def _is_answered(self, exchange: _Exchange) -> bool:
        return exchange.begun and exchange is not self._current

    def _read_no_more(self) -> None:
        if not self._transport.is_closing():
            self._flow.pause_reading()

    def _read_again(self) -> None:
        if not self._transport.is_closing():
            self._flow.resume_reading()

    def on_message_complete(self) -> None:
        exchange, self._reading = self._reading, None
        if exchange is None:
            return
        # Behind its last request a connection has nothing that may be read.
        self._is_between = exchange.head.keep_alive
        exchange.complete = True
        if exchange.incoming is not None:
            exchange.incoming.end()
            if self._is_answered(exchange) and (self._closing or not exchange.keep_alive):
                # Answered before it was all here: only now can the connection go without losing the answer.
                self._close()
        elif exchange.cycle is not None:
            exchange.cycle.more_body = False
            exchange.cycle.message_event.set()
        elif exchange is self._current:
            self._answer(exchange)

    # One exchange after the other.

    def _pump(self) -> None:
        # A loop, not recursion: hundreds of small requests may have gathered behind a slow one.
        self._corked = True
        while self._waiting and self._current is None and not self._flow.write_paused and not self._closed:
            self._start(self._waiting.popleft())
        self._corked = False
        self._flush()

    def _start(self, exchange: _Exchange) -> None:
        self._current = exchange
        if exchange.cycle is not None:
            task = self._loop.create_task(exchange.cycle.run_asgi(self._config.loaded_app))
            self._state.tasks.add(task)
            task.add_done_callback(self._state.tasks.discard)
            return
        if exchange.head.expect_continue and not exchange.complete:
            self._send(_CONTINUE)
        if exchange.complete or exchange.incoming is not None:
            self._answer(exchange)

    def _answer(self, exchange: _Exchange) -> None:
        assert exchange.handler is not None
        try:
            answer = exchange.handler(exchange.request)
        except Exception:
            self._write(exchange, self._broken(exchange))
            return
        if isinstance(answer, Response):
            self._write(exchange, answer)
            return
        if isinstance(answer, Pending):
            self._later = answer
            # uvicorn's drain waits for these, and cancels them when its time is over.
            self._state.tasks.add(answer)  # type: ignore[arg-type]  # cancelled like a task
            answer.then(self._on_later)
            return
        self._run(asyncio.ensure_future(answer, loop=self._loop), self._answered)

    def _run(self, task: asyncio.Future[Any], done: Callable[[asyncio.Future[Any]], None]) -> None:
        # uvicorn's drain waits for these, and cancels them when its time is over.
        self._task = task
        self._state.tasks.add(task)  # type: ignore[arg-type]  # a future is cancelled like a task
        task.add_done_callback(done)

    def _on_later(self, response: Response | None) -> None:
        later, self._later = self._later, None
        if later is None:
            return
        if response is None:
            # Whoever cancels may be walking through the set.
            self._loop.call_soon(self._state.tasks.discard, later)
        else:
            self._state.tasks.discard(later)
        exchange = self._current
        if exchange is None or self._closed or self._transport.is_closing():
            if response is not None:
                self._abandon(response)
            return
        if response is None:
            exchange.keep_alive = False
            response = _GOING_AWAY
        self._write(exchange, response)
        # Inside data_received or _pump, which look for more themselves.
        if self._waiting and not self._corked:
            self._pump()

    def _answered(self, task: asyncio.Future[Response]) -> None:
        self._task = None
        self._state.tasks.discard(task)
        exchange = self._current
        if exchange is None or self._closed or self._transport.is_closing():
            if not task.cancelled() and task.exception() is None:
                self._abandon(task.result())
            return
        if task.cancelled():
            exchange.keep_alive = False
            self._write(exchange, _GOING_AWAY)
            return
        failure = task.exception()
        self._write(exchange, task.result() if failure is None else self._broken(exchange, failure))
        self._pump()

    def _abandon(self, response: Response) -> None:
        if response.stream is not None:
            closing = self._loop.create_task(response.stream.aclose())
            self._state.tasks.add(closing)
            closing.add_done_callback(self._state.tasks.discard)

    def _broken(self, exchange: _Exchange, failure: BaseException | None = None) -> Response:
        # The rim of the process: a handler that raises is a bug, and its client must still hear something.
        logger.error("handler failed", exc_info=failure or True, extra={"url": exchange.head.url.decode("latin-1")})
        return error(500, "internal error; the server's log has the traceback")

    def _write(self, exchange: _Exchange, response: Response) -> None:
        close = self._closing or not exchange.keep_alive
        is_head = exchange.head.method == "HEAD"
        self._state.total_requests += 1
        exchange.begun = True
        if response.stream is None:
            self._send(encode(response, close=close, head=is_head))
            self._next(close=close)
        elif is_head or response.status in _NO_CONTENT:
            self._abandon(response)
            self._send(encode(response, close=close, head=True))
            self._next(close=close)
        else:
            streaming = self._loop.create_task(self._stream(exchange, response, response.stream))
            self._run(streaming, lambda task: self._streamed(task, response))

    async def _stream(self, exchange: _Exchange, response: Response, pieces: Stream) -> bool:
        close = self._closing or not exchange.keep_alive
        sized = header(response.headers, b"content-length") is not None
        # HTTP/1.0 knows no chunks: there the end of the connection is the end of the body.
        chunked = not sized and exchange.head.version != "1.0"
        if chunked:
            response.headers = (*response.headers, (b"transfer-encoding", b"chunked"))
        self._send(encode(response, close=close))
        async for piece in pieces:
            if piece:
                self._send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                await self._flow.drain()
        if chunked:
            self._send(b"0\r\n\r\n")
        return close or not (sized or chunked)

    def _streamed(self, task: asyncio.Future[bool], response: Response) -> None:
        self._task = None
        # Here, not in the task: one that is cancelled before its first step runs no finally.
        self._abandon(response)
        self._state.tasks.discard(task)
        if task.cancelled() or task.exception() is not None:
            # Half a body is out. Only a connection cut off tells the client that it is not the whole.
            if not task.cancelled():
                logger.error("stream failed", exc_info=task.exception())
            self._transport.abort()
            return
        if not self._closed and self._current is not None:
            self._next(close=task.result() or self._closing)
            self._pump()

    def _send(self, data: bytes) -> None:
        if not self._corked and not self._out:
            self._transport.write(data)
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if not self._corked or self._out_bytes > _CORK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._out:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self._transport.write(data)
        if self._closed:
            self._transport.close()

    def _close(self) -> None:
        """Close once everything written so far is out."""
        self._closed = True
        self._waiting.clear()
        if not self._corked:
            self._flush()

    def _next(self, *, close: bool) -> None:
        answered, self._current = self._current, None
        if answered is not None and answered.incoming is not None and not answered.complete:
            # Cut off while it sends, a client might never see its answer: the rest is read, and dropped.
            answered.incoming.drop()
            answered.keep_alive = answered.keep_alive and not close
            return
        if close:
            self._close()
        elif self._waiting:
            if not self._flow.write_paused:
                self._flow.resume_reading()
        elif not self._in_head:
            self._deadline = self._loop.time() + self.limits.keep_alive_seconds

    def _cycle(self, exchange: _Exchange) -> RequestResponseCycle:
        head = exchange.head
        scope = {
            **self._scope,
            "method": head.method,
            "http_version": head.version,
            "path": self._config.root_path + (unquote(head.path) if "%" in head.path else head.path),
            "raw_path": head.path.encode("latin-1"),
            "query_string": head.query,
            "headers": head.headers.copy(),
            "state": self._app_state.copy(),
        }
        return RequestResponseCycle(
            scope=scope,  # type: ignore[arg-type]  # an HTTPScope
            transport=self._transport,
            flow=self._flow,
            logger=logger,
            access_logger=logger,
            access_log=False,
            default_headers=self._state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=head.expect_continue,
            keep_alive=exchange.keep_alive,
            on_response=self._on_cycle_complete,
        )

    def _on_cycle_complete(self) -> None:
        self._state.total_requests += 1
        exchange = self._current
        if exchange is None or self._transport.is_closing():
            return
        # A body that nobody read to its end cannot be told from the next request.
        self._next(close=self._closing or not exchange.keep_alive or not exchange.complete)
        self._pump()

    def _refuse(self, status: int, message: str) -> None:
        if self._refused or self._closed or self._transport.is_closing():
            return
        self._refused = True
        self._in_head = False
        refused, self._reading = self._reading, None
        if refused is not None and refused.incoming is not None:
            refused.incoming.fail(message)
            if refused.begun:
                # Its answer is out, or half out: nothing may follow it, and only a cut tells of the half.
                self._transport.abort() if refused is self._current else self._close()
                return
            if refused is self._current and self._task is not None:
                self._task.cancel()
            if refused is self._current and self._later is not None:
                later, self._later = self._later, None
                self._state.tasks.discard(later)
                later.cancel()
        refusal = _Exchange(_NO_HEAD, False)
        refusal.handler = lambda _request: error(status, message)
        refusal.complete = True
        if refused is not None and refused in self._waiting:
            self._waiting.remove(refused)
        elif refused is not None and refused is self._current:
            if refused.cycle is not None and refused.cycle.response_started:
                self._close()
                return
            self._current = None
        # Requests before the refused one are answered first, or their clients would take this for their answer.
        self._waiting.append(refusal)
        if not self._corked:
            self._pump()

    # One timer a connection, re-armed when it fires: moving a deadline costs an assignment.

    def _arm(self) -> None:
        self._timer = self._loop.call_at(self._deadline, self._on_time)

    def _on_time(self) -> None:
        if self._transport.is_closing():
            return
        waits_for_client = self._in_head or self._reading is not None
        if (self._current is not None and not waits_for_client) or self._flow.read_paused:
            # Answering takes as long as it takes; only clients are timed here.
            self._deadline = self._loop.time() + self.limits.keep_alive_seconds
        if self._loop.time() < self._deadline:
            self._arm()
        elif not waits_for_client:
            self._transport.close()
        else:
            if self._reading is not None and self._reading.cycle is not None:
                self._reading.cycle.disconnected = True
                self._reading.cycle.message_event.set()
            self._refuse(408, f"the request did not end within {self.limits.read_timeout_seconds:g} s")


def front(hot: Router, limits: Limits | None = None, manners: Iterable[Manner] = ()) -> type[Front]:
    """Return the protocol class for ``uvicorn.Config(http=…)`` that answers ``hot`` routes itself, in ``manners``."""
    manners = tuple(manners)
    bound = {
        "hot": staticmethod(hot),
        "heads": Heads(),
        "limits": limits or Limits(),
        "manners": manners,
        "looked_at": _LOOKED_AT.union(*(manner.headers for manner in manners)),
    }
    return type("BoundFront", (Front,), bound)


async def no_application(scope: Any, receive: Any, send: Any) -> None:
    """Answer 404: the ASGI application of a server whose every route is hot."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b'{"error":"no such path"}'})
