"""Hot routes for servers that are not ours: a router and an application behind it, as one ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import quote

from servery_http.front import error
from servery_http.incoming import BodyBroke
from servery_http.limits import Limits
from servery_http.manners import Manner, wrapped
from servery_http.messages import Request, Response, Router, Streamed

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


def application(
    hot: Router, app: Application, limits: Limits | None = None, manners: Sequence[Manner] = ()
) -> Application:
    """Return an ASGI application that answers the routes of ``hot`` and leaves all others to ``app``.

    Bodies of hot routes are whole before their handler is called, streamed routes among them.

    Source: ASGI 3.0, HTTP & WebSocket message format 2.3.
    """
    most = (limits or Limits()).max_body_bytes

    async def called(scope: Message, receive: Receive, send: Send) -> None:
        path = _path(scope) if scope["type"] == "http" else ""
        route = hot(scope["method"], path) if path else None
        if route is None:
            await app(scope, receive, send)
            return
        handler = route.handler if isinstance(route, Streamed) else route
        handler = wrapped(handler, manners, [name for name, _ in scope["headers"]])
        body = await _body(receive, most)
        if body is None:
            await _send(error(413, f"the body is longer than {most} bytes"), send)
            return
        answer = handler(Request(scope["method"], path, scope.get("query_string", b""), [*scope["headers"]], body))
        await _send(answer if isinstance(answer, Response) else await answer, send)

    return called


def _path(scope: Message) -> str:
    """Return the path as it came, percent-encoding and all, where the server kept it."""
    raw: bytes | None = scope.get("raw_path")
    return raw.decode("latin-1").partition("?")[0] if raw else quote(scope["path"])


async def _body(receive: Receive, most: int) -> bytes | None:
    """Return the whole body, or None for one that is longer than ``most`` bytes.

    Raises:
        BodyBroke: The client went away.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BodyBroke("the client went away before its body was complete")
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            return None
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)


async def _send(response: Response, send: Send) -> None:
    headers = [(b"content-type", response.content_type), *response.headers]
    if response.stream is None:
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.stream is None:
        await send({"type": "http.response.body", "body": response.body})
        return
    try:
        async for piece in response.stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        await response.stream.aclose()
    await send({"type": "http.response.body", "body": b""})
