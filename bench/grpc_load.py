"""One client process of ``grpc_front.py`` and ``predictor.py``: the latency of each answer, in seconds, to standard output.

Doubles as they are in memory. It imports little, for three of them start for each figure.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import sys
import time
from array import array
from pathlib import Path

import uvloop
from servery_http.http2 import frames
from servery_http.http2.frames import Setting
from servery_http.http2.headers import encode

METHOD = b"/inference.GRPCInferenceService/ModelInfer"
HEAD = encode(
    (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", METHOD),
        (b":authority", b"bench"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"grpc-bench"),
    )
)


class Asker(asyncio.Protocol):
    """One connection that calls again as soon as it is answered."""

    def __init__(self, request: bytes, size: int, latencies: list[float]) -> None:
        self._request, self._size, self._latencies = request, size, latencies
        self._buffer = b""
        self._next = 1
        self._received = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream's transport
        large = 2**31 - 1
        settings = frames.settings({Setting.INITIAL_WINDOW_SIZE: large, Setting.HEADER_TABLE_SIZE: 0})
        room = frames.window_update(0, large - frames.DEFAULT_WINDOW_BYTES)
        transport.write(frames.PREFACE + settings + room)  # type: ignore[attr-defined]  # likewise

    def ask(self) -> None:
        """Send a call, and another whenever one is answered."""
        self._received = 0
        self._asked = time.perf_counter()
        self._transport.write(
            frames.headers(self._next, HEAD, end=False)
            + frames.frame(frames.DATA, frames.END_STREAM, self._next, self._request)
        )
        self._next += 2

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        at = 0
        while len(buffer) - at >= frames.HEADER_BYTES:
            high, low, kind, flags, _ = frames.HEADER.unpack_from(buffer, at)
            end = at + frames.HEADER_BYTES + (high << 16 | low)
            if end > len(buffer):
                break
            payload, at = buffer[at + frames.HEADER_BYTES : end], end
            if kind == frames.DATA:
                self._received += len(payload)
            elif kind == frames.HEADERS and flags & frames.END_STREAM:
                if self._received != self._size:
                    raise SystemExit(f"an answer of {self._received} bytes in place of {self._size}: {payload!r}")
                self._latencies.append(time.perf_counter() - self._asked)
                self.ask()
            elif kind == frames.SETTINGS and not flags & frames.ACK:
                self._transport.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
            elif kind == frames.PING and not flags & frames.ACK:
                self._transport.write(frames.frame(frames.PING, frames.ACK, 0, payload))
            elif kind in {frames.GOAWAY, frames.RST_STREAM}:
                raise SystemExit(f"the server ends it: {payload!r}")
        self._buffer = buffer[at:]


async def ask(port: int, request: bytes, size: int, connections: int, seconds: float) -> list[float]:
    """Return the latency in seconds of each answer."""
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    prefixed = struct.pack(">BI", 0, len(request)) + request
    made = [
        await loop.create_connection(lambda: Asker(prefixed, size, latencies), "127.0.0.1", port)
        for _ in range(connections)
    ]
    for _, asker in made:
        asker.ask()
    await asyncio.sleep(seconds)
    answered = latencies[:]
    for transport, _ in made:
        transport.abort()
    return answered


def main() -> None:
    """Ask, then tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--request", type=Path, required=True, help="a file that holds the message")
    parser.add_argument("--size", type=int, required=True, help="of each answer, its prefix with it")
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    request = options.request.read_bytes()
    latencies = uvloop.run(ask(options.port, request, options.size, options.connections, options.seconds))
    sys.stdout.buffer.write(array("d", latencies).tobytes())


if __name__ == "__main__":
    main()
