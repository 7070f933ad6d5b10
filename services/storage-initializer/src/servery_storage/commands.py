"""``servery-storage``: the storage initializer as a daemon, and by hand."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from servery_sdk import logs, plugins

from servery_storage import sums
from servery_storage.daemon import serve as served
from servery_storage.engine import Engine
from servery_storage.settings import Settings
from servery_storage.store import Store
from servery_storage.trust import trust_mounted_bundle

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Models on this node.")


@app.callback()
def main() -> None:
    """Models on this node."""


@app.command("sum")
def write_sums(
    directory: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="The model's folder.")],
) -> None:
    """Write SHA256SUMS into a model's folder: a fetch then sees that each file is what it was."""
    typer.echo(sums.write(directory))


@app.command()
def serve(
    socket: Annotated[Path, typer.Option(help="The Unix socket that answers servery.storage.v1.")],
    root: Annotated[Path, typer.Option(help="The folder that the models are put below.")],
    quota_bytes: Annotated[int, typer.Option(help="Of all models together; 0 is no bound.")] = 0,
    metrics_host: Annotated[str, typer.Option(help="Address of /metrics.")] = "0.0.0.0",  # of a pod
    metrics_port: Annotated[int | None, typer.Option(help="Port of /metrics; none serves none.")] = None,
) -> None:
    """Fetch models for this node's pods, and hold them until they are released."""
    logs.to_stderr()
    trust_mounted_bundle(os.environ)
    engine = Engine(plugins.load().storage_providers, Settings())
    metrics = None if metrics_port is None else (metrics_host, metrics_port)
    asyncio.run(served(Store(root, engine, quota_bytes=quota_bytes), socket, metrics))
