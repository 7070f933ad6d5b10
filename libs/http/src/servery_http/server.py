"""A uvicorn server that starts and stops inside somebody else's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from servery_http.front import front, no_application
from servery_http.limits import Limits
from servery_http.manners import Manner
from servery_http.messages import Router


class Server(uvicorn.Server):
    """Listens from ``start`` to ``stop``; signals stay the caller's.

    Args:
        hot: Routes answered before ASGI.
        app: Answers all others.
        sock: Bound already; instead of ``host`` and ``port``.
        beside: More sockets that are bound already, such as ``bound_path``'s.
        certificate: PEM; with it, and ``private_key``, the server speaks TLS.
        manners: Of hot routes, the first outermost.
        drain_seconds: How long ``stop`` waits for what is in flight.
    """

    def __init__(
        self,
        hot: Router,
        app: Any = no_application,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        sock: socket.socket | None = None,
        beside: Iterable[socket.socket] = (),
        certificate: Path | None = None,
        private_key: Path | None = None,
        limits: Limits | None = None,
        manners: Iterable[Manner] = (),
        drain_seconds: float = 30.0,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=front(hot, limits, manners),
                loop="none",
                lifespan="off" if app is no_application else "auto",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=drain_seconds,  # type: ignore[arg-type]  # goes to wait_for, which takes any
                ssl_certfile=certificate,
                ssl_keyfile=private_key,
            )
        )
        self._socket = sock or bound(host, port)
        self._sockets = [self._socket, *beside]
        self.host = self._socket.getsockname()[0] if sock else host
        self.port: int = self._socket.getsockname()[1]
        self._task: asyncio.Task[None] | None = None
        self._started = asyncio.Event()

    @property
    def url(self) -> str:
        """Where it listens, ``http://127.0.0.1:8080``."""
        return f"{'https' if self.config.is_ssl else 'http'}://{self.host}:{self.port}"

    async def start(self) -> None:
        """Return once it accepts connections.

        Raises:
            RuntimeError: The application refused to start.
        """
        self._task = asyncio.create_task(self.serve(sockets=self._sockets), name=f"http-server-{self.port}")
        started = asyncio.create_task(self._started.wait())
        await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if not self._started.is_set():
            raise RuntimeError(f"the HTTP server on port {self.port} did not start")

    async def stop(self) -> None:
        """Accept no more, finish what is in flight, close."""
        self.should_exit = True
        if self._task is not None:
            await self._task

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell ``start`` once uvicorn listens."""
        await super().startup(sockets)
        if self.started:
            self._started.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain as uvicorn does, then cut what would not end: nothing outlives the bound."""
        await self._accept_the_rest()
        await super().shutdown(sockets)
        if tasks := {task for task in self.server_state.tasks if isinstance(task, asyncio.Future)}:
            await asyncio.wait(tasks, timeout=1.0)
        for connection in list(self.server_state.connections):
            connection.abort()  # type: ignore[union-attr]  # all are ours

    async def _accept_the_rest(self) -> None:
        # The system has accepted connections that we have not: it resets them when their listener is closed.
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as stack:
            listeners = [stack.enter_context(listening.dup()) for listening in self._sockets]
            for server in self.servers:
                server.close()
            for listener in listeners:
                listener.setblocking(False)
                with contextlib.suppress(OSError):
                    while True:
                        connection, _ = listener.accept()
                        await loop.connect_accepted_socket(self._connection, connection, ssl=self.config.ssl)

    def _connection(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # ours
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process's own main."""
        yield

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        """Start, and stop at the end of the block."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop()


def bound(host: str, port: int, *, is_shared: bool = False) -> socket.socket:
    """Return a socket that has its port, and does not listen yet; port 0 takes a free one.

    Args:
        is_shared: Whether other processes may have it too, and the kernel deals connections out among them.

    Raises:
        OSError: Somebody has the port.
    """
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def bound_path(path: Path) -> socket.socket:
    """Return a Unix socket at ``path`` that does not listen yet, and that every user may connect to.

    One that a process before us has left there is replaced.

    Raises:
        OSError: There is something else, or no place for it.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(str(path))
        # Who may enter the folder may ask: a sidecar runs as another user, and the port is open to all as well.
        path.chmod(0o666)
    except OSError:
        made.close()
        raise
    return made
