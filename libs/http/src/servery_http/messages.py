"""Requests and responses as values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

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
    """A whole request of a hot route. Not frozen: a frozen one costs a microsecond more to make.

    Attributes:
        method: ``POST``.
        path: Percent-encoding as it came, no query.
        query: What stood behind ``?``.
        body: Complete.
    """

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(slots=True)
class Response:
    """A whole response; ``content-length`` and ``connection`` are the front's to add."""

    status: int = 200
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: Headers = ()


Handler: TypeAlias = Callable[[Request], Response | Awaitable[Response]]
"""Answers at once, or with something to wait for, which is cancelled when the client goes away."""

Router: TypeAlias = Callable[[str, str], Handler | None]
"""Method and path to the handler of a hot route; None sends the request on to the ASGI application."""
