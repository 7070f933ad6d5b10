"""A place where CloudEvents go by HTTP, in a test's hands: slow, refusing, down, back at the same port."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
_LIMIT_BYTES = 1024 * 1024


@dataclass
class EventSink:
    """What came, and what is answered to it.

    Attributes:
        events: Headers by their names in lower case, and bodies.
        counts: How often each event came, by id and the last word of its type.
        status: Of the next answers.
        pause_seconds: Before each answer.
    """

    events: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    status: int = 204
    pause_seconds: float = 0.0
    port: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_LIMIT_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Go away as a process does that is killed."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def until(self, count: int, seconds: float = 60) -> None:
        """Wait until so many different events have come."""
        async with asyncio.timeout(seconds):
            while len(self.counts) < count:
                self.grown.clear()
                await self.grown.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                raw = await reader.readuntil(b"\r\n\r\n")
                found = _LENGTH.search(raw)
                body = await reader.readexactly(int(found[1]) if found else 0)
                if self.pause_seconds:
                    await asyncio.sleep(self.pause_seconds)
                if self.status // 100 == 2:
                    lines = (line.partition(": ") for line in raw.decode("latin-1")[:-4].split("\r\n")[1:])
                    head = {name.lower(): value for name, _, value in lines}
                    self.events.append((head, body))
                    self.counts[head["ce-id"], head["ce-type"].rpartition(".")[2]] += 1
                self.grown.set()
                writer.write(b"HTTP/1.1 %d Said\r\ncontent-length: 0\r\n\r\n" % self.status)
        self._writers.discard(writer)
        writer.transport.abort()


@contextlib.asynccontextmanager
async def event_sink() -> AsyncIterator[EventSink]:
    sink = EventSink()
    await sink.up()
    try:
        yield sink
    finally:
        await sink.down()
