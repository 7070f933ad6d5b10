"""``servery up``: run services on this machine and follow their files."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer
from servery_sdk import plugins
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Manifest, ObjectRef

from servery.local.platform import Platform, failure, is_ready
from servery.options import Files, InNamespace, Mode, StateDirectory, say, state
from servery.session import changes, curl, platform_on, progress, until_signal
from servery.sources import files, read_for_here
from servery.state import NotRunning, RunningPlatform, State


def command(
    filename: Files,
    *,
    namespace: InNamespace = "default",
    mode: Mode = None,
    port: Annotated[
        int | None, typer.Option("--port", help="Of the way in; 0 takes a free one. Default: 8080, or a free one.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once everything is ready; end with down.")] = False,
    state_dir: StateDirectory = None,
) -> None:
    """Run services on this machine, print their URLs and follow changes of the files."""
    here = state(state_dir)
    if not detach:
        with here.held():
            asyncio.run(until_signal(_up(filename, namespace, mode, port, here)))
        return
    if "-" in filename:
        raise typer.BadParameter("--detach cannot follow standard input; give a file")
    _detach(filename, namespace, mode, port, here)


async def _up(filename: list[str], namespace: str, mode: str | None, port: int | None, here: State) -> None:
    manifests = read_for_here(filename, namespace)
    platform = platform_on(plugins.load(), here.directory, port, mode)
    async with platform.running():
        tell = progress()
        platform.subscribe(tell)
        platform.subscribe(lambda _: here.write_services(platform.services()))
        following = _Following(platform)
        await following.apply(manifests)
        if not following.has_services:
            raise ServeryError(f"no service to run in {', '.join(filename)}: {_takes(platform)}")
        here.write_services(platform.services())
        here.write(RunningPlatform(pid=os.getpid(), url=platform.url))
        async with asyncio.TaskGroup() as group:
            following.announce(group)
            paths = files(filename)
            async for _ in changes(paths) if paths else _never():
                try:
                    await following.apply(read_for_here(filename, namespace))
                except ServeryError as error:
                    # Half-typed files are no reason to stop what runs.
                    say(str(error))
                following.announce(group)


class _Following:
    """Keeps the platform's objects to those of the files."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._known: set[ObjectRef] = set()
        self._services: set[ObjectRef] = set()
        self._announcing: dict[ObjectRef, asyncio.Task[None]] = {}

    @property
    def has_services(self) -> bool:
        """Whether the files hold a service."""
        return bool(self._services)

    async def apply(self, manifests: list[Manifest]) -> None:
        """Apply ``manifests``; what was in the files and is no longer goes.

        Raises:
            ServeryError: Something in the files is refused.
        """
        wanted = set(self._platform.references(manifests))
        # Those of an apply that fails half-way are known too, or nobody would ever delete them.
        self._known |= wanted
        self._services = set(await self._platform.apply(manifests))
        for ref in sorted(self._known - wanted):
            await self._platform.delete(ref)
            say(f"{ref.namespace}/{ref.name}: deleted, it is no longer in the files")
        self._known = wanted

    def announce(self, group: asyncio.TaskGroup) -> None:
        """Have every service that is new say where it answers, once it does."""
        for ref in self._announcing.keys() - self._services:
            self._announcing.pop(ref).cancel()
        for ref in sorted(self._services - self._announcing.keys()):
            announcing = _announce(self._platform, ref)
            self._announcing[ref] = group.create_task(announcing, name=f"announce-{ref.name}")


async def _announce(platform: Platform, ref: ObjectRef) -> None:
    service = await platform.ready(ref)
    say(f"  {ref.name} answers at http://{ref.name}.{ref.namespace}.localhost:{platform.port}")
    say(f"  {await curl(platform.url, service)}")


def _takes(platform: Platform) -> str:
    kinds = {str(kind) for dialect in platform.plugins.dialects.values() for kind in dialect.services}
    return f"a service is one of {', '.join(sorted(kinds))}"


async def _never() -> AsyncIterator[None]:
    await asyncio.Event().wait()
    yield


def _detach(filename: list[str], namespace: str, mode: str | None, port: int | None, here: State) -> None:
    here.directory.mkdir(parents=True, exist_ok=True)
    # A log of its own until it runs: the one that is there may be that of a platform that runs already.
    log = here.directory / f"platform.{os.getpid()}.log"
    arguments = ["up", "--namespace", namespace, "--state-dir", str(here.directory)]
    arguments += [word for source in filename for word in ("-f", source)]
    arguments += ["--port", str(port)] if port is not None else []
    arguments += ["--mode", mode] if mode is not None else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "servery.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_announced(here, process, log)
    except ServeryError as error:
        process.terminate()
        process.wait()
        said, why = log.read_text().strip(), str(error)
        log.unlink()
        # Of several components another one's words may have been the last.
        raise ServeryError(said if why in said else f"{said}\n{why}") from None
    say(log.read_text().strip())
    log.replace(here.directory / "platform.log")


def _wait_until_announced(here: State, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        try:
            services = here.services() if here.platform().pid == process.pid else []
        except NotRunning:
            services = []
        announced = log.read_text().count("\n  curl ")
        if services and announced >= len(services) and all(map(is_ready, services)):
            return
        for service in services:
            if words := failure(service):
                metadata = service["metadata"]
                raise ServeryError(f"{metadata['namespace']}/{metadata['name']}: {words}")
        time.sleep(0.05)
    raise ServeryError("the platform ended")
