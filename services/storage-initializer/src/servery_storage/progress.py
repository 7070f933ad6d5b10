"""How far a fetch is: counted, and told by bars on a terminal, by JSON lines elsewhere."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Protocol, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from servery_sdk.fetches import FetchReport
from servery_sdk.storage import StorageEntry

_NAME_CHARACTERS = 40
"""Of a bar's description: what is longer has lost its beginning."""


class Origin(StrEnum):
    """Where bytes are that need not come from the source."""

    CACHE = "cache"
    EARLIER = "earlier"  # another process brought them


class Progress(Protocol):
    """Told by the engine."""

    def begin(self, source: str, entries: Sequence[StorageEntry]) -> None:
        """The objects are known."""

    def waits(self, reason: str) -> None:
        """Nothing moves for now."""

    def advance(self, entry: StorageEntry, size_bytes: int) -> None:
        """So many bytes more of one object came from the source. Called from several threads."""

    def has(self, entry: StorageEntry, size_bytes: int, origin: Origin) -> None:
        """So many bytes of one object need not come. Called once for an object."""

    def tries_again(self, reason: str) -> None:
        """A try failed, and another follows. Called from several threads."""

    def comes_again(self, entry: StorageEntry, reason: str) -> None:
        """What came of one object is wrong, and all of it is fetched anew. Called from several threads."""

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


class Tally:
    """Counts one fetch. Who shows it as well is a subclass."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._ended: float | None = None
        self._entries: Sequence[StorageEntry] = ()
        self._total: int | None = None
        self._there: dict[str, int] = {}
        self._done = self._fetched = self._retries = self._cached_files = 0
        self._had = dict.fromkeys(Origin, 0)

    def begin(self, source: str, entries: Sequence[StorageEntry]) -> None:
        self._entries, self._total = entries, total_bytes(entries)

    def waits(self, reason: str) -> None:
        return None

    def advance(self, entry: StorageEntry, size_bytes: int) -> None:
        with self._lock:
            self._fetched += size_bytes
            self._come(entry, size_bytes)

    def has(self, entry: StorageEntry, size_bytes: int, origin: Origin) -> None:
        with self._lock:
            self._had[origin] += size_bytes
            self._cached_files += origin is Origin.CACHE
            self._come(entry, size_bytes)

    def tries_again(self, reason: str) -> None:
        with self._lock:
            self._retries += 1

    def comes_again(self, entry: StorageEntry, reason: str) -> None:
        with self._lock:
            self._retries += 1
            self._done -= self._there.pop(entry.path, 0)

    def end(self, source: str) -> None:
        self._ended = time.monotonic()

    def report(self) -> FetchReport:
        """Return what it took so far."""
        with self._lock:
            return FetchReport(
                files=len(self._entries),
                fetched_bytes=self._fetched,
                cached_files=self._cached_files,
                cached_bytes=self._had[Origin.CACHE],
                kept_bytes=self._had[Origin.EARLIER],
                retries=self._retries,
                seconds=round(self._seconds, 3),
            )

    @property
    def _seconds(self) -> float:
        return (self._ended or time.monotonic()) - self._started

    def _come(self, entry: StorageEntry, size_bytes: int) -> None:
        self._done += size_bytes
        self._there[entry.path] = self._there.get(entry.path, 0) + size_bytes


class JsonLines(Tally):
    """A line at the start, at most one every few seconds, one for what goes wrong as often, and one at the end."""

    def __init__(self, stream: TextIO | None = None, every_seconds: float = 5.0) -> None:
        super().__init__()
        self._stream, self._every_seconds = stream or sys.stderr, every_seconds
        self._said = self._started
        self._complained = self._started - every_seconds

    def begin(self, source: str, entries: Sequence[StorageEntry]) -> None:
        super().begin(source, entries)
        self._say("fetching", source=source, objects=len(entries), total_bytes=self._total)

    def waits(self, reason: str) -> None:
        self._say("waiting", reason=reason)

    def advance(self, entry: StorageEntry, size_bytes: int) -> None:
        super().advance(entry, size_bytes)
        with self._lock:
            now = time.monotonic()
            if now - self._said < self._every_seconds:
                return
            self._said, rate = now, self._fetched / (now - self._started)
            left = None if self._total is None or not rate else max(0, self._total - self._done) / rate
            self._say(
                "progress",
                done_bytes=self._done,
                total_bytes=self._total,
                bytes_per_second=round(rate),
                seconds_left=left and round(left, 1),
            )

    def tries_again(self, reason: str) -> None:
        super().tries_again(reason)
        self._complain(reason)

    def comes_again(self, entry: StorageEntry, reason: str) -> None:
        super().comes_again(entry, reason)
        self._complain(reason)

    def end(self, source: str) -> None:
        super().end(source)
        self._say("fetched", source=source, **asdict(self.report()))

    def _complain(self, reason: str) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._complained >= self._every_seconds:
                self._complained = now
                self._say("trying again", reason=reason, retries=self._retries)

    def _say(self, message: str, **fields: object) -> None:
        line = json.dumps({"message": message, **{key: value for key, value in fields.items() if value is not None}})
        self._stream.write(line + "\n")
        self._stream.flush()


class TerminalBars(Tally):
    """A bar for the whole, and below it one for each file that takes longer than a read. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),  # names are anybody's, and may have brackets
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._whole: TaskID | None = None
        self._files: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for file in self._files.values():
            self._bars.remove_task(file)
        self._bars.stop()

    def begin(self, source: str, entries: Sequence[StorageEntry]) -> None:
        super().begin(source, entries)
        self._whole = self._bars.add_task(source, total=self._total)

    def waits(self, reason: str) -> None:
        self._print(reason)

    def advance(self, entry: StorageEntry, size_bytes: int) -> None:
        super().advance(entry, size_bytes)
        self._show(entry)

    def has(self, entry: StorageEntry, size_bytes: int, origin: Origin) -> None:
        super().has(entry, size_bytes, origin)
        self._show(entry)

    def tries_again(self, reason: str) -> None:
        super().tries_again(reason)
        self._print(f"trying again: {reason}")

    def comes_again(self, entry: StorageEntry, reason: str) -> None:
        super().comes_again(entry, reason)
        self._print(f"trying again: {reason}")
        self._show(entry)

    def _print(self, words: str) -> None:
        self._bars.console.print(words, markup=False, highlight=False)

    def _show(self, entry: StorageEntry) -> None:
        """Bring the bars to what is counted. Thousands of files come whole by one read, and get no bar of their own."""
        assert self._whole is not None
        with self._lock:
            self._bars.update(self._whole, completed=self._done)
            there, bar = self._there.get(entry.path, 0), self._files.get(entry.path)
            if entry.size_bytes is not None and there >= entry.size_bytes:
                if bar is not None:
                    self._bars.remove_task(self._files.pop(entry.path))
            elif bar is None:
                name = f"  {_shortened(entry.path)}"
                self._files[entry.path] = self._bars.add_task(name, total=entry.size_bytes, completed=there)
            else:
                self._bars.update(bar, completed=there)


def _shortened(path: str) -> str:
    return path if len(path) <= _NAME_CHARACTERS else f"…{path[1 - _NAME_CHARACTERS :]}"
