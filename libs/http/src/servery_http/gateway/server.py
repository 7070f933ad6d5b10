"""A port whose requests pass by: listens, counts, drains."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from servery_http.address import Address
from servery_http.front import error
from servery_http.gateway.asking import Asking
from servery_http.gateway.downstream import Downstream
from servery_http.gateway.gate import Gate
from servery_http.gateway.heads import Known, RequestHead
from servery_http.gateway.limits import GatewayLimits
from servery_http.gateway.routes import Routes, pass_all
from servery_http.gateway.upstream import Pool
from servery_http.messages import Later, Request, Response
from servery_http.rpc.calls import Done, Failure, Handlers, Status
from servery_http.rpc.front import CallLimits, ObserveCall, RpcFront
from servery_http.rpc.watching import WatchCall, watch_none
from servery_http.server import bound

_BACKLOG = 4096
_SWEEP_SECONDS = 0.25
_CUT_SECONDS = 1.0
_PROBE = b"queue"


def _unobserved(_status: int, _seconds: float) -> None:
    pass


class Gateway:
    """Passes requests on to ``upstream`` from ``start`` to ``stop``. Made inside a running loop.

    HTTP/2 with prior knowledge is understood on the same port: calls that ``handlers`` has are answered here, all other
    streams go on to ``rpc_upstream``, frame by frame, through the same gate.

    Args:
        upstream: None where ``routes`` answer everything and ``handlers`` are all calls.
        rpc_upstream: Where HTTP/2 goes; ``upstream`` without.
        sock: Bound already; instead of ``host`` and ``port``.
        routes: What else is done with which requests.
        near_handlers: Handlers of calls from this machine, or this pod; from elsewhere they are PERMISSION_DENIED.
        watch_call: Makes the watcher of a call that goes on to ``rpc_upstream``.
        gate: Bounds what is with ``upstream`` at once.
        is_ready: Asked when a client says ``K-Network-Probe: queue``; without, whoever is not draining is ready.
        observe: Told the status and the seconds of each exchange; 499 where the client did not wait.
        observe_call: Likewise of each call over HTTP/2, by the name of its status.

    Attributes:
        is_leaving: ``retire`` was called, or ``stop``.
        is_draining: ``stop`` was called.
    """

    def __init__(
        self,
        upstream: Address | None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        sock: socket.socket | None = None,
        rpc_upstream: Address | None = None,
        routes: Routes = pass_all,
        handlers: Handlers | None = None,
        near_handlers: Handlers | None = None,
        watch_call: WatchCall = watch_none,
        gate: Gate | None = None,
        limits: GatewayLimits | None = None,
        is_ready: Callable[[], Awaitable[bool]] | None = None,
        observe: Callable[[int, float], None] = _unobserved,
        observe_call: ObserveCall | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.limits = limits or GatewayLimits()
        self.gate = gate or Gate()
        self.pool = Pool(upstream or Address(), connect_seconds=self.limits.connect_seconds)
        self.known: Known[RequestHead] = Known(self._read)
        self._known_own: Known[RequestHead] = Known(RequestHead)
        self.observe = observe
        self.is_leaving = False
        self.is_draining = False
        self._observe_call = observe_call
        self._call_limits = CallLimits(queue_seconds=self.limits.queue_seconds)
        self._rpc_upstream = rpc_upstream or upstream
        self._routes = routes
        near = near_handlers or {}
        self._handlers: Handlers = {**(handlers or {}), **dict.fromkeys(near, _denied)}
        self._near_handlers: Handlers = {**self._handlers, **near}
        self._watch_call = watch_call
        self._is_ready = is_ready
        self._socket = sock or _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._connections: set[Downstream] = set()
        self._rpc: set[RpcFront] = set()
        self._bits = random.Random(random.SystemRandom().getrandbits(128)).getrandbits  # noqa: S311  # ids are unique, not secret
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._left = asyncio.Event()

    # What connections ask.

    def _read(self, raw: bytes) -> RequestHead:
        head = RequestHead(raw)
        head.route = self._routes(head.method, head.path)
        return head

    def new_id(self) -> bytes:
        """Return an id for a request that brought none."""
        return b"%032x" % self._bits(128)

    def enter(self, connection: Downstream) -> bool:
        """Count a connection; return whether it may stay."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.max_connections

    def leave(self, connection: Downstream) -> None:
        """Count a connection no more."""
        self._connections.discard(connection)
        self._left.set()

    def readiness(self, probe: bytes) -> Response | Awaitable[Response]:
        """Return the answer to a probe. Source: Knative pkg/queue/health, ``ProbeHandler``."""
        if probe != _PROBE:
            return error(400, f"unexpected probe header value: {probe.decode('latin-1')!r}")
        if self.is_leaving:
            return error(503, "the agent is shutting down")
        if self._is_ready is None:
            return Response(200, _PROBE, b"text/plain")
        return self._probed(self._is_ready)

    @staticmethod
    async def _probed(is_ready: Callable[[], Awaitable[bool]]) -> Response:
        return Response(200, _PROBE, b"text/plain") if await is_ready() else error(503, "the predictor is not ready")

    def switch_to_http2(self, connection: Downstream, transport: asyncio.Transport, data: bytes) -> None:
        """Give a connection that begins as HTTP/2 does to who speaks it."""
        front = RpcFront(
            self._near_handlers if _is_near(transport) else self._handlers,
            self._rpc_upstream,
            self._call_limits,
            self._rpc,
            relays_all=True,
            watch=self._watch_call,
            gate=self.gate,
            observe=self._observe_call,
        )
        self.leave(connection)
        transport.set_protocol(front)
        front.connection_made(transport)
        front.data_received(data)
        if self.is_draining:
            front.shutdown()

    def ask(self, request: Request, body: Sequence[bytes | memoryview] = ()) -> Later:
        """Return the answer to come of the server behind, as a whole; for what answers requests that it has read whole.

        ``body`` is instead of the request's own, in pieces that need not be put together.

        Its way is that of any request: through the gate, on a connection that waits. What fails is an answer with its
        status: 429, 502, 503, 504.
        """
        return Asking(self.pool, self.gate, request, self.limits, self._known_own, body or (request.body,))

    # Life.

    @property
    def connections(self) -> int:
        """Clients' connections that are open."""
        return len(self._connections) + len(self._rpc)

    @property
    def busy(self) -> int:
        """Requests and calls that have no whole answer yet, those that wait included."""
        return sum(not one.is_idle for one in self._connections) + sum(front.calls for front in self._rpc)

    def retire(self) -> None:
        """Say not ready, and have clients go elsewhere as their answers come; what still comes is answered."""
        self.is_leaving = True
        for front in tuple(self._rpc):
            front.shutdown()

    async def start(self) -> None:
        """Return once it accepts connections."""
        self._server = await self.loop.create_server(lambda: Downstream(self), sock=self._socket, backlog=_BACKLOG)
        self._sweep()

    def _sweep(self) -> None:
        # One timer for all connections: ten thousand that wait cost a millisecond a second, and a request costs none.
        now = self.loop.time()
        for connection in [connection for connection in self._connections if connection.deadline < now]:
            connection.on_late()
        self.pool.sweep(now)
        self._sweeper = self.loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more, finish what is in flight, close: done when the last request is, or the time is over."""
        self.is_leaving = self.is_draining = True
        if self._server is None:
            self._socket.close()
            return
        await self._accept_the_rest(self._server)
        for connection in tuple(self._connections):
            connection.shutdown()
        for front in tuple(self._rpc):
            front.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                await self._gone()
        for connection in tuple(self._connections):
            connection.abort()
        for front in tuple(self._rpc):
            front.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CUT_SECONDS):
                await self._gone()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.pool.close()

    async def _gone(self) -> None:
        while self._connections:
            self._left.clear()
            await self._left.wait()
        while self._rpc:
            await next(iter(self._rpc)).lost.wait()

    async def _accept_the_rest(self, server: asyncio.Server) -> None:
        # The system has accepted connections that we have not: it resets them when their listener is closed.
        with self._socket.dup() as listener:
            listener.setblocking(False)
            server.close()
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    await self.loop.connect_accepted_socket(lambda: Downstream(self), connection)

    @contextlib.asynccontextmanager
    async def running(self, *, drain_seconds: float = 30.0) -> AsyncIterator[Gateway]:
        """Start, and stop at the end of the block."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop(drain_seconds)


def _denied(_message: bytes, _done: Done) -> None:
    raise Failure(Status.PERMISSION_DENIED, "this is done for callers in the same pod alone")


def _is_near(transport: asyncio.Transport) -> bool:
    """Return whether the caller is on this machine, or in the network of this pod."""
    caller, here = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not isinstance(caller, tuple):
        return True
    address = str(caller[0]).removeprefix("::ffff:")
    return address == "::1" or address.startswith("127.") or caller[0] == here[0]


def _bound(host: str, port: int) -> socket.socket:
    listening = bound(host, port)
    # A client whose machine is gone says nothing; it must be noticed some day.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return listening
