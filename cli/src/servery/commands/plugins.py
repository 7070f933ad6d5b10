"""``servery plugins``: what is installed, and where it comes from."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from servery_sdk import plugins

from servery.options import Output, print_data


def command(*, output: Annotated[Output | None, typer.Option("--output", "-o", help="As data.")] = None) -> None:
    """Print what every plugin contributes."""
    sources = sorted(plugins.load().sources.items())
    rows = [
        {"hook": hook, "name": name, "distribution": distribution}
        for key, distribution in sources
        for hook, _, name in [key.partition(":")]
    ]
    if output is not None:
        print_data(rows, output)
        return
    for row in rows:
        sys.stdout.write(f"{row['hook']}  {row['name']}  ({row['distribution']})\n")
