"""``servery predict``: one request, to a running service or to one that is served just for it."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from servery_sdk import plugins
from servery_sdk.errors import ServeryError

from servery.options import InNamespace, Mode, StateDirectory, say, state
from servery.session import ask, check, progress, until_signal


def command(
    name: Annotated[str | None, typer.Argument(help="Of a running service; or give -f.")] = None,
    *,
    data: Annotated[str, typer.Option("--data", "-d", help="The request: JSON, @FILE, or @- for standard input.")],
    filename: Annotated[
        list[str] | None, typer.Option("--filename", "-f", help="Serve this manifest just for this request.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="One of several models that the service holds.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Ask what the answer comes from.")] = False,
    namespace: InNamespace = "default",
    mode: Mode = None,
    state_dir: StateDirectory = None,
) -> None:
    """Print a prediction, or its explanation."""
    body = _body(data)
    # Before anything is started for it.
    check(body)
    if filename:
        asyncio.run(until_signal(_serve_and_ask(filename, name, namespace, mode, body, model=model, explain=explain)))
    elif name:
        found = state(state_dir)
        running = found.platform()
        service = found.service(name, namespace)
        _print(asyncio.run(ask(running.url, service, body, model=model, explain=explain)))
    else:
        raise typer.BadParameter("give the NAME of a running service, or a manifest with -f")


def _body(data: str) -> bytes:
    if data == "@-":
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return data.encode()
    try:
        return Path(data[1:]).read_bytes()
    except OSError as error:
        raise ServeryError(f"--data {data}: {error.strerror}") from error


async def _serve_and_ask(
    filename: list[str],
    name: str | None,
    namespace: str,
    mode: str | None,
    body: bytes,
    *,
    model: str | None,
    explain: bool,
) -> None:
    from servery.local.platform import Platform
    from servery.sources import read_for_here

    manifests = read_for_here(filename, namespace)
    with tempfile.TemporaryDirectory(prefix="servery-") as directory:
        async with Platform(plugins.load(), Path(directory), mode=mode).running() as platform:
            platform.subscribe(progress())
            refs = [ref for ref in await platform.apply(manifests) if name in (None, ref.name)]
            if len(refs) != 1:
                found = ", ".join(ref.name for ref in refs) or "none"
                raise ServeryError(f"-f holds {len(refs)} services to ask ({found}); name one")
            service = await platform.ready(refs[0], give_up=True)
            say("asking")
            _print(await ask(platform.url, service, body, model=model, explain=explain))


def _print(answer: bytes) -> None:
    sys.stdout.write(answer.decode() + "\n")
