"""One container of a pod: a process that is started, probed, restarted with back-off, and its status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from servery_http.client import Client
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import Runtime

from servery.local.configuration import CreateContainerConfigError
from servery.local.configured import Configurations
from servery.local.doors import Doorway
from servery.local.localize import ErrImageNotLocal, Process, Sandbox, localize
from servery.local.probes import succeeds
from servery.local.process import RunningProcess

_MESSAGE_BYTES = 4096
_UNSTARTED_PROBE_SECONDS = 0.05
"""How often a container that has not answered yet is asked: a local model is there within a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a container that ended waits for its next start: doubled each time, forgotten after a good while."""

    first_seconds: float = 1.0
    most_seconds: float = 300.0
    forget_seconds: float = 600.0

    def seconds(self, restarts: int) -> float:
        """Return the wait before restart number ``restarts + 1``."""
        return float(min(self.most_seconds, self.first_seconds * 2 ** min(restarts, 30)))


@dataclass(slots=True)
class ContainerState:
    """What the kubelet says of a container."""

    name: str
    image: str
    state: Manifest = field(default_factory=lambda: {"waiting": {"reason": "PodInitializing"}})
    last: Manifest = field(default_factory=dict)
    ready: bool = False
    started: bool = False
    restarts: int = 0

    def status(self) -> dict[str, Json]:
        """Return the ``containerStatuses`` entry."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
        }


class Container:
    """Runs one container until it is cancelled, or, for an init container, until it has succeeded."""

    def __init__(
        self,
        pod: Manifest,
        spec: Manifest,
        sandbox: Sandbox,
        runtimes: tuple[Runtime, ...],
        configurations: Configurations,
        doorway: Doorway,
        client: Client,
        backoff: Backoff,
        changed: Callable[[], None],
    ) -> None:
        self._pod, self._spec, self._sandbox, self._runtimes = pod, spec, sandbox, runtimes
        self._configurations, self._client, self._backoff, self._changed = configurations, client, backoff, changed
        self._doorway = doorway
        self._grace_seconds = float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        self.state = ContainerState(name=str(spec["name"]), image=str(spec.get("image", "")))

    async def run(self, *, until_success: bool) -> None:
        """Start it, again and again; return only when ``until_success`` and it has ended well."""
        clock = asyncio.get_running_loop().time
        streak = 0
        while True:
            # Anew for every start: a Secret may have changed.
            process = await self._process()
            began = clock()
            exit_code = await self._once(process)
            if until_success and exit_code == 0:
                return
            streak = 0 if clock() - began > self._backoff.forget_seconds else streak
            seconds = self._backoff.seconds(streak)
            streak += 1
            self.state.last = self.state.state
            self.wait("CrashLoopBackOff", f"back-off {seconds:g}s restarting failed container={self.state.name}")
            await asyncio.sleep(seconds)
            self.state.restarts += 1

    def wait(self, reason: str, message: str) -> None:
        """Say why it does not run yet."""
        self._become({"waiting": {"reason": reason, "message": message}})

    async def _process(self) -> Process:
        """Return what to start, once everything that it names is there."""
        doors = await self._doorway.doors()
        try:
            return await self._configurations.made(
                str(self._pod["metadata"]["namespace"]),
                lambda given: localize(self._pod, self._spec, self._sandbox, self._runtimes, given, doors),
                lambda why: self.wait(CreateContainerConfigError.__name__, why),
            )
        except ErrImageNotLocal as error:
            # Kubernetes' own reason for an image that is not there and is not fetched.
            self.wait("ErrImageNeverPull", str(error))
            await asyncio.Event().wait()
            raise AssertionError("unreachable: nobody sets that event") from error

    async def _once(self, process: Process) -> int:
        """Run it once; return its exit code, having put its end into the state."""
        log = self._sandbox.log(self.state.name)
        last_words = self._sandbox.termination_log(self.state.name)
        last_words.parent.mkdir(parents=True, exist_ok=True)
        last_words.write_bytes(b"")
        started_at = _now()
        log_start = log.stat().st_size if log.exists() else 0
        try:
            running = await RunningProcess.start(
                process.arguments, process.environment, log, grace_seconds=self._grace_seconds
            )
        except (OSError, ValueError) as error:
            # ValueError: a variable that no process can have, with a zero byte or a name with an equals sign.
            self._become({"terminated": _ended(127, str(error), started_at)})
            return 127
        self._become({"running": {"startedAt": started_at}})
        probing = asyncio.create_task(self._probe(process, running), name=f"probe-{self.state.name}")
        try:
            ended = await running.wait()
        except asyncio.CancelledError:
            await running.end()
            raise
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            self.state.ready = self.state.started = False
        message = last_words.read_text(errors="replace")
        fallback = self._spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not message and ended.exit_code != 0 and fallback:
            message = _tail(log.read_bytes()[log_start:])
        self._become({"terminated": _ended(ended.exit_code, message[-_MESSAGE_BYTES:], started_at)})
        return ended.exit_code

    async def _probe(self, process: Process, running: RunningProcess) -> None:
        """Ask until started, then watch readiness and life."""
        startup = self._spec.get("startupProbe")
        if startup is not None and not await self._started_in_time(startup, process):
            running.ask_to_end()
            return
        self.state.started = True
        self._changed()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_readiness(self._spec.get("readinessProbe"), process))
            if "livenessProbe" in self._spec:
                group.create_task(self._watch_life(self._spec["livenessProbe"], process, running))

    async def _started_in_time(self, probe: Manifest, process: Process) -> bool:
        clock = asyncio.get_running_loop().time
        patience = probe.get("initialDelaySeconds", 0) + probe.get("periodSeconds", 10) * probe.get(
            "failureThreshold", 3
        )
        until = clock() + patience
        while clock() < until:
            if await succeeds(probe, process, self._sandbox.address, self._client):
                return True
            await asyncio.sleep(_UNSTARTED_PROBE_SECONDS)
        return False

    async def _watch_readiness(self, probe: Manifest | None, process: Process) -> None:
        if probe is None:
            self._set_ready(ready=True)
            return
        failures = 0
        while True:
            if await succeeds(probe, process, self._sandbox.address, self._client):
                failures = 0
                self._set_ready(ready=True)
            else:
                failures += 1
                if failures >= probe.get("failureThreshold", 3):
                    self._set_ready(ready=False)
            await asyncio.sleep(probe.get("periodSeconds", 10) if self.state.ready else _UNSTARTED_PROBE_SECONDS)

    async def _watch_life(self, probe: Manifest, process: Process, running: RunningProcess) -> None:
        failures = 0
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        while failures < probe.get("failureThreshold", 3):
            await asyncio.sleep(probe.get("periodSeconds", 10))
            alive = await succeeds(probe, process, self._sandbox.address, self._client)
            failures = 0 if alive else failures + 1
        running.ask_to_end()

    def _set_ready(self, *, ready: bool) -> None:
        if self.state.ready != ready:
            self.state.ready = ready
            self._changed()

    def _become(self, state: Manifest) -> None:
        self.state.state = state
        self._changed()


def _ended(exit_code: int, message: str, started_at: str) -> dict[str, Json]:
    return {
        "exitCode": exit_code,
        "reason": "Completed" if exit_code == 0 else "Error",
        "message": message,
        "startedAt": started_at,
        "finishedAt": _now(),
    }


def _tail(output: bytes) -> str:
    """Return the end of a log, as much of it as Kubernetes takes for a termination message."""
    return "\n".join(output[-2048:].decode(errors="replace").splitlines()[-80:])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
