"""``servery render``: the objects that the controller would apply."""

from __future__ import annotations

from typing import Annotated

import typer
from servery_controller import render
from servery_sdk.model import Capability

from servery.offline import offline
from servery.options import Catalogs, Files, InNamespace, Mode, Output, print_data


def command(
    filename: Files,
    *,
    catalog: Catalogs = None,
    mode: Mode = None,
    capability: Annotated[
        list[Capability] | None, typer.Option("--capability", help="Of the cluster. Default: gateway-api.")
    ] = None,
    namespace: InNamespace = "default",
    output: Annotated[Output, typer.Option("--output", "-o")] = Output.YAML,
) -> None:
    """Print the objects of every service, offline: the same input always prints the same."""
    capabilities = capability or [Capability.GATEWAY_API]
    decisions = offline(filename, catalog or (), mode=mode, namespace=namespace, capabilities=capabilities)
    objects = [
        rendered
        for service in decisions.services()
        for rendered in render.render(service, decisions.catalog, decisions.plugins, decisions.settings)[1]
    ]
    print_data(objects, output)
