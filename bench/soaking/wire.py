"""Connections of our own: a library's client neither hangs up in the middle nor says where it was left alone."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from servery_http.http2 import frames
from servery_http.http2.frames import Setting
from servery_http.http2.headers import encode

HOST = "127.0.0.1"
METHOD = "/inference.GRPCInferenceService/ModelInfer"
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing is a reset."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP response; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        """Whether the server said that it closes the connection."""
        return self.headers.get("connection") == "close"


class Wire:
    """One HTTP/1.1 connection, open inside ``async with``; an exception in the block cuts it off."""

    def __init__(self, port: int, *, receive_bytes: int | None = None) -> None:
        self._port = port
        self._receive_bytes = receive_bytes

    async def __aenter__(self) -> Self:
        made = socket.socket()
        made.setblocking(False)
        if self._receive_bytes is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
        try:
            await asyncio.get_running_loop().sock_connect(made, (HOST, self._port))
        except BaseException:
            made.close()
            raise
        self._socket = made
        self.reader, self.writer = await asyncio.open_connection(sock=made, limit=self._receive_bytes or 1 << 16)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    def hang_up(self, *, by_reset: bool) -> None:
        """Leave without a word: with a reset, or as a process that ends does."""
        if by_reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()

    async def send(self, data: bytes) -> None:
        """Send, as fast as the server reads."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, piece_seconds: float = 0.0) -> Answer:
        """Return the next response; with ``piece_seconds``, that long after each piece that was read.

        Raises:
            OSError, EOFError: The connection ended before it was complete.
        """
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        status = int(head[0].split(" ")[1])
        if status == 100:
            return await self.answer(piece_seconds=piece_seconds)
        left, pieces = int(headers["content-length"]), []
        while left:
            pieces.append(await self.reader.readexactly(min(left, 16 * 1024) if piece_seconds else left))
            left -= len(pieces[-1])
            await asyncio.sleep(piece_seconds)
        return Answer(status, headers, b"".join(pieces))


def request(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a POST with a length."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"POST {path} HTTP/1.1\r\nhost: soak\r\ncontent-length: {len(body)}\r\n{lines}\r\n".encode() + body


def chunked(path: str, body: bytes, headers: Mapping[str, str], piece: int) -> list[bytes]:
    """Return a POST as chunks, its head first and its end last."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: soak\r\ntransfer-encoding: chunked\r\n{lines}\r\n".encode()
    cut = [body[at : at + piece] for at in range(0, len(body), piece)]
    return [head, *(b"%x\r\n%b\r\n" % (len(one), one) for one in cut), b"0\r\n\r\n"]


_HEAD = encode(
    (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", METHOD.encode()),
        (b":authority", b"soak"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
)


class Call:
    """One gRPC call on a connection of its own, a frame at a time."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def begin(self) -> None:
        """Send all that comes before the message."""
        await self._wire.send(
            frames.PREFACE
            + frames.settings({Setting.INITIAL_WINDOW_SIZE: 2**31 - 1, Setting.HEADER_TABLE_SIZE: 0})
            + frames.headers(1, _HEAD, end=False)
        )

    async def say(self, data: bytes, *, end: bool = False) -> None:
        """Send a piece of the prefixed message."""
        await self._wire.send(frames.frame(frames.DATA, frames.END_STREAM if end else 0, 1, data))

    async def answer(self) -> bytes:
        """Return the message of the answer; empty where the call failed.

        Raises:
            OSError, EOFError: The connection or the call ended before its end.
        """
        found = b""
        while True:
            high, low, kind, flags, stream = frames.HEADER.unpack(
                await self._wire.reader.readexactly(frames.HEADER_BYTES)
            )
            payload = await self._wire.reader.readexactly(high << 16 | low)
            if kind == frames.DATA:
                found += payload
            elif kind == frames.SETTINGS and not flags & frames.ACK:
                await self._wire.send(frames.frame(frames.SETTINGS, frames.ACK, 0))
            elif kind == frames.PING and not flags & frames.ACK:
                await self._wire.send(frames.frame(frames.PING, frames.ACK, 0, payload))
            elif kind in {frames.GOAWAY, frames.RST_STREAM}:
                raise ConnectionError(f"the server ends it: {payload!r}")
            if stream == 1 and flags & frames.END_STREAM and kind in {frames.DATA, frames.HEADERS}:
                return found[5:]


def prefixed(message: bytes) -> bytes:
    """Return a message as gRPC sends it."""
    return struct.pack(">BI", 0, len(message)) + message
