"""Connections to the server behind us: each serves one exchange at a time, and waits in a pool between them."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum, auto
from typing import Protocol

from servery_http.address import Address
from servery_http.gateway.chunks import BadChunks, Chunks
from servery_http.gateway.heads import CHUNKED, UNTIL_CLOSE, AnswerHead, BadHead, Known, RequestHead

_HEAD_BYTES = 256 * 1024
LONG_BYTES = 4096
"""Of a body, from which on to copy it costs more than to keep a view of what was read, and write it apart from its head."""
_IDLE_SECONDS = 4.0
"""That a connection is kept: uvicorn, which most servers behind us are, closes one after 5."""
_MAX_IDLE = 1024


class Caller(Protocol):
    """Who asks, and is told what comes back. Nothing more is called once the exchange is over.

    Attributes:
        head: Of the request.
        is_sent: All of the request has been.
    """

    head: RequestHead
    is_sent: bool

    def on_connected(self, upstream: Upstream) -> None:
        """Send the request on a connection that was asked for."""

    def on_unreachable(self, why: str) -> None:
        """Learn that there is no connection."""

    def on_interim(self, answer: AnswerHead) -> None:
        """Take a 1xx that comes before the answer."""

    def on_switched(self, answer: AnswerHead, data: bytes) -> None:
        """Take a 101 and what follows it: from here on bytes pass as they are, to ``on_answer_piece``."""

    def on_answer(self, answer: AnswerHead, body: bytes | memoryview) -> None:
        """Take a whole answer, a long body as a view; the exchange is over."""

    def on_answer_head(self, answer: AnswerHead) -> None:
        """Take the head of an answer whose body follows."""

    def on_answer_piece(self, piece: bytes) -> None:
        """Take a piece of its body."""

    def on_answer_end(self, trailers: bytes = b"") -> None:
        """Learn that the body is complete, and what fields follow it, each with its end; the exchange is over."""

    def on_lost(self, upstream: Upstream, why: str) -> None:
        """Learn that the rest will not come; the exchange is over."""

    def on_full(self) -> None:
        """Send no more for now."""

    def on_room(self) -> None:
        """Send again."""


class _Mode(Enum):
    HEAD = auto()
    SIZED = auto()
    CHUNKS = auto()
    UNTIL_CLOSE = auto()
    TUNNEL = auto()


_HEAD, _SIZED, _CHUNKS, _UNTIL_CLOSE, _TUNNEL = _Mode


class Upstream(asyncio.Protocol):
    """One connection.

    Attributes:
        caller: Whose exchange it serves; None while it waits.
        is_fresh: It has served none before.
        received: The server has begun to answer.
        is_full: It takes no more for now.
    """

    __slots__ = (
        "_chunks",
        "_held",
        "_is_paused",
        "_left",
        "_mode",
        "_pool",
        "_reusable",
        "caller",
        "idle_since",
        "is_fresh",
        "is_full",
        "received",
        "transport",
    )

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made sets it first
        self.caller: Caller | None = None
        self.is_fresh = True
        self.is_full = False
        self.received = False
        self.idle_since = 0.0
        self._mode = _HEAD
        self._held = b""
        self._left = 0
        self._chunks: Chunks | None = None
        self._reusable = False
        self._is_paused = False

    def begin(self, caller: Caller) -> None:
        """Serve ``caller``'s exchange, which may write from now on."""
        self.caller = caller
        self.received = False

    def abandon(self) -> None:
        """Give the exchange up: the server sees its client go away."""
        self.caller = None
        self._pool.forget(self)
        self.transport.abort()

    def pause_reading(self) -> None:
        """Take no more from the server for now; nothing happens once the exchange is over."""
        if self.caller is not None and not self.transport.is_closing():
            self._is_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Take more again."""
        if self._is_paused and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's transport
        self._pool.remember(self)

    def pause_writing(self) -> None:
        self.is_full = True
        if self.caller is not None:
            self.caller.on_full()

    def resume_writing(self) -> None:
        self.is_full = False
        if self.caller is not None:
            self.caller.on_room()

    def eof_received(self) -> bool:
        if self._mode is _TUNNEL and self.caller is not None:
            self.caller.on_answer_piece(b"")
            return True
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        caller, self.caller = self.caller, None
        if caller is None:
            return
        if self._mode is _UNTIL_CLOSE and exc is None:
            caller.on_answer_end()
        else:
            caller.on_lost(self, str(exc or "it closed the connection"))

    def data_received(self, data: bytes) -> None:
        caller = self.caller
        if caller is None:
            # An answer to no question: what follows on this connection cannot be trusted.
            self._pool.forget(self)
            self.transport.abort()
        elif self._mode is _SIZED:
            self._on_sized(caller, data)
        elif self._mode is _HEAD:
            self._on_head(caller, data)
        elif self._mode is _CHUNKS:
            self._on_chunks(caller, data)
        else:
            caller.on_answer_piece(data)

    # Answers.

    def _on_head(self, caller: Caller, data: bytes) -> None:
        self.received = True
        if self._held:
            data = self._held + data
            self._held = b""
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._held = data
                if len(data) > _HEAD_BYTES:
                    self._fail(caller, f"the head of its answer is longer than {_HEAD_BYTES} bytes")
                return
            try:
                answer = self._pool.known(data[:end])
            except BadHead as bad:
                self._fail(caller, str(bad))
                return
            if answer.status >= 200 or answer.status == 101:
                break
            caller.on_interim(answer)
            data = data[end:]
            if not data:
                return
        if answer.status == 101:
            self._switch(caller, answer, data[end:])
            return
        has_body = not caller.head.is_head and answer.status not in {204, 304}
        length = answer.length if has_body else 0
        self._reusable = answer.keep_alive
        if length == len(data) - end:
            self._release(caller)
            caller.on_answer(answer, data[end:] if length < LONG_BYTES else memoryview(data)[end:])
            return
        if 0 <= length < len(data) - end:
            self._reusable = False
            self._release(caller)
            caller.on_answer(answer, data[end : end + length])
            return
        caller.on_answer_head(answer)
        if length == CHUNKED:
            self._mode, self._chunks = _CHUNKS, Chunks()
        elif length == UNTIL_CLOSE:
            self._mode = _UNTIL_CLOSE
        else:
            self._mode, self._left = _SIZED, length
        if end < len(data):
            self.data_received(data[end:])

    def _switch(self, caller: Caller, answer: AnswerHead, rest: bytes) -> None:
        if caller.head.upgrade is None:
            self._fail(caller, "it switches to another protocol, which nobody asked for")
            return
        self._mode = _TUNNEL
        caller.on_switched(answer, rest)

    def _on_sized(self, caller: Caller, data: bytes) -> None:
        left = self._left - len(data)
        self._left = left
        if left > 0:
            caller.on_answer_piece(data)
            return
        if left < 0:
            self._reusable = False
            data = data[:left]
        self._release(caller)
        caller.on_answer_piece(data)
        caller.on_answer_end()

    def _on_chunks(self, caller: Caller, data: bytes) -> None:
        assert self._chunks is not None
        try:
            pieces = self._chunks.feed(data)
        except BadChunks as bad:
            self._fail(caller, str(bad))
            return
        is_complete, trailers = self._chunks.is_complete, self._chunks.trailers
        if is_complete:
            self._reusable = self._reusable and not self._chunks.rest
            self._release(caller)
        if pieces:
            caller.on_answer_piece(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if is_complete:
            caller.on_answer_end(trailers)

    def _release(self, caller: Caller) -> None:
        # Before the caller hears of the end: the next exchange may begin inside that call, and take this connection.
        self.caller = None
        self._mode = _HEAD
        self._chunks = None
        self.is_fresh = False
        self.resume_reading()
        if self._reusable and caller.is_sent and not self.is_full and not self.transport.is_closing():
            self._pool.give_back(self)
        else:
            self._pool.forget(self)
            self.transport.abort()

    def _fail(self, caller: Caller, why: str) -> None:
        self.abandon()
        caller.on_lost(self, why)


class Pool:
    """Connections to one server: the one that was used last is used next.

    Args:
        connect_seconds: How long one may take to open.
    """

    def __init__(self, address: Address, *, connect_seconds: float) -> None:
        self.address = address
        self.known: Known[AnswerHead] = Known(AnswerHead)
        self._connect_seconds = connect_seconds
        self._loop = asyncio.get_running_loop()
        self._idle: deque[Upstream] = deque()
        self._open: set[Upstream] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    def take(self) -> Upstream | None:
        """Return a connection that waits, or None."""
        while self._idle:
            upstream = self._idle.pop()
            if not upstream.transport.is_closing():
                return upstream
        return None

    def connect(self, caller: Caller) -> None:
        """Open a connection for ``caller``, which is told."""
        task = self._loop.create_task(self._connect(caller), name="gateway-connect")
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, caller: Caller) -> None:
        try:
            async with asyncio.timeout(self._connect_seconds):
                upstream = await self.address.connect(lambda: Upstream(self))
        except TimeoutError:
            caller.on_unreachable(f"no connection within {self._connect_seconds:g} s")
            return
        except OSError as error:
            caller.on_unreachable(error.strerror or str(error))
            return
        if upstream.transport.is_closing():
            caller.on_unreachable("it closed the connection at once")
        else:
            caller.on_connected(upstream)

    def give_back(self, upstream: Upstream) -> None:
        """Keep a connection for the next exchange."""
        upstream.idle_since = self._loop.time()
        self._idle.append(upstream)
        if len(self._idle) > _MAX_IDLE:
            self._idle.popleft().transport.close()

    def remember(self, upstream: Upstream) -> None:
        """Know a connection from now on."""
        self._open.add(upstream)

    def forget(self, upstream: Upstream) -> None:
        """Know a connection no more."""
        self._open.discard(upstream)

    def sweep(self, now: float) -> None:
        """Close what waited too long."""
        while self._idle and (self._idle[0].idle_since < now - _IDLE_SECONDS or self._idle[0].transport.is_closing()):
            self._idle.popleft().transport.close()

    def close(self) -> None:
        """Cut every connection."""
        for task in tuple(self._connecting):
            task.cancel()
        for upstream in tuple(self._open):
            upstream.transport.abort()
