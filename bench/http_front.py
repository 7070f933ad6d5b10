"""Requests per second of a hot route, beside the same answer from a raw ASGI application under uvicorn.

Both servers run in one go, each pinned to one core, the load on the others: ``python bench/http_front.py``.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time

import httptools

BODY = b'{"instances":[[6.8,2.8,4.8,1.4],[6.0,3.4,4.5,1.6]]}'


def serve(kind: str) -> None:
    """Answer with the body that came; print the port first."""
    import uvloop

    uvloop.run(_serve(kind))


async def _serve(kind: str) -> None:
    import uvicorn
    from servery_http.messages import Request, Response
    from servery_http.server import Server

    async def application(scope, receive, send):  # type: ignore[no-untyped-def]
        message = await receive()
        body = message["body"]
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def echo(request: Request) -> Response:
        return Response(200, request.body)

    server = Server((lambda _method, _path: echo) if kind != "uvicorn" else (lambda _method, _path: None), application)
    if kind == "uvicorn":
        # uvicorn's own protocol class under the same lifecycle: only the protocol differs.
        server.config = uvicorn.Config(
            application,
            http="httptools",
            loop="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
        )
    await server.start()
    print(server.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop()


class _Load(asyncio.Protocol):
    """One connection that keeps ``depth`` requests on their way."""

    def __init__(self, request: bytes, depth: int) -> None:
        self.request, self.depth, self.done = request, depth, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpResponseParser(self)
        transport.write(self.request * self.depth)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        before = self.done
        self.parser.feed_data(data)
        self.transport.write(self.request * (self.done - before))  # type: ignore[attr-defined]

    def on_message_complete(self) -> None:
        assert self.parser.get_status_code() == 200
        self.done += 1


async def _load(port: int, connections: int, depth: int, seconds: float) -> float:
    loop = asyncio.get_running_loop()
    request = b"POST /v1/models/m:predict HTTP/1.1\r\nhost: m\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
    clients = [
        (await loop.create_connection(lambda: _Load(request, depth), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(0.3)
    before, start = sum(client.done for client in clients), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (sum(client.done for client in clients) - before) / (time.perf_counter() - start)
    for client in clients:
        client.transport.abort()  # type: ignore[attr-defined]
    return rate


def measure(kind: str, core: int, others: set[int], connections: int, depth: int, seconds: float) -> float:
    """Return requests per second of one server, alone on ``core``."""
    import uvloop

    with subprocess.Popen(
        [sys.executable, __file__, "--serve", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port = int(server.stdout.readline())
        os.sched_setaffinity(0, others)
        rate = uvloop.run(_load(port, connections, depth, seconds))
        server.stdin.close()
        server.wait(10)
    return rate


def main() -> None:
    """Print the machine, the versions, the rates and their ratio."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--serve", choices=["front", "uvicorn"], help=argparse.SUPPRESS)
    flags.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    flags.add_argument("--connections", type=int, default=64)
    flags.add_argument("--rounds", type=int, default=3, help="front and uvicorn by turns; the median counts")
    options = flags.parse_args()
    if options.serve:
        serve(options.serve)
        return
    cores = sorted(os.sched_getaffinity(0))
    others = set(cores[1:]) or set(cores)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("uvicorn", "httptools", "uvloop"))
    print(f"{platform.machine()}, {len(cores)} cores, Python {platform.python_version()}, {versions}")
    print("server on one core; the load is our own, on the others, and may be what is measured when they are busy")
    for depth in (1, 8):
        rates: dict[str, list[float]] = {"uvicorn": [], "front": []}
        for _ in range(options.rounds):
            for kind, found in rates.items():
                found.append(measure(kind, cores[0], others, options.connections, depth, options.seconds))
        asgi, front = (statistics.median(rates[kind]) for kind in ("uvicorn", "front"))
        print(
            f"{options.connections} connections, {depth} in flight each: front {front:,.0f}/s, "
            f"uvicorn raw ASGI {asgi:,.0f}/s, ratio {front / asgi:.1f}"
        )


if __name__ == "__main__":
    main()
