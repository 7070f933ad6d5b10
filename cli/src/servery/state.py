"""What a running platform leaves on disk so that other commands find it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.manifests import Manifest


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


@dataclass(frozen=True, slots=True)
class State:
    """A folder: who runs, its services, pods' logs."""

    directory: Path

    def write(self, platform: RunningPlatform) -> None:
        """Say who runs."""
        self._put("platform.json", asdict(platform))

    def write_services(self, services: Sequence[Manifest]) -> None:
        """Say how the services are."""
        self._put("services.json", list(services))

    def clear(self) -> None:
        """Say that nobody runs."""
        for name in ("platform.json", "services.json"):
            with contextlib.suppress(FileNotFoundError):
                (self.directory / name).unlink()

    def platform(self) -> RunningPlatform:
        """Return who runs.

        Raises:
            NotRunning: Nobody.
        """
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = RunningPlatform(**json.loads((self.directory / "platform.json").read_text()))
            os.kill(found.pid, 0)
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
        """Return the log files of a service's containers."""
        return sorted(
            (self.directory / "pods" / namespace).glob(f"{name}-*/logs/*.log"), key=lambda p: p.stat().st_mtime
        )

    def _put(self, name: str, value: object) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        # Replaced whole: a reader never sees half of it.
        part = self.directory / f".{name}.{os.getpid()}"
        part.write_text(json.dumps(value))
        part.replace(self.directory / name)
