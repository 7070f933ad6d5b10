"""The agent's own port: ``/metrics`` for whoever scrapes, ``servery.agent.v1`` for whoever asks what is with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from google.protobuf.message import DecodeError
from servery_http.front import error
from servery_http.gateway.routes import Route
from servery_http.gateway.server import Gateway
from servery_http.messages import Request, Response
from servery_http.rpc.calls import Done, Failure, Status
from servery_sdk.protos.servery.agent.v1 import agent_pb2 as pb

from servery_agent.metrics import Metrics
from servery_agent.stats import payload_log_of, stats_of

logger = logging.getLogger(__name__)

SERVICE = "/servery.agent.v1.Agent"
_TURN_SECONDS = 0.05
"""How often a drain looks; what comes and goes in between is seen by what it is counted as."""


class Own:
    """Of one agent. Made inside a running loop.

    Args:
        front: Whose numbers are told, and which drains.
        tell_metrics: Answers ``/metrics``.
    """

    def __init__(
        self,
        front: Gateway,
        metrics: Metrics,
        tell_metrics: Callable[[Request], Awaitable[Response]],
        *,
        host: str,
        port: int,
    ) -> None:
        self._front, self._metrics = front, metrics
        self._tell_metrics = tell_metrics
        self._drains: set[asyncio.Task[None]] = set()
        self._gateway = Gateway(
            None,
            host=host,
            port=port,
            routes=self._route,
            handlers={f"{SERVICE}/Stats".encode(): self._stats},
            near_handlers={f"{SERVICE}/Drain".encode(): self._drain},
        )

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._gateway.port

    async def start(self) -> None:
        """Return once it accepts connections."""
        await self._gateway.start()

    async def stop(self, drain_seconds: float) -> None:
        """Close, with what is asked at the moment answered."""
        await self._gateway.stop(drain_seconds)

    def _route(self, method: str, path: str) -> Route:
        is_metrics = path == "/metrics" and method in {"GET", "HEAD"}
        return Route(answer=self._tell_metrics if is_metrics else _nothing_here)

    def _stats(self, _message: bytes, done: Done) -> None:
        families = list(self._metrics.collect())
        stats = stats_of(families)
        if self._metrics.log is not None:
            stats.payload_log.CopyFrom(payload_log_of(families))
        done(stats.SerializeToString())

    def _drain(self, message: bytes, done: Done) -> Callable[[], None]:
        try:
            asked = pb.DrainRequest.FromString(message)
        except DecodeError as wrong:
            raise Failure(Status.INVALID_ARGUMENT, f"this is no DrainRequest: {wrong}") from wrong
        if asked.quiet_seconds < 0 or asked.most_seconds < 0:
            raise Failure(Status.INVALID_ARGUMENT, "quiet_seconds and most_seconds are 0 or more")
        logger.info("agent leaves", extra={"requests": self._front.busy})
        self._front.retire()
        draining = asyncio.create_task(self._drained(asked, done), name="agent-drain")
        self._drains.add(draining)
        draining.add_done_callback(self._drains.discard)
        return partial(_given_up, draining)

    async def _drained(self, asked: pb.DrainRequest, done: Done) -> None:
        loop = asyncio.get_running_loop()
        began = quiet_since = loop.time()
        counted = self._metrics.counted
        while True:
            now = loop.time()
            busy = self._front.busy
            if busy or self._metrics.counted != counted:
                quiet_since, counted = now, self._metrics.counted
            is_late = asked.most_seconds and now - began >= asked.most_seconds
            if (not busy and now - quiet_since >= asked.quiet_seconds) or is_late:
                done(pb.DrainReply(left=busy).SerializeToString())
                return
            await asyncio.sleep(_TURN_SECONDS)


def _given_up(draining: asyncio.Task[None]) -> None:
    draining.cancel()


def _nothing_here(request: Request) -> Response:
    return error(404, f"{request.method} {request.path}: there is /metrics here, and gRPC's servery.agent.v1.Agent")
