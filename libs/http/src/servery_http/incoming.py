"""A request's body on its way in: kept small by asking the client to wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable

from servery_sdk.errors import Transient

AHEAD_BYTES = 64 * 1024
"""Of a body that wait for their reader; beyond it, nothing more is read from the connection."""


class BodyBroke(Transient):
    """The client went away, or was refused, before its body was complete."""


class Incoming:
    """Pieces of one body, for one reader.

    Args:
        pause: Reads no more from the connection.
        resume: Reads again.
    """

    __slots__ = ("_bytes", "_complete", "_failure", "_is_dropped", "_pause", "_pieces", "_resume", "_waiter")

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self._pause, self._resume = pause, resume
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._complete = False
        self._is_dropped = False
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def whole(self) -> bytes | None:
        """Return the body where all of it is here already, else None; takes nothing away."""
        return b"".join(self._pieces) if self._complete else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            BodyBroke: It will not be complete.
        """
        while self._pieces or not self._complete:
            if self._failure is not None:
                raise self._failure
            if not self._pieces:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
                continue
            piece = self._pieces.popleft()
            self._bytes -= len(piece)
            if self._bytes < AHEAD_BYTES:
                self._resume()
            yield piece

    def feed(self, piece: bytes) -> None:
        """Take a piece from the connection."""
        if self._is_dropped:
            return
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes >= AHEAD_BYTES:
            self._pause()
        self._wake()

    def end(self) -> None:
        """Say that the last piece was the last."""
        self._complete = True
        self._wake()

    def fail(self, why: str) -> None:
        """Tell the reader that the rest will not come."""
        if not self._complete:
            self._failure = BodyBroke(why)
            self._wake()

    def drop(self) -> None:
        """Forget what is here and what comes: it has been answered without."""
        self._is_dropped = True
        self._pieces.clear()
        self._resume()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
