"""``servery runtimes``: what can serve a model."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from servery_controller import render
from servery_sdk import plugins
from servery_sdk.manifests import Json
from servery_sdk.model import Runtime

from servery.options import Catalogs, Output, print_data
from servery.sources import read


def command(
    *,
    catalog: Catalogs = None,
    output: Annotated[Output | None, typer.Option("--output", "-o", help="As data.")] = None,
) -> None:
    """Print the runtimes that are installed, and those of a catalogue."""
    runtimes = render.catalog_from(read(catalog or ()), plugins.load()).runtimes
    if output is not None:
        print_data([_data(runtime) for runtime in runtimes], output)
        return
    for runtime in runtimes:
        data = _data(runtime)
        sys.stdout.write(f"{data['name']}: {', '.join(data['formats'])} over {', '.join(data['protocols'])}\n")


def _data(runtime: Runtime) -> dict[str, Json]:
    formats = [f.name if f.version is None else f"{f.name} {f.version}" for f in runtime.formats]
    return {
        "name": runtime.name,
        "scope": str(runtime.scope),
        "formats": formats,
        "protocols": sorted(map(str, runtime.protocols)),
        "image": runtime.image,
        "runsHere": runtime.model_class is not None,
    }
