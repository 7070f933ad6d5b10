"""A keep-alive HTTP/1.1 client on httptools: whole bodies, or streams both ways."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

import httptools
from servery_sdk.errors import ErrorCode, Transient

from servery_http.messages import header

Headers = Iterable[tuple[bytes, bytes]]
_BUFFER_BYTES = 256 * 1024
_HEADER_BYTES = 256 * 1024
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


class ConnectFailed(Transient):
    """Nobody answers at the address."""


class ConnectionBroke(Transient):
    """The server went away in the middle of an exchange."""


class TimedOut(Transient):
    """No answer in time."""

    code = ErrorCode.DEADLINE_EXCEEDED


@dataclass(slots=True)
class ClientResponse:
    """A response whose body is complete."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port: what a connection is kept for."""

    tls: bool
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> tuple[Origin, bytes]:
        """Return a URL's origin and the rest of it, path and query."""
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(tls, parts.hostname or "", parts.port or (443 if tls else 80)), target.encode()


@dataclass(slots=True)
class StreamedResponse:
    """A response whose body is still coming."""

    status: int
    headers: list[tuple[bytes, bytes]]
    _connection: _Connection = field(repr=False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            ConnectionBroke: It ended too early.
        """
        while (chunk := await self._connection.read()) is not None:
            yield chunk


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made sets it first
        self.reusable = False
        self.received = False
        self.closed = False
        self.last_used = 0.0
        self.sending: asyncio.Task[None] | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._reset(head=False)

    def _reset(self, *, head: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._is_head = head
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: deque[bytes] = deque()
        self._buffered = 0
        self._complete = False
        self._failure: Exception | None = None
        self._has_head = False
        self._header_bytes = 0
        self._surplus = False
        self.received = False
        self.sent = False
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, *, head: bool) -> None:
        """Get ready for the next exchange."""
        self.reusable = False
        self._reset(head=head)

    async def write(self, data: bytes) -> None:
        """Send ``data``, waiting while the server does not read."""
        if self.closed:
            raise ConnectionBroke("the server closed the connection")
        self.sent = True
        self.transport.write(data)
        if not self._can_write.is_set():
            await self._can_write.wait()

    async def head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        """Return status and headers once they are there."""
        while not self._has_head:
            await self._wait()
        return self._parser.get_status_code(), self._headers

    async def read(self) -> bytes | None:
        """Return the next piece of the body, None at its end."""
        while not self._body:
            if self._complete:
                return None
            await self._wait()
        chunk = self._body.popleft()
        self._buffered -= len(chunk)
        if self._buffered < _BUFFER_BYTES:
            self.transport.resume_reading()
        return chunk

    async def _wait(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, failure: Exception) -> None:
        """Cut the exchange; ``failure`` is what its reader gets."""
        self._failure = failure
        self.transport.close()
        self._wake()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed, self.reusable = True, False
        self._can_write.set()
        if self._has_head and not self._complete and self._until_close:
            self._complete = True
        elif not self._complete and self._failure is None:
            self._failure = ConnectionBroke("the server closed the connection before its answer was complete")
        self._wake()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        self.received = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.fail(ConnectionBroke(f"the server's answer is not HTTP/1.1: {error}"))

    def on_message_begin(self) -> None:
        if self._complete:
            # An answer to no question: what follows on this connection cannot be trusted.
            self._surplus = True
            self.reusable = False
            self.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _HEADER_BYTES:
            self.fail(ConnectionBroke(f"the server's headers are longer than {_HEADER_BYTES} bytes"))
            return
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200 or self._failure is not None:
            return
        self._has_head = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        if self._surplus:
            return
        self._body.append(body)
        self._buffered += len(body)
        if self._buffered > _BUFFER_BYTES:
            self.transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            # 100 Continue and 103 Early Hints come before the answer.
            self._headers = []
            return
        self._complete = True
        self.reusable = self._parser.should_keep_alive() and not self._surplus
        self._wake()

    @property
    def _until_close(self) -> bool:
        return header(self._headers, b"content-length") is None and header(self._headers, b"transfer-encoding") is None

    def skip_body_if_none(self) -> None:
        """End the exchange where the answer has no body whatever its headers say."""
        if self._is_head or self._parser.get_status_code() in {204, 304}:
            self._complete = True
            self.reusable = not self.closed

    def end(self) -> bool:
        """Give up what is still being sent; return whether the connection can serve another exchange."""
        if self.sending is not None and not self.sending.done():
            self.sending.cancel()
            return False
        self.sending = None
        return self.reusable


class Client:
    """A pool of connections by origin. Use as an async context manager.

    Args:
        max_idle: Connections kept per origin.
        idle_seconds: How long one is kept.
        connect_seconds: How long a connection may take to open.
    """

    def __init__(
        self,
        *,
        max_idle: int = 64,
        idle_seconds: float = 30.0,
        connect_seconds: float = 5.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._max_idle = max_idle
        self._idle_seconds = idle_seconds
        self._connect_seconds = connect_seconds
        self._tls = tls
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._open: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        for connection in self._open:
            connection.transport.abort()
        self._open.clear()
        self._idle.clear()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: bytes = b"",
        timeout_seconds: float = 60.0,
    ) -> ClientResponse:
        """Return the whole answer.

        Raises:
            ConnectFailed: Nobody listens.
            ConnectionBroke: The server went away in the middle.
            TimedOut: Not within ``timeout_seconds``.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                async with self.stream(method, url, headers=headers, body=body) as response:
                    chunks = [chunk async for chunk in response.chunks()]
        except TimeoutError as error:
            raise TimedOut(f"{method} {url}: no answer within {timeout_seconds:g} s") from error
        return ClientResponse(response.status, response.headers, chunks[0] if len(chunks) == 1 else b"".join(chunks))

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: bytes | AsyncIterable[bytes] = b"",
    ) -> AsyncIterator[StreamedResponse]:
        """Send ``body``, whole or in pieces, and yield the answer as soon as its headers are there.

        Pieces go as chunks, or, where ``headers`` have a ``content-length``, as they are; they must then add up to it.
        What the body itself raises is raised here, the connection cut.

        A kept connection that the server has closed meanwhile is replaced by a new one, as long as nothing of an
        answer has come, the body can be sent again, and doing so twice is once: the method is idempotent, or nothing
        of the request was sent.

        Raises:
            ConnectFailed: Nobody listens.
            ConnectionBroke: The server went away in the middle.
        """
        origin, target = Origin.of(url)
        given = list(headers)
        chunked = not isinstance(body, bytes) and header(given, b"content-length") is None
        if chunked:
            given.append((b"transfer-encoding", b"chunked"))
        head = self._head(method, origin, target, given, body)
        connection, response = await self._exchange(method, origin, head, body, chunked=chunked)
        try:
            yield response
        finally:
            self._give_back(origin, connection)

    async def _exchange(
        self, method: str, origin: Origin, head: bytes, body: bytes | AsyncIterable[bytes], *, chunked: bool
    ) -> tuple[_Connection, StreamedResponse]:
        while True:
            connection = self._take(origin)
            fresh = connection is None
            if connection is None:
                connection = await self._connect(origin)
            connection.begin(head=method == "HEAD")
            try:
                status, headers = await self._send(connection, head, body, chunked=chunked)
            except ConnectionBroke:
                self._drop(connection)
                may_repeat = not connection.sent or (method in _IDEMPOTENT and isinstance(body, bytes))
                if fresh or connection.received or not may_repeat:
                    raise
                continue
            except BaseException:
                self._drop(connection)
                raise
            connection.skip_body_if_none()
            return connection, StreamedResponse(status, headers, connection)

    @staticmethod
    async def _send(
        connection: _Connection, head: bytes, body: bytes | AsyncIterable[bytes], *, chunked: bool
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        if isinstance(body, bytes):
            await connection.write(head + body)
            return await connection.head()
        await connection.write(head)
        # A server may answer, and be right to, before it has read the whole body.
        connection.sending = asyncio.create_task(
            _send_pieces(connection, body, chunked=chunked), name="http-client-body"
        )
        return await connection.head()

    @staticmethod
    def _head(
        method: str,
        origin: Origin,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes | AsyncIterable[bytes],
    ) -> bytes:
        lines = [b"%b %b HTTP/1.1\r\n" % (method.encode(), target)]
        if header(headers, b"host") is None:
            default = origin.port == (443 if origin.tls else 80)
            host = f"[{origin.host}]" if ":" in origin.host else origin.host
            lines.append(f"host: {host}{'' if default else f':{origin.port}'}\r\n".encode())
        lines.extend(b"%b: %b\r\n" % pair for pair in headers)
        if isinstance(body, bytes) and (body or method not in {"GET", "HEAD", "OPTIONS", "DELETE"}):
            lines.append(b"content-length: %d\r\n" % len(body))
        lines.append(b"\r\n")
        return b"".join(lines)

    async def _connect(self, origin: Origin) -> _Connection:
        loop = asyncio.get_running_loop()
        context = (self._tls or ssl.create_default_context()) if origin.tls else None
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(_Connection, origin.host, origin.port, ssl=context)
        except (OSError, TimeoutError) as error:
            raise ConnectFailed(f"cannot connect to {origin.host}:{origin.port}: {error or 'timed out'}") from error
        self._open.add(connection)
        return connection

    def _take(self, origin: Origin) -> _Connection | None:
        idle = self._idle.get(origin)
        oldest = asyncio.get_running_loop().time() - self._idle_seconds
        while idle:
            connection = idle.pop()
            if not connection.closed and connection.last_used > oldest and not connection.transport.is_closing():
                return connection
            self._drop(connection)
        return None

    def _give_back(self, origin: Origin, connection: _Connection) -> None:
        idle = self._idle.setdefault(origin, deque())
        if connection.end() and len(idle) < self._max_idle:
            connection.last_used = asyncio.get_running_loop().time()
            idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        connection.end()
        self._open.discard(connection)
        connection.transport.close()


async def _send_pieces(connection: _Connection, body: AsyncIterable[bytes], *, chunked: bool) -> None:
    try:
        async for piece in body:
            if piece:
                await connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            await connection.write(b"0\r\n\r\n")
    except ConnectionBroke:
        # Whoever reads the answer is told.
        return
    except Exception as error:
        # Half a request is out, and the server waits for the rest. Whoever waits for its answer is told why.
        connection.fail(error)
