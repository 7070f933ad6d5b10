"""The payload log of one agent: from what passes by to the process that delivers it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import subprocess
import sys
from typing import TextIO

from servery_sdk.errors import Permanent

from servery_agent.payloads.capture import Capture, Records
from servery_agent.payloads.child import FINISH, GROWN, LEDGER, STATUS_CONFIGURATION
from servery_agent.payloads.config import selection_of
from servery_agent.payloads.ledger import Count, Ledger
from servery_agent.payloads.segments import last_number
from servery_agent.payloads.spool import Spool
from servery_agent.settings import Settings

logger = logging.getLogger(__name__)

_RESTART_SECONDS = (0.1, 10.0)
_KILLED_SECONDS = 1.0
_GROWN_SECONDS = 0.02
"""Between words that the spool has grown: to wake the other process costs requests their turn."""
_GROWN_BYTES = 1024 * 1024
"""Of which it is told at once: what waits longer is written to memory that the spool has not had yet."""


class PayloadLog:
    """Made inside a running loop; ``start`` before the first request, ``stop`` after the last.

    Raises:
        Permanent: Another agent has the spool's folder.
        OSError: The folder cannot be made.

    Attributes:
        capture: Whose ``watch`` sees exchanges.
        restarts: How often the process that delivers was started again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        folder = settings.log_spool_path
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = _locked(settings)
        self.ledger = Ledger(folder / LEDGER)
        self._count_what_was_lost()
        self._loop = asyncio.get_running_loop()
        self._spool = Spool(folder, self.ledger, settings.log_spool_bytes, self._on_written)
        self.records = Records(self.ledger, settings.log_queue_bytes, self._spool.put, lambda: self._spool.taken_bytes)
        self.capture = Capture(selection_of(settings), self.records)
        self._child: asyncio.subprocess.Process | None = None
        self._supervising: asyncio.Task[None] | None = None
        self._is_told_soon = False
        self._told_bytes = 0
        self.restarts = 0

    def _count_what_was_lost(self) -> None:
        ledger = self.ledger
        known = max(ledger[Count.ACCOUNTED], ledger[Count.SETTLED], last_number(self._settings.log_spool_path))
        lost = ledger[Count.ACCEPTED] - known
        if lost > 0:
            logger.warning("events were in memory when the agent was killed", extra={"events": lost})
            ledger.add(Count.DROPPED_CRASH, lost)
        # First: what a killed agent began to write is not to be taken for whole, now that it is accounted for.
        ledger[Count.BEGUN] = max(ledger[Count.ACCEPTED], known)
        ledger[Count.ACCEPTED] = ledger[Count.ACCOUNTED] = ledger[Count.BEGUN]

    @property
    def spool_bytes(self) -> int:
        """What the spool holds, about: what was delivered counts until room is needed."""
        return self._spool.used_bytes

    @property
    def waiting(self) -> int:
        """Events that were accepted, and neither delivered nor put aside nor dropped."""
        gone = (Count.DELIVERED, Count.DEAD, Count.DROPPED_CRASH, Count.DROPPED_SPOOL_FULL, Count.DROPPED_DISK)
        # What a killed deliverer had sent is sent, and counted, again.
        return max(self.ledger[Count.ACCEPTED] - sum(self.ledger[count] for count in gone), 0)

    async def start(self) -> None:
        """Start the process that delivers."""
        self._supervising = asyncio.create_task(self._supervise(), name="payload-deliverer")

    async def _supervise(self) -> None:
        pause, most = _RESTART_SECONDS
        while True:
            self._child = child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "servery_agent.payloads.child"), stdin=subprocess.PIPE
            )
            assert child.stdin is not None
            child.stdin.write(self._settings.model_dump_json().encode() + b"\n")
            status = await child.wait()
            if status == STATUS_CONFIGURATION:
                logger.error("the payload log cannot be delivered with these settings; it is kept as far as it fits")
                return
            logger.warning("the process that delivers the payload log ended", extra={"status": status})
            self.restarts += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, most)

    def _on_written(self) -> None:
        # The spool's thread; a loop that is closed needs no word.
        written = self.ledger[Count.SPOOLED_BYTES]
        with contextlib.suppress(RuntimeError):
            if written - self._told_bytes >= _GROWN_BYTES:
                self._told_bytes = written
                self._loop.call_soon_threadsafe(self._tell_grown)
            elif not self._is_told_soon:
                self._is_told_soon = True
                self._loop.call_soon_threadsafe(self._loop.call_later, _GROWN_SECONDS, self._tell_in_time)

    def _tell_in_time(self) -> None:
        # What is written from now on is told of again.
        self._is_told_soon = False
        self._told_bytes = self.ledger[Count.SPOOLED_BYTES]
        self._tell_grown()

    def _tell_grown(self) -> None:
        stdin = None if self._child is None else self._child.stdin
        if stdin is not None and not stdin.is_closing() and stdin.transport.get_write_buffer_size() == 0:
            stdin.write(GROWN)

    async def stop(self, seconds: float) -> None:
        """Write what is left, and deliver for so long; what is not delivered stays on disk."""
        self.records.flush()
        await asyncio.to_thread(self._spool.close)
        supervising, self._supervising = self._supervising, None
        if supervising is not None:
            supervising.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervising
        await self._finish(seconds)
        logger.info("payload log ends", extra={"delivered": self.ledger[Count.DELIVERED], "left": self.waiting})
        self.ledger.close()
        self._lock.close()

    async def _finish(self, seconds: float) -> None:
        child = self._child
        if child is None or child.returncode is not None:
            return
        assert child.stdin is not None
        child.stdin.write(FINISH)
        try:
            async with asyncio.timeout(max(seconds, _KILLED_SECONDS)):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


def _locked(settings: Settings) -> TextIO:
    lock = (settings.log_spool_path / "agent.lock").open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise Permanent(
            f"--log-spool-path: {settings.log_spool_path} is another agent's; give each a folder of its own"
        ) from error
    return lock
