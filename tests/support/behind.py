"""A server behind the gateway whose every byte the test sees and says, and clients that say what no library would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from servery_http.address import Address
from servery_http.gateway.server import Gateway
from waiting import PATIENCE_SECONDS

_LINE_BYTES = 1024 * 1024


class Peer:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read(self, size: int) -> bytes:
        return await asyncio.wait_for(self.reader.readexactly(size), PATIENCE_SECONDS)

    async def until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(end), PATIENCE_SECONDS)

    async def rest(self) -> bytes:
        """Return what comes until the other end closes."""
        return await asyncio.wait_for(self.reader.read(), PATIENCE_SECONDS)

    async def head(self) -> tuple[str, dict[str, str]]:
        """Return the first line, and the headers by their names; values of one name are joined."""
        first, *lines = (await self.until(b"\r\n\r\n")).decode("latin-1")[:-4].split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            headers[name.lower()] = f"{headers[name.lower()]} | {value}" if name.lower() in headers else value
        return first, headers

    async def message(self) -> tuple[str, dict[str, str], bytes]:
        """Return a whole request or answer that has a length, or comes in chunks."""
        first, headers = await self.head()
        if headers.get("transfer-encoding") == "chunked":
            return first, headers, await self.chunks()
        return first, headers, await self.read(int(headers.get("content-length", 0)))

    async def chunks(self) -> bytes:
        body = b""
        while size := int(await self.until(b"\r\n"), 16):
            body += await self.read(size)
            assert await self.read(2) == b"\r\n"
        while await self.until(b"\r\n") != b"\r\n":
            """Of trailers, which tests read that are about them."""
        return body

    def cut(self) -> None:
        self.writer.transport.abort()


@dataclass
class Behind:
    """Listens; each connection that the gateway opens waits in ``connections``."""

    connections: asyncio.Queue[Peer] = field(default_factory=asyncio.Queue)
    peers: list[Peer] = field(default_factory=list)
    clients: list[Peer] = field(default_factory=list)
    server: asyncio.Server | None = None
    port: int = 0

    async def listen(self) -> None:
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=_LINE_BYTES)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(Peer(reader, writer))
        await self.connections.put(self.peers[-1])

    async def accept(self) -> Peer:
        return await asyncio.wait_for(self.connections.get(), PATIENCE_SECONDS)

    async def connect(self, gateway: Gateway) -> Peer:
        """Return a client's connection to ``gateway``."""
        self.clients.append(Peer(*await asyncio.open_connection("127.0.0.1", gateway.port)))
        return self.clients[-1]

    async def die(self) -> None:
        """Go away as a process does that is killed: nobody listens, every connection is cut."""
        assert self.server is not None
        self.server.close()
        for peer in self.peers:
            peer.cut()
        self.peers.clear()
        self.connections = asyncio.Queue()

    @property
    def address(self) -> Address:
        return Address(port=self.port)


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[Behind]:
    behind = Behind()
    await behind.listen()
    try:
        yield behind
    finally:
        await behind.die()
        for client in behind.clients:
            client.cut()


def post(body: bytes = b"", *headers: bytes, target: bytes = b"/v1/models/m:predict", length: bool = True) -> bytes:
    lines = [b"POST %b HTTP/1.1" % target, b"host: m", *headers]
    if length:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def ok(body: bytes = b"", *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", *headers, b"content-length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
