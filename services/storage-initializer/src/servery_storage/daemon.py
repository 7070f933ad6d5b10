"""``servery-storage serve``: the store, over a Unix socket and gRPC (``servery.storage.v1``)."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
from prometheus_client import start_http_server
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protos.servery.storage.v1 import storage_pb2 as pb
from servery_sdk.protos.servery.storage.v1 import storage_pb2_grpc as stubs
from servery_sdk.unix_sockets import grpc_target

from servery_storage.metrics import Metrics
from servery_storage.patterns import Patterns
from servery_storage.store import Store
from servery_storage.telling import Told

logger = logging.getLogger(__name__)

TELL_SECONDS = 0.25
"""Between two messages of one fetch."""
DRAIN_SECONDS = 5.0
_STATUS = {code: getattr(grpc.StatusCode, code.value, grpc.StatusCode.INTERNAL) for code in ErrorCode} | {
    ErrorCode.NOT_READY: grpc.StatusCode.FAILED_PRECONDITION,
}


class StorageService(stubs.StorageServicer):
    """Answers the calls."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics

    async def Fetch(  # noqa: N802  # the proto's name
        self, request: pb.FetchRequest, context: grpc.aio.ServicerContext[pb.FetchRequest, pb.FetchProgress]
    ) -> AsyncIterator[pb.FetchProgress]:
        """Bring a model; a client that goes away ends it, and what came is taken up by the next."""
        told, code = Told(tells_files=request.tell_files), "CANCELLED"
        self._metrics.begin()
        patterns = Patterns(tuple(request.allow_patterns), tuple(request.ignore_patterns))
        running = asyncio.create_task(
            self._store.fetch(request.name, request.uri, told, patterns), name=f"fetch-{request.name}"
        )
        try:
            while not running.done():
                await asyncio.wait([running], timeout=TELL_SECONDS)
                if not running.done():
                    yield told.message()
            path = running.result()
            code = "OK"
        except ServeryError as error:
            code = error.code.value
            logger.warning("fetch failed", extra={"model": request.name, "reason": str(error)})
            await context.abort(_STATUS[error.code], str(error))
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError, ServeryError):
                await running
            self._metrics.end(code, told.report())
        logger.info("model fetched", extra={"model": request.name, "uri": request.uri})
        while told.has_more:
            yield told.message()
        yield told.message(path)

    async def Release(  # noqa: N802
        self, request: pb.ReleaseRequest, context: grpc.aio.ServicerContext[pb.ReleaseRequest, pb.ReleaseResponse]
    ) -> pb.ReleaseResponse:
        """Let a model go."""
        try:
            self._store.release(request.name, remove=request.remove)
        except ServeryError as error:
            await context.abort(_STATUS[error.code], str(error))
        return pb.ReleaseResponse()

    async def List(  # noqa: N802
        self, request: pb.ListRequest, context: grpc.aio.ServicerContext[pb.ListRequest, pb.ListResponse]
    ) -> pb.ListResponse:
        """Tell what is there."""
        models = [
            pb.StoredModel(
                name=model.name,
                uri=model.uri,
                path=str(self._store.root / model.name),
                size_bytes=model.size_bytes,
                is_held=model.is_held,
            )
            for model in self._store.models()
        ]
        return pb.ListResponse(models=models, quota_bytes=self._store.quota_bytes, used_bytes=self._store.used_bytes)


async def serve(store: Store, socket: Path, metrics_address: tuple[str, int] | None = None) -> None:
    """Answer until SIGTERM or SIGINT; then let running fetches go on for a moment, which the next start takes up.

    Args:
        metrics_address: Host and port where Prometheus finds ``/metrics``; None is nowhere.
    """
    metrics = Metrics(store)
    with _scraped(metrics, metrics_address):
        await _serve(store, metrics, socket)


@contextmanager
def _scraped(metrics: Metrics, address: tuple[str, int] | None) -> Iterator[None]:
    if address is None:
        yield
        return
    host, port = address
    server, thread = start_http_server(port, addr=host, registry=metrics.registry)
    logger.info("metrics served", extra={"port": server.server_port})
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def _serve(store: Store, metrics: Metrics, socket: Path) -> None:
    server = grpc.aio.server()
    stubs.add_StorageServicer_to_server(StorageService(store, metrics), server)  # type: ignore[no-untyped-call]  # generated
    socket.parent.mkdir(parents=True, exist_ok=True)
    server.add_insecure_port(grpc_target(socket))
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await server.start()
    logger.info("serving", extra={"socket": str(socket), "models": len(store.models())})
    await ended.wait()
    await server.stop(DRAIN_SECONDS)
