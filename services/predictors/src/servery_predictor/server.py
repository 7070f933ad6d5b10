"""Puts the parts together and runs them from the first probe to the last answer."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from collections.abc import Collection, Sequence
from socket import socket

from servery_http.front import no_application
from servery_http.limits import Limits
from servery_http.server import Server, bound, bound_path
from servery_sdk.model import Runtime
from servery_sdk.routes import Listener, Route, RpcService

from servery_predictor.dataplane import DataPlane
from servery_predictor.explaining import RemoteExplanations
from servery_predictor.extensions.ledger import Ledger
from servery_predictor.extensions.offered import Offered
from servery_predictor.factory import ModelFactory, Options
from servery_predictor.grpc_front import FastGrpcServer
from servery_predictor.grpc_server import GrpcServer
from servery_predictor.manners import events, manners, served
from servery_predictor.metrics import Metrics
from servery_predictor.repository import Repository
from servery_predictor.rest import HotRoutes, application
from servery_predictor.runtime_calls import RpcDoor, RpcDoorServer, rpc_doors
from servery_predictor.runtime_routes import Door, PlaneHost, Table, doors, metrics_route
from servery_predictor.settings import Settings

logger = logging.getLogger(__name__)


def data_plane(
    settings: Settings,
    runtime: Runtime,
    metrics: Metrics | None = None,
    *,
    options: Options | None = None,
    ledger: Ledger | None = None,
) -> DataPlane:
    """Return what answers requests under every server; its model is not loaded yet.

    Args:
        ledger: What several processes share; None for one alone.

    Raises:
        LoadError: The runtime's framework is not here, or the artifact does not say what it holds.
    """
    metrics = metrics or Metrics()
    offered = Offered(
        ledger or Ledger(), allows_shared_memory=settings.allow_client_shm, trace_file=settings.trace_file
    )
    repository = Repository(
        ModelFactory(runtime, options or {}, threads=settings.threads),
        metrics,
        max_batch_rows=settings.max_batch_rows,
        max_queue_requests=settings.max_queue_requests,
        timeout_seconds=settings.request_timeout_seconds,
        on_call=offered.tracer.called,
        workers=settings.workers,
    )
    if settings.multi_model_server:
        repository.hold(settings.model_dir)
    else:
        repository.add(settings.model_name, settings.model_dir)
    return DataPlane(repository, metrics, offered, allows_overrides=settings.allow_load_overrides)


_YOUNG_OBJECTS = 20_000


def settle() -> None:
    """Take what is loaded out of the garbage collector's sight, for the life of the process.

    A framework's modules and a model are a million objects that stay: each full collection would look at them again,
    which is a pause of 100 ms, and write to their pages, which forked workers share. What a turn of the loop makes
    is no garbage yet: the collector need not look after each 700 objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _grpc_server(
    plane: DataPlane, settings: Settings, services: Sequence[RpcService], *, is_shared: bool
) -> GrpcServer | FastGrpcServer:
    most, host, port = settings.max_body_bytes, settings.host, settings.grpc_port
    if settings.grpc_front == "grpcio":
        address = f"{host}:{port}"
        return GrpcServer(plane, address=address, max_message_bytes=most, is_shared=is_shared, services=services)
    return FastGrpcServer(plane, host=host, port=port, max_message_bytes=most, is_shared=is_shared, services=services)


class Predictor:
    """One process's server. Use ``run``, or ``start`` and ``stop`` inside another loop.

    Args:
        options: Of the runtime.
        listening: This process's socket of a port that it shares with others; then gRPC's port is shared as well.
        ledger: What it shares with them.
    """

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        metrics: Metrics | None = None,
        *,
        options: Options | None = None,
        listening: socket | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._settings = settings
        self.plane = data_plane(settings, runtime, metrics, options=options, ledger=ledger)
        self.repository = self.plane.repository
        listeners = self.repository.listeners(PlaneHost(self.plane, is_alone=listening is None))
        own, beside = self._routes(listeners)
        services, rpc_beside = self._services(listeners, beside)
        self._explanations = (
            RemoteExplanations(settings.explainer_host, timeout_seconds=settings.request_timeout_seconds)
            if settings.explainer_host
            else None
        )
        self.http = Server(
            HotRoutes(self.plane, events(settings), Table(own) if own else None, self._explanations),
            served(application(self.plane, own), settings),
            host=settings.host,
            port=settings.http_port,
            sock=listening,
            beside=[bound_path(settings.http_socket)] if settings.http_socket is not None else (),
            limits=Limits(max_body_bytes=settings.max_body_bytes),
            manners=manners(settings),
            drain_seconds=settings.drain_seconds,
        )
        is_shared = listening is not None
        self.doors = tuple(found for door in beside if (found := self._door(door, is_shared=is_shared)) is not None)
        self.rpc_doors = tuple(
            opened for door in rpc_beside if (opened := self._rpc_door(door, is_shared=is_shared)) is not None
        )
        self.grpc = _grpc_server(self.plane, settings, services, is_shared=is_shared) if settings.enable_grpc else None

    def _routes(self, listeners: Sequence[Listener]) -> tuple[tuple[Route, ...], tuple[Door, ...]]:
        settings = self._settings
        taken = (settings.grpc_port,) if settings.enable_grpc else ()
        return doors(listeners, host=settings.host, http_port=settings.http_port, taken=taken)

    def _door(self, door: Door, *, is_shared: bool) -> Server | None:
        settings = self._settings
        try:
            listening = bound(door.host, door.port, is_shared=is_shared)
        except OSError as error:
            # The model answers all the same, and what asks here is told by the refused connection.
            logger.warning("port of the runtime's own is not opened", extra={"port": door.port, "reason": str(error)})
            return None
        metrics = (metrics_route(self.plane),) if door.tells_metrics else ()
        return Server(
            HotRoutes(self.plane, events(settings), Table((*door.routes, *metrics))),
            served(no_application, settings, door.cross_origin),
            sock=listening,
            limits=Limits(max_body_bytes=settings.max_body_bytes),
            manners=manners(settings, door.cross_origin),
            drain_seconds=settings.drain_seconds,
        )

    def _services(
        self, listeners: Sequence[Listener], beside: Sequence[Door]
    ) -> tuple[tuple[RpcService, ...], tuple[RpcDoor, ...]]:
        settings = self._settings
        return rpc_doors(
            listeners,
            host=settings.host,
            grpc_port=settings.grpc_port if settings.enable_grpc else None,
            taken=(settings.http_port, *(door.port for door in beside)),
        )

    def _rpc_door(self, door: RpcDoor, *, is_shared: bool) -> RpcDoorServer | None:
        try:
            return RpcDoorServer(door, max_message_bytes=self._settings.max_body_bytes, is_shared=is_shared)
        except OSError as error:
            logger.warning("port of the runtime's own is not opened", extra={"port": door.port, "reason": str(error)})
            return None

    async def start(self) -> None:
        """Load, then listen: a probe that only opens the port, as KServe's default does, must not see a model half loaded.

        Raises:
            LoadError: The model cannot be served.
        """
        await self.load()
        await self.listen()

    async def load(self, *, without: Collection[str] = ()) -> None:
        """Load every model that the artifact brings, ``without`` some.

        Raises:
            LoadError: One cannot be served.
        """
        await self.repository.load_all(without=without)

    async def listen(self) -> None:
        """Accept requests; REST last, whose port probes ask: who hears that it is ready may call any other."""
        self.plane.offered.open()
        if self.grpc is not None:
            await self.grpc.start()
        for rpc_door in self.rpc_doors:
            await rpc_door.start()
        for server in (*self.doors, self.http):
            await server.start()

    async def stop(self) -> None:
        """Say not ready, finish what is in flight, unload."""
        self.plane.draining = True
        self.repository.watchers.tell()
        async with asyncio.TaskGroup() as group:
            for server in (self.http, *self.doors):
                group.create_task(server.stop(), name=f"http-stop-{server.port}")
            for door in self.rpc_doors:
                group.create_task(door.stop(self._settings.drain_seconds), name=f"grpc-stop-{door.port}")
            if self.grpc is not None:
                await self.grpc.set_ready(ready=False)
                group.create_task(self.grpc.stop(self._settings.drain_seconds), name="grpc-stop")
        await self.repository.close()
        await self.plane.offered.close()
        if self._explanations is not None:
            await self._explanations.close()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            LoadError: The model cannot be served.
        """
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, asked.set)
        starting = asyncio.create_task(self.start(), name="start")
        waiting = asyncio.create_task(asked.wait(), name="signal")
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            self.plane.metrics.workers.labels().set(1)
            settle()
            await waiting
        await starting
        await self.stop()
