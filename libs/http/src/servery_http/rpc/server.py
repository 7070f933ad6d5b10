"""A gRPC port: listens, drains, and leaves what it does not know to the server behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from servery_http.address import Address
from servery_http.rpc.calls import Handlers
from servery_http.rpc.front import CallLimits, RpcFront
from servery_http.server import bound

_BACKLOG = 2048
_CUT_SECONDS = 1.0


def server_tls(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """Return a context that speaks HTTP/2 and nothing else. Source: RFC 9113, 3.2 and 9.2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, private_key)
    context.set_alpn_protocols(["h2"])
    return context


class RpcServer:
    """Listens from ``start`` to ``stop``; its port is bound once it is made.

    Args:
        handlers: Of the calls that are answered here.
        upstream: Unix socket of the gRPC server that answers all others.
        is_shared: Whether other processes serve the same port.
        tls: As ``server_tls`` makes it; without it clients speak HTTP/2 with prior knowledge.
    """

    def __init__(
        self,
        handlers: Handlers,
        upstream: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        limits: CallLimits | None = None,
        is_shared: bool = False,
    ) -> None:
        self._handlers = handlers
        self._upstream = upstream
        self._tls = tls
        self._limits = limits or CallLimits()
        self._socket: socket.socket = bound(host, port, is_shared=is_shared)
        # Calls may be far apart, so that a client that is silent is not cut; one whose machine is gone must be, some day.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.port: int = self._socket.getsockname()[1]
        self._connections: set[RpcFront] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Return once it accepts connections."""
        self._server = await asyncio.get_running_loop().create_server(
            lambda: RpcFront(self._handlers, Address(path=self._upstream), self._limits, self._connections),
            sock=self._socket,
            ssl=self._tls,
            backlog=_BACKLOG,
        )

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more, finish what is in flight, close; what takes longer is cut."""
        if self._server is None:
            self._socket.close()
            return
        self._server.close()
        for connection in tuple(self._connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await self._gone()
        for connection in tuple(self._connections):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CUT_SECONDS):
                await self._gone()

    async def _gone(self) -> None:
        while self._connections:
            await next(iter(self._connections)).lost.wait()

    @contextlib.asynccontextmanager
    async def running(self, *, drain_seconds: float = 30.0) -> AsyncIterator[RpcServer]:
        """Start, and stop at the end of the block."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop(drain_seconds)
