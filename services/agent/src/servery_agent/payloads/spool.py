"""Writes the log to disk, in a thread of its own: whoever logs hands over a list, and never waits."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from servery_agent.payloads.ledger import Count, Ledger
from servery_agent.payloads.segments import head_of_block, path_of, size_bytes, spares

logger = logging.getLogger(__name__)

_MAX_SEGMENT_BYTES = 4 * 1024 * 1024
_MIN_SEGMENT_BYTES = 64 * 1024
_SEGMENTS = 16
"""Parts that the bound is divided into: what is delivered frees its disk that much at a time."""
LONG_BYTES = 4096
"""Of pieces on the average, from which on joining them costs more than it saves."""
_PIECES = 512
"""Of one call; the system takes 1024."""
BLOCK_BYTES = 1024 * 1024
"""Beyond it a list is written in several blocks: who reads holds one at a time."""


class Batch:
    """What is written at once.

    Attributes:
        pieces: Records' bytes, in two or more pieces each.
        ends: Behind each record, the number of pieces so far and of bytes.
    """

    __slots__ = ("ends", "first", "pieces", "size")

    def __init__(self, first: int) -> None:
        self.first = first
        self.pieces: list[bytes | memoryview] = []
        self.ends: list[tuple[int, int]] = []
        self.size = 0

    def add(self, *pieces: bytes | memoryview) -> None:
        """Add a record."""
        self.pieces += pieces
        self.size += sum(map(len, pieces))
        self.ends.append((len(self.pieces), self.size))


class Spool:
    """Of one folder; ``close`` returns once all that was handed over is on disk or counted as dropped.

    It is not synchronized with the disk: the system keeps what a killed process wrote, and the volume of a pod does not
    outlive its machine.

    Args:
        max_bytes: Of all segments. What comes when they are full is dropped, and counted.
        on_written: Called by the thread after each list.

    Attributes:
        taken_bytes: Of all that was handed over, what is no longer in memory.
    """

    def __init__(self, folder: Path, ledger: Ledger, max_bytes: int, on_written: Callable[[], None]) -> None:
        self._folder = folder
        self._ledger = ledger
        self._max_bytes = max_bytes
        self._segment_bytes = max(min(max_bytes // _SEGMENTS, _MAX_SEGMENT_BYTES), _MIN_SEGMENT_BYTES)
        self._on_written = on_written
        self._lists: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._file = -1
        self._written_bytes = 0
        self.used_bytes = size_bytes(folder)
        self.taken_bytes = 0
        self._is_full = False
        self._thread = threading.Thread(target=self._run, name="payload-spool", daemon=True)
        self._thread.start()

    def put(self, batch: Batch) -> None:
        """Hand over what is to be written."""
        self._lists.put(batch)

    def close(self) -> None:
        """Write what is left."""
        self._lists.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (batch := self._lists.get()) is not None:
            self._write(batch)
            self._on_written()
        self._end_segment()

    def _write(self, batch: Batch) -> None:
        done = 0
        for until in _cuts(batch):
            pieces_from, bytes_from = batch.ends[done - 1] if done else (0, 0)
            pieces_to, bytes_to = batch.ends[until - 1]
            first, count = batch.first + done, until - done
            if not self._has_room(bytes_to - bytes_from):
                self._ledger.add(Count.DROPPED_SPOOL_FULL, count)
            else:
                self._append(batch.pieces[pieces_from:pieces_to], first, count)
            self._ledger[Count.ACCOUNTED] = first + count - 1
            done = until
        self.taken_bytes += batch.size

    def _has_room(self, size: int) -> bool:
        if self.used_bytes + size > self._max_bytes:
            # What was delivered since is gone.
            self.used_bytes = size_bytes(self._folder)
        if self.used_bytes + size > self._max_bytes and (found := spares(self._folder)):
            for spare in found:
                spare.unlink()
            self.used_bytes = size_bytes(self._folder)
        is_full = self.used_bytes + size > self._max_bytes
        if is_full != self._is_full:
            self._is_full = is_full
            logger.warning(
                "the payload log's spool is full, events are dropped"
                if is_full
                else "the payload log's spool has room",
                extra={"bytes": self.used_bytes},
            )
        return not is_full

    def _append(self, pieces: list[bytes | memoryview], first: int, count: int) -> None:
        try:
            if self._file < 0:
                path = path_of(self._folder, first)
                for spare in spares(self._folder)[-1:]:
                    # The last one to be read is the likeliest to be in the processor's cache.
                    spare.rename(path)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._written_bytes = 0
            size = _write_all(self._file, pieces, first, count)
        except OSError as error:
            logger.warning("the payload log cannot be written, events are dropped", extra={"reason": str(error)})
            self._ledger.add(Count.DROPPED_DISK, count)
            self._end_segment()
            return
        self._ledger.add(Count.SPOOLED_BYTES, size)
        self.used_bytes += size
        self._written_bytes += size
        if self._written_bytes >= self._segment_bytes:
            self._end_segment()

    def _end_segment(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _write_all(file: int, pieces: list[bytes | memoryview], first: int, count: int) -> int:
    """Write a block; return its bytes. Short pieces are joined first; long ones need not be copied for that."""
    if sum(map(len, pieces)) < LONG_BYTES * len(pieces):
        # Before the checksum, too: requests wait for the interpreter as long as this looks at pieces one by one.
        pieces = [b"".join(pieces)]
    # The checksum's library takes no view, but an array of it.
    looked_at = [np.frombuffer(piece, np.uint8) if isinstance(piece, memoryview) else piece for piece in pieces]
    pieces = [head_of_block(looked_at, first, count), *pieces]
    for at in range(0, len(pieces), _PIECES):
        some = pieces[at : at + _PIECES]
        written = os.writev(file, some)
        if written < sum(map(len, some)):
            left = memoryview(b"".join(some))[written:]
            while left:
                left = left[os.write(file, left) :]
    return sum(map(len, pieces))


def _cuts(batch: Batch) -> list[int]:
    """Return the counts of records at which blocks end."""
    cuts: list[int] = []
    begun = 0
    for index, (_, size) in enumerate(batch.ends, start=1):
        if size - begun >= BLOCK_BYTES or index == len(batch.ends):
            cuts.append(index)
            begun = size
    return cuts
