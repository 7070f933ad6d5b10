"""Passing a request on to another server, and its answer back as it comes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from servery_http.client import Client, StreamedResponse
from servery_http.messages import Headers, Request, Response, header

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_WHOLE_BYTES = 64 * 1024


def end_to_end(headers: list[tuple[bytes, bytes]]) -> Headers:
    """Return the headers that concern more than one connection.

    Source: RFC 9110, 7.6.1: those that ``connection`` names go too.
    """
    named = {name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")}
    return tuple(pair for pair in headers if pair[0] not in _HOP_BY_HOP and pair[0] not in named)


class _Passing:
    """The rest of an answer; holds the upstream connection until it is read or given up."""

    def __init__(self, answer: StreamedResponse, held: contextlib.AsyncExitStack) -> None:
        self._answer, self._held = answer, held

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._answer.chunks()

    async def aclose(self) -> None:
        await self._held.aclose()


async def forward(request: Request, upstream: str, client: Client) -> Response:
    """Return the answer of ``upstream`` (``http://host:port``) to ``request``.

    A body that is not all here yet is passed on as it comes, no faster than the upstream takes it. A short answer of
    known length comes whole, which costs least; any other, events among them, is streamed the same way.

    Raises:
        ConnectFailed: Nobody listens there; nothing has been sent.
        ConnectionBroke: The upstream went away before its answer began.
        BodyBroke: The client went away before its body was complete.
    """
    query = f"?{request.query.decode('latin-1')}" if request.query else ""
    whole = request.body if request.stream is None else request.stream.whole()
    # The length of a whole body is counted anew; of one in pieces it goes along, unless it comes in chunks.
    is_sized = whole is None and header(request.headers, b"transfer-encoding") is None
    headers = tuple(pair for pair in end_to_end(request.headers) if is_sized or pair[0] != b"content-length")
    body = request.stream if whole is None and request.stream is not None else whole or b""
    async with contextlib.AsyncExitStack() as stack:
        answer = await stack.enter_async_context(
            client.stream(request.method, f"{upstream}{request.path}{query}", headers=headers, body=body)
        )
        passed = end_to_end(answer.headers)
        content_type = header(passed, b"content-type") or b"application/octet-stream"
        rest = tuple(pair for pair in passed if pair[0] != b"content-type")
        length = header(rest, b"content-length")
        if request.method == "HEAD" or answer.status in {204, 304}:
            return Response(answer.status, b"", content_type, rest)
        if length is not None and int(length) <= _WHOLE_BYTES:
            body = b"".join([chunk async for chunk in answer.chunks()])
            return Response(
                answer.status, body, content_type, tuple(pair for pair in rest if pair[0] != b"content-length")
            )
        return Response(answer.status, b"", content_type, rest, _Passing(answer, stack.pop_all()))
    raise AssertionError("unreachable: the stack above swallows nothing")
