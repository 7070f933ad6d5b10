"""How far a fetch is, as the messages of ``servery.storage.v1`` tell it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from servery_sdk.protos.servery.storage.v1 import storage_pb2 as pb
from servery_sdk.storage import StorageEntry

from servery_storage.progress import Tally

MOST_FILES = 1000
"""Of one message: a path may be long, and clients take messages of 4 MiB."""


class Told(Tally):
    """The progress of one fetch.

    Args:
        tells_files: Not only their sum.
    """

    def __init__(self, *, tells_files: bool) -> None:
        super().__init__()
        self._waits = ""
        self._tells_files = tells_files
        self._news: dict[str, StorageEntry] = {}

    def begin(self, source: str, entries: Sequence[StorageEntry]) -> None:
        super().begin(source, entries)
        self._tell(*entries)

    def waits(self, reason: str) -> None:
        self._waits = reason

    def advance(self, entry: StorageEntry, size_bytes: int) -> None:
        self._waits = ""
        super().advance(entry, size_bytes)

    def comes_again(self, entry: StorageEntry, reason: str) -> None:
        super().comes_again(entry, reason)
        with self._lock:
            self._tell(entry)

    def end(self, source: str) -> None:
        self._waits = ""
        super().end(source)
        # Only now it is known that those are whole.
        self._tell(*(entry for entry in self._entries if entry.size_bytes is None))

    @property
    def has_more(self) -> bool:
        """Whether the next message cannot tell of all files of which there is news."""
        return len(self._news) > MOST_FILES

    def message(self, path: Path | None = None) -> pb.FetchProgress:
        """Return what the client is told next; ``path`` is that of the model, where it is in place."""
        with self._lock:
            return pb.FetchProgress(
                objects=len(self._entries),
                done_bytes=self._done,
                total_bytes=self._total,
                waits_for=self._waits,
                path=str(path or ""),
                files=[self._file(self._news.pop(name)) for name in list(islice(self._news, MOST_FILES))],
            )

    def _come(self, entry: StorageEntry, size_bytes: int) -> None:
        super()._come(entry, size_bytes)
        self._tell(entry)

    def _tell(self, *entries: StorageEntry) -> None:
        if self._tells_files:
            self._news.update((entry.path, entry) for entry in entries)

    def _file(self, entry: StorageEntry) -> pb.FileProgress:
        done, total = self._there.get(entry.path, 0), entry.size_bytes
        if self._ended is not None or (total is not None and done >= total):
            state = pb.FILE_STATE_FETCHED
        else:
            state = pb.FILE_STATE_FETCHING if done else pb.FILE_STATE_WAITING
        return pb.FileProgress(path=entry.path, done_bytes=done, total_bytes=total, state=state)
