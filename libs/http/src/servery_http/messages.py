"""Requests and responses as values."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from servery_http.incoming import Incoming

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]
"""Names in lower case, in the order they came."""


def header(headers: Headers | list[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first value of ``name`` (lower case), or None."""
    for key, value in headers:
        if key == name:
            return value
    return None


@dataclass(slots=True)
class Request:
    """A request of a hot route. Not frozen: a frozen one costs a microsecond more to make.

    Attributes:
        method: ``POST``.
        path: Percent-encoding as it came, no query.
        query: What stood behind ``?``.
        body: Complete, unless there is a ``stream``.
        stream: The body as it comes, for a route that is ``Streamed``.
    """

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    stream: Incoming | None = None


class Stream(Protocol):
    """Pieces of a body, as an async generator gives them."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """Give up the rest; called once, whether or not the pieces were read."""


@dataclass(slots=True)
class Response:
    """A response; ``content-length``, ``transfer-encoding`` and ``connection`` are the front's to add.

    Attributes:
        body: All of it, unless there is a ``stream``.
        stream: The body in pieces, sent as they come and as fast as the client reads. Its length may stand in
            ``headers`` as ``content-length``.
    """

    status: int = 200
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: Headers = ()
    stream: Stream | None = None


Waiter: TypeAlias = Callable[["Response | None"], None]
"""Told an answer that was waited for, None where it was cancelled."""


class Pending:
    """An answer to come that says itself when it is here: no task, and no turn of the loop to wait."""

    __slots__ = ()

    def then(self, waiter: Waiter) -> None:
        """Call ``waiter`` with the answer, which may be now, or with None when it was cancelled."""
        raise NotImplementedError

    def cancel(self, msg: object = None) -> bool:
        """Give up, as one cancels a task."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, Response]:
        answered: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()
        self.then(lambda response: None if answered.done() else answered.set_result(response))
        try:
            response = yield from answered
        except asyncio.CancelledError:
            self.cancel()
            raise
        if response is None:
            raise asyncio.CancelledError
        return response


class Later(Pending):
    """An answer to come that somebody gives.

    Args:
        abandoned: Called once where nobody waits any more: the client went away, or a drain's time is over.
    """

    __slots__ = ("_abandoned", "_is_over", "_response", "_waiter")

    def __init__(self, abandoned: Callable[[], None] | None = None) -> None:
        self._abandoned = abandoned
        self._waiter: Waiter | None = None
        self._response: Response | None = None
        self._is_over = False

    def answer(self, response: Response) -> None:
        """Give the answer; nothing happens where nobody waits any more."""
        if self._is_over:
            return
        self._is_over = True
        self._response = response
        waiter, self._waiter = self._waiter, None
        # Who can abandon it mostly holds it: neither should wait for the collector.
        self._abandoned = None
        if waiter is not None:
            waiter(response)

    def then(self, waiter: Waiter) -> None:
        """Call ``waiter`` with the answer, which may be now, or with None when it was cancelled."""
        if self._is_over:
            waiter(self._response)
        else:
            self._waiter = waiter

    def cancel(self, msg: object = None) -> bool:
        """Give up, as one cancels a task."""
        if self._is_over:
            return False
        self._is_over = True
        abandoned, self._abandoned = self._abandoned, None
        waiter, self._waiter = self._waiter, None
        if abandoned is not None:
            abandoned()
        if waiter is not None:
            waiter(None)
        return True


Handler: TypeAlias = Callable[[Request], Response | Pending | Awaitable[Response]]
"""Answers at once, or later, or with something to wait for, which is cancelled when the client goes away."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A route whose handler is called at a request's head, and reads the body from ``Request.stream``.

    What it leaves unread when it has answered is dropped.
    """

    handler: Handler


Router: TypeAlias = Callable[[str, str], Handler | Streamed | None]
"""Method and path to the handler of a hot route; None sends the request on to the ASGI application."""
