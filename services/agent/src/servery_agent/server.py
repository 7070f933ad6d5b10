"""Puts the parts together and runs them from the first probe to the last answer."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace

from servery_http.address import Address
from servery_http.gateway.gate import Gate
from servery_http.gateway.limits import GatewayLimits
from servery_http.gateway.routes import Route
from servery_http.gateway.server import Gateway
from servery_http.messages import Request, Response
from servery_http.rpc.calls import Handlers
from servery_http.rpc.watching import watch_none

from servery_agent.batcher.front import Batcher
from servery_agent.batcher.policy import BatchLimits
from servery_agent.batcher.watched import watched
from servery_agent.beside import Beside
from servery_agent.metrics import Metrics
from servery_agent.own import Own
from servery_agent.payloads.log import PayloadLog
from servery_agent.puller.pulling import Pulling
from servery_agent.readiness import Readiness, probe_of
from servery_agent.settings import Settings

logger = logging.getLogger(__name__)

_METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
_YOUNG_OBJECTS = 20_000
_OWN_DRAIN_SECONDS = 1.0


class Agent:
    """One process's front. Made inside a running loop; use ``run``, or ``start`` and ``stop``.

    Raises:
        WrongProbe: The readiness probe is none.
        Permanent: The payload log's folder is another agent's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.metrics = Metrics()
        port = settings.component_port
        component = Address(settings.component_host, port, settings.component_socket)
        http2 = Address(settings.component_host, settings.component_grpc_port or port)
        readiness = None
        if settings.serving_readiness_probe:
            readiness = Readiness(probe_of(settings.serving_readiness_probe), Address(settings.component_host, port))
        gate = Gate(settings.container_concurrency or None, settings.max_queue_requests)
        self.batcher = None
        if settings.enable_batcher:
            self.batcher = Batcher(
                _batch_limits(settings), rpc_upstream=http2, gate=gate, queue_seconds=settings.queue_timeout_seconds
            )
        self.log = PayloadLog(settings) if settings.log_url else None
        self.pulling = None
        if settings.enable_puller:
            self.pulling = pulling = Pulling(settings)
            self.metrics.models = lambda: (told.state for told in pulling.told)
        self.gateway = Gateway(
            component,
            host=settings.host,
            port=settings.port,
            rpc_upstream=http2,
            routes=self._passing,
            handlers={} if self.batcher is None else self._handlers(self.batcher),
            watch_call=watch_none if self.log is None else self.log.capture.watch_call,
            gate=gate,
            limits=GatewayLimits(
                max_body_bytes=settings.max_body_bytes,
                max_connections=settings.max_connections,
                read_seconds=settings.client_timeout_seconds,
                queue_seconds=settings.queue_timeout_seconds,
                answer_seconds=settings.answer_timeout_seconds or None,
                idle_seconds=settings.idle_timeout_seconds or None,
            ),
            is_ready=readiness if self.pulling is None else _with_models(readiness, self.pulling),
            observe=self.metrics.observe,
            observe_call=self.metrics.observe_call,
        )
        self.metrics.gateway = self.gateway
        if self.batcher is not None:
            self.batcher.asks(self.gateway.ask)
            self.metrics.batches = self.batcher.counts
        self.metrics.log = self.log
        self._beside = Beside(settings)
        self._own = Own(self.gateway, self.metrics, self._tell_metrics, host=settings.host, port=settings.metrics_port)

    @property
    def metrics_port(self) -> int:
        """Port of ``/metrics``, and of ``servery.agent.v1``."""
        return self._own.port

    def _handlers(self, batcher: Batcher) -> Handlers:
        if self.log is None:
            return batcher.handlers
        return {path: watched(headed, self.log.capture.watch_call) for path, headed in batcher.handlers.items()}

    def _passing(self, method: str, path: str) -> Route | None:
        """Return what is done with a request on its way: batched, logged, both, or nothing."""
        route = None if self.batcher is None else self.batcher.route(method, path)
        if self.log is None:
            return route
        return replace(route or Route(), watch=self.log.capture.watch)

    async def _tell_metrics(self, _request: Request) -> Response:
        return Response(200, await self._beside.page(self.metrics), _METRICS_TYPE)

    async def start(self) -> None:
        """Return once it accepts connections."""
        if self.log is not None:
            await self.log.start()
        await self._own.start()
        await self.gateway.start()
        if self.pulling is not None:
            self.pulling.start()

    async def stop(self) -> None:
        """Say not ready, finish what is in flight, close."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.drain_seconds
        if self.pulling is not None:
            await self.pulling.stop()
        await self.gateway.stop(self._settings.drain_seconds)
        if self.batcher is not None:
            self.batcher.close()
        if self.log is not None:
            await self.log.stop(deadline - loop.time())
        await self._own.stop(_OWN_DRAIN_SECONDS)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and to the end of the last request."""
        asked = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, asked.set)
        _allow_many_connections()
        await self.start()
        # What is loaded stays: the collector need not look at it again, nor after each 700 objects of a busy loop.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_YOUNG_OBJECTS)
        logger.info("agent listens", extra={"port": self.gateway.port, "component": str(self.gateway.pool.address)})
        await asked.wait()
        logger.info("agent drains", extra={"requests": self.gateway.gate.inside})
        await self.stop()


def _batch_limits(settings: Settings) -> BatchLimits:
    # What is not positive is KServe's default, there as here.
    default = BatchLimits()
    return BatchLimits(
        max_rows=settings.max_batchsize if settings.max_batchsize > 0 else default.max_rows,
        max_wait_seconds=settings.max_latency / 1000 if settings.max_latency > 0 else default.max_wait_seconds,
        timeout_seconds=settings.batch_timeout_seconds or None,
        busy_batches=settings.busy_batches,
        max_requests=settings.max_queue_requests,
    )


def _with_models(readiness: Readiness | None, pulling: Pulling) -> Callable[[], Awaitable[bool]]:
    """Return what asks ``readiness`` once the first models are there."""

    async def is_ready() -> bool:
        return pulling.is_settled and (readiness is None or await readiness())

    return is_ready


def _allow_many_connections() -> None:
    # The usual bound, 1024, is for programs that use select.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
