"""Puts the parts together and runs them from the first probe to the last answer."""

from __future__ import annotations

import asyncio
import signal

from servery_http.limits import Limits
from servery_http.server import Server
from servery_sdk.model import Runtime

from servery_predictor.dataplane import DataPlane
from servery_predictor.grpc_server import GrpcServer
from servery_predictor.metrics import Metrics
from servery_predictor.repository import Options, Repository, model_factory
from servery_predictor.rest import HotRoutes, application
from servery_predictor.settings import Settings


def data_plane(
    settings: Settings, runtime: Runtime, metrics: Metrics | None = None, *, options: Options | None = None
) -> DataPlane:
    """Return what answers requests under every server; its model is not loaded yet.

    Raises:
        LoadError: The runtime's framework is not here.
    """
    metrics = metrics or Metrics()
    repository = Repository(
        model_factory(runtime, options or {}),
        metrics,
        max_batch_rows=settings.max_batch_rows,
        max_queue_requests=settings.max_queue_requests,
    )
    repository.add(settings.model_name, settings.model_dir)
    return DataPlane(repository, metrics, timeout_seconds=settings.request_timeout_seconds)


class Predictor:
    """One process's server. Use ``run``, or ``start`` and ``stop`` inside another loop."""

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        metrics: Metrics | None = None,
        *,
        options: Options | None = None,
    ) -> None:
        self._settings = settings
        self.plane = data_plane(settings, runtime, metrics, options=options)
        self.repository = self.plane.repository
        self.http = Server(
            HotRoutes(self.plane),
            application(self.plane),
            host=settings.host,
            port=settings.http_port,
            limits=Limits(max_body_bytes=settings.max_body_bytes),
            drain_seconds=settings.drain_seconds,
        )
        self.grpc = (
            GrpcServer(
                self.plane, host=settings.host, port=settings.grpc_port, max_message_bytes=settings.max_body_bytes
            )
            if settings.enable_grpc
            else None
        )

    async def start(self) -> None:
        """Load, then listen: a probe that only opens the port, as KServe's default does, must not see a model half loaded.

        Raises:
            LoadError: The model cannot be served.
        """
        await self.repository.load(self._settings.model_name)
        await self.http.start()
        if self.grpc is not None:
            await self.grpc.start()

    async def stop(self) -> None:
        """Say not ready, finish what is in flight, unload."""
        self.plane.draining = True
        async with asyncio.TaskGroup() as group:
            group.create_task(self.http.stop(), name="http-stop")
            if self.grpc is not None:
                await self.grpc.set_ready(ready=False)
                group.create_task(self.grpc.stop(self._settings.drain_seconds), name="grpc-stop")
        await self.repository.close()

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
            await waiting
        await starting
        await self.stop()
