"""Requests and responses as values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

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


Handler: TypeAlias = Callable[[Request], Response | Awaitable[Response]]
"""Answers at once, or with something to wait for, which is cancelled when the client goes away."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A route whose handler is called at a request's head, and reads the body from ``Request.stream``.

    What it leaves unread when it has answered is dropped.
    """

    handler: Handler


Router: TypeAlias = Callable[[str, str], Handler | Streamed | None]
"""Method and path to the handler of a hot route; None sends the request on to the ASGI application."""
