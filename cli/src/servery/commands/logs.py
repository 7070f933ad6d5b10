"""``servery logs``: what the containers of a service have printed."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from servery.options import InNamespace, StateDirectory, say, state


def command(
    name: Annotated[str, typer.Argument(help="Of the service.")],
    *,
    container: Annotated[str | None, typer.Option("--container", "-c", help="Only this container.")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on printing what comes.")] = False,
    namespace: InNamespace = "default",
    state_dir: StateDirectory = None,
) -> None:
    """Print the logs of a service's pods, oldest first."""
    here = state(state_dir)
    here.service(name, namespace)
    seen: dict[str, int] = {}
    while True:
        for log in here.logs(name, namespace):
            if container not in (None, log.stem):
                continue
            start = seen.get(str(log), 0)
            with log.open("rb") as opened:
                opened.seek(start)
                text = opened.read()
            if text and start == 0:
                say(f"==> {log.parent.parent.name} {log.stem} <==")
            seen[str(log)] = start + len(text)
            sys.stdout.write(text.decode(errors="replace"))
            sys.stdout.flush()
        if not follow:
            return
        here.platform()
        time.sleep(0.2)
