"""How far a download is: bars on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from servery_sdk.storage import StorageEntry


class Progress(Protocol):
    """Told by the engine."""

    def begin(self, source: str, entries: Sequence[StorageEntry]) -> None:
        """The objects are known."""

    def waits(self, reason: str) -> None:
        """Nothing moves for now."""

    def advance(self, entry: StorageEntry, size_bytes: int) -> None:
        """So many bytes more of one object are there. Called from several threads."""

    def end(self, source: str) -> None:
        """The model is in place."""


def total_bytes(entries: Iterable[StorageEntry]) -> int | None:
    """Return what all entries hold; None where the source does not say it of each."""
    total = 0
    for entry in entries:
        if entry.size_bytes is None:
            return None
        total += entry.size_bytes
    return total


class JsonLines:
    """A line at the start, at most one every few seconds, and one at the end."""

    def __init__(self, stream: TextIO | None = None, every_seconds: float = 5.0) -> None:
        self._stream, self._every_seconds = stream or sys.stderr, every_seconds
        self._total: int | None = None
        self._lock = threading.Lock()
        self._done = 0
        self._started = self._said = time.monotonic()

    def begin(self, source: str, entries: Sequence[StorageEntry]) -> None:
        self._total = total_bytes(entries)
        self._done = 0
        self._started = self._said = time.monotonic()
        self._say("fetching", source=source, objects=len(entries), total_bytes=self._total)

    def waits(self, reason: str) -> None:
        self._say("waiting", reason=reason)

    def advance(self, entry: StorageEntry, size_bytes: int) -> None:
        with self._lock:
            self._done += size_bytes
            now = time.monotonic()
            if now - self._said >= self._every_seconds:
                self._said = now
                self._say("progress", done_bytes=self._done, total_bytes=self._total)

    def end(self, source: str) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        self._say("fetched", source=source, done_bytes=self._done, seconds=seconds)

    def _say(self, message: str, **fields: object) -> None:
        line = json.dumps({"message": message, **{key: value for key, value in fields.items() if value is not None}})
        self._stream.write(line + "\n")
        self._stream.flush()


class TerminalBars:
    """One bar for the whole of each source. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bars.stop()

    def begin(self, source: str, entries: Sequence[StorageEntry]) -> None:
        self._task = self._bars.add_task(source, total=total_bytes(entries))

    def waits(self, reason: str) -> None:
        self._bars.console.print(reason)

    def advance(self, entry: StorageEntry, size_bytes: int) -> None:
        if self._task is not None:
            self._bars.advance(self._task, size_bytes)

    def end(self, source: str) -> None:
        return None
