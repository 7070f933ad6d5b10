"""What a running platform leaves on disk so that other commands find it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.manifests import Manifest


class AlreadyRuns(ServeryError):
    """Another platform holds this state folder."""


class NotRunning(ServeryError):
    """No platform runs in this state folder."""

    code = ErrorCode.NOT_FOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPlatform:
    """Of which process, and where it answers."""

    pid: int
    url: str


def default_directory() -> Path:
    """Return ``$XDG_STATE_HOME/servery``."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "servery"


LABELS = "labels.json"
"""In a pod's directory: its labels, which say whose it is."""

_LOOK_SECONDS = 0.2
"""How long somebody who only looks whether a platform runs may hold its lock: a microsecond, and some patience."""


@dataclass(frozen=True, slots=True)
class State:
    """A folder: who runs, its services, pods' logs."""

    directory: Path

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for this process; the kernel lets go of it however the process ends.

        Raises:
            AlreadyRuns: Another process holds it; says which, and what to do.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a+") as lock:
            if not _locked(lock, fcntl.LOCK_EX):
                raise AlreadyRuns(self._who_runs(lock))
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self._clear()  # What one that crashed has left says nothing about this one.
            try:
                yield
            finally:
                self._clear()

    def _who_runs(self, lock: IO[str]) -> str:
        lock.seek(0)
        who = f"process {lock.read() or 'unknown'}"
        with contextlib.suppress(NotRunning):
            who += f", {self.platform().url}"
        return (
            f"a platform runs already in {self.directory} ({who}); "
            f"end it with: servery down --state-dir {self.directory}; or give this one a --state-dir of its own"
        )

    @property
    def _lock(self) -> Path:
        return self.directory / "lock"

    def write(self, platform: RunningPlatform) -> None:
        """Say who runs."""
        self._put("platform.json", asdict(platform))

    def write_services(self, services: Sequence[Manifest]) -> None:
        """Say how the services are."""
        self._put("services.json", list(services))

    def platform(self) -> RunningPlatform:
        """Return who runs.

        Raises:
            NotRunning: Nobody.
        """
        with contextlib.suppress(FileNotFoundError):
            found = RunningPlatform(**json.loads((self.directory / "platform.json").read_text()))
            # Not by its number, which another process may have after a crash.
            with self._lock.open() as lock:
                if not _locked(lock, fcntl.LOCK_SH):
                    return found
        raise NotRunning(f"no platform runs in {self.directory}; start one: servery up -f FILE --detach")

    def services(self) -> list[Manifest]:
        """Return the services of the running platform.

        Raises:
            NotRunning: Nobody runs.
        """
        self.platform()
        with contextlib.suppress(FileNotFoundError):
            return list(json.loads((self.directory / "services.json").read_text()))
        return []

    def service(self, name: str, namespace: str) -> Manifest:
        """Return one service.

        Raises:
            NotRunning: No such service, or nobody runs.
        """
        services = self.services()
        for service in services:
            if (service["metadata"]["name"], service["metadata"]["namespace"]) == (name, namespace):
                return service
        there = ", ".join(f"{s['metadata']['namespace']}/{s['metadata']['name']}" for s in services) or "none"
        raise NotRunning(f"no service {namespace}/{name} runs here; running: {there}")

    def logs(self, name: str, namespace: str) -> list[Path]:
        """Return the log files of a service's containers, oldest first."""
        found = (
            log
            for labels in (self.directory / "pods" / namespace).glob(f"*/{LABELS}")
            # A dialect puts the service's name into a label of all that it owns.
            if name in json.loads(labels.read_text()).values()
            for log in labels.parent.glob("logs/*.log")
        )
        return sorted(found, key=lambda log: log.stat().st_mtime)

    def _clear(self) -> None:
        for name in ("platform.json", "services.json"):
            (self.directory / name).unlink(missing_ok=True)

    def _put(self, name: str, value: object) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        # Replaced whole: a reader never sees half of it.
        part = self.directory / f".{name}.{os.getpid()}"
        part.write_text(json.dumps(value))
        part.replace(self.directory / name)


def _locked(lock: IO[str], how: int) -> bool:
    """Lock a file until it is closed; return whether that went."""
    until = time.monotonic() + (_LOOK_SECONDS if how == fcntl.LOCK_EX else 0.0)
    while True:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        else:
            return True
