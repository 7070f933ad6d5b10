from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from servery_http.limits import Limits
from servery_http.messages import Handler, Request, Response
from servery_http.server import Server


class Wire:
    """A raw connection, for what no client library would send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        lines = head.decode().split("\r\n")
        status = int(lines[0].split()[1])
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", 0))) if status != 100 else b""
        return status, headers, body

    async def closed(self) -> bool:
        return await asyncio.wait_for(self.reader.read(), 10) == b""


async def application(scope, receive, send):  # type: ignore[no-untyped-def]
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"asgi " + scope["path"].encode() + b" " + body})


class Site:
    """Hot routes: ``/echo`` at once, ``/later`` when ``release`` is set, ``/broken`` raises."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()

    def hot(self, method: str, path: str) -> Handler | None:
        return {"/echo": self.echo, "/later": self.later, "/broken": self.broken}.get(path)

    def echo(self, request: Request) -> Response:
        return Response(200, b"hot " + request.body, b"text/plain", ((b"x-query", request.query),))

    async def later(self, request: Request) -> Response:
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Response(200, b"later " + request.body)

    def broken(self, request: Request) -> Response:
        raise ZeroDivisionError


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def limits() -> Limits:
    return Limits(max_url_bytes=200, max_header_bytes=1000, max_body_bytes=100_000)


@pytest.fixture
async def server(site: Site, limits: Limits) -> AsyncIterator[Server]:
    async with Server(site.hot, application, limits=limits, drain_seconds=5).running() as server:
        yield server


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[[], Awaitable[Wire]]]:
    wires: list[Wire] = []

    async def open_wire() -> Wire:
        wires.append(Wire(*await asyncio.open_connection(server.host, server.port)))
        return wires[-1]

    yield open_wire
    for wire in wires:
        wire.writer.close()
