"""``servery-controller``: runs in a pod, or beside a kubeconfig."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence

import typer
import uvicorn
from servery_kube.client import connect
from servery_kube.leader import Election, lead
from servery_kube.port import KubeApi, KubeError
from servery_sdk import logs, plugins
from servery_sdk.plugins import Plugins

from servery_controller.admission import application
from servery_controller.assignments import Assignments
from servery_controller.callers import Anybody, TokenReviews
from servery_controller.controller import Controller
from servery_controller.metrics import FetchMetrics, exposed
from servery_controller.settings import Settings, load
from servery_controller.telling import serving


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM.

    Exits 1 when leadership is lost or no cluster answers, so that the pod starts again; 2 on wrong settings.
    """
    settings = load(sys.argv[1:] if arguments is None else arguments)
    logs.to_stderr()
    try:
        asyncio.run(serve(settings))
    except KubeError as error:
        typer.echo(str(error), err=True)
        sys.exit(1)


async def serve(settings: Settings) -> None:
    """Lead or wait to, until a signal comes."""
    installed = plugins.load()
    main_task = asyncio.current_task()
    assert main_task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main_task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        async with connect(settings.kubeconfig) as api, _endpoints(settings, installed):
            election = Election(
                name="servery-controller",
                namespace=settings.lease_namespace,
                identity=settings.identity,
                lease_seconds=settings.lease_seconds,
            )
            await lead(api, election, lambda: _control(api, installed, settings))


async def _control(api: KubeApi, installed: Plugins, settings: Settings) -> None:
    assignments, planned = Assignments(), settings.planning(installed)
    # Only the one that leads answers: agents ask again until they reach it.
    callers = TokenReviews(api, settings.assignments_audience) if settings.assignments_audience else Anybody()
    controller = Controller(api, installed, planned, workers=settings.workers, assignments=assignments)
    async with serving(assignments, f"0.0.0.0:{settings.assignments_port}", callers):
        with exposed(FetchMetrics(controller.model_pods)):
            await controller.run()


@contextlib.asynccontextmanager
async def _endpoints(settings: Settings, installed: Plugins) -> AsyncIterator[None]:
    server = uvicorn.Server(
        uvicorn.Config(
            application(installed, lambda: server.started),
            host="0.0.0.0",
            port=settings.http_port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ssl_certfile=settings.tls_cert,
            ssl_keyfile=settings.tls_key,
        )
    )
    # Signals are the process's own business.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve(), name="endpoints")
    try:
        yield
    finally:
        server.should_exit = True
        await task
