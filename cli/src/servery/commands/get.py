"""``servery get``: how the services of this machine are."""

from __future__ import annotations

import sys
from typing import Annotated
from urllib.parse import urlsplit

import typer

from servery.local.platform import is_ready
from servery.options import InNamespace, Output, StateDirectory, print_data, state
from servery.session import headline, host


def command(
    name: Annotated[str | None, typer.Argument(help="Of one service; all without it.")] = None,
    *,
    namespace: InNamespace = "default",
    output: Annotated[Output | None, typer.Option("--output", "-o", help="The whole object, as data.")] = None,
    state_dir: StateDirectory = None,
) -> None:
    """Print the services of the local platform and their state."""
    here = state(state_dir)
    services = [here.service(name, namespace)] if name else here.services()
    if output is not None:
        print_data(services, output)
        return
    port = urlsplit(here.platform().url).port
    rows = [("NAMESPACE", "NAME", "URL", "STATE")]
    for service in services:
        metadata = service["metadata"]
        # The status has the cluster's URL, which nobody answers here.
        url = f"http://{host(service)}:{port}" if is_ready(service) else ""
        state_words = headline(service).partition(": ")[2]
        rows.append((metadata["namespace"], metadata["name"], url, state_words))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        sys.stdout.write("  ".join([*cells, row[3]]).rstrip() + "\n")
