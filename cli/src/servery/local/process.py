"""One process group: started, watched, ended. Nothing else of Servery starts processes."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended; 128 + n for signal n, as a shell has it."""

    exit_code: int


class RunningProcess:
    """Leads a process group of its own, which ends with it, and with the platform."""

    def __init__(self, process: asyncio.subprocess.Process, grace_seconds: float) -> None:
        self._process = process
        self._grace_seconds = grace_seconds

    @classmethod
    async def start(
        cls, arguments: tuple[str, ...], environment: Mapping[str, str], log: Path, *, grace_seconds: float
    ) -> RunningProcess:
        """Start ``arguments``; its output goes to the end of ``log``.

        Raises:
            OSError: The program is not there.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *arguments,
                env={**os.environ, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent if _LIBC is not None else None,
            )
        return cls(process, grace_seconds)

    @property
    def pid(self) -> int:
        """Of the process, which is also its group's."""
        return self._process.pid

    async def wait(self) -> Ended:
        """Return how it ended, once it has; its children are then gone too."""
        code = await self._process.wait()
        self._signal(signal.SIGKILL)
        return Ended(128 - code if code < 0 else code)

    def ask_to_end(self) -> None:
        """Send SIGTERM, to this process alone as to a container's first: what it has started is its own to end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)

    async def end(self) -> Ended:
        """Ask, wait for the grace period, kill; returns when it is gone, also when cancelled meanwhile."""
        self.ask_to_end()
        try:
            async with asyncio.timeout(self._grace_seconds):
                return await self.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            return await self.wait()
        except asyncio.CancelledError:
            self._signal(signal.SIGKILL)
            raise

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _die_with_parent() -> None:
    """Have the kernel end this process when the platform dies, however it dies."""
    assert _LIBC is not None
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
