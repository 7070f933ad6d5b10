"""The spool's files: blocks of records, each with its length and its checksum, in segments named by their first number.

A process that is killed may leave half a block at the end of its segment; the next one begins a new segment, so whoever
reads takes what is wrong for the end of its segment.

A segment whose records are settled is a spare, and written over: its pages are in memory already, and to have new ones costs
two to fifteen times what it costs to fill them. What is left in it of its earlier life has numbers before its first.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import google_crc32c

if TYPE_CHECKING:
    # The process that delivers has no other use for it.
    import numpy as np
    import numpy.typing as npt

_HEAD = struct.Struct("<4sIIIQ")
_MAGIC = b"SPL1"
_SUFFIX = ".spool"
_SPARE = ".spare"
_SPARES = 8
"""That are kept."""
_LONG_BYTES = 4096
"""Of a record on the average, from which on a block is read where it lies: a map costs as much as to copy some pages."""


@dataclass(frozen=True, slots=True)
class Block:
    """Records that were written at once.

    Attributes:
        first: Number of the first record.
        content: Bytes, or a view of a map of the segment, which is kept as long as there are views of it.
        begin: Offset of that in its segment.
    """

    first: int
    count: int
    content: bytes | memoryview
    begin: int

    @property
    def last(self) -> int:
        """Number of the last record."""
        return self.first + self.count - 1

    @property
    def end(self) -> int:
        """Offset behind it in its segment."""
        return self.begin + len(self.content)


class Segment:
    """One that is read, open until it is closed.

    Attributes:
        first: Number of its first record.
    """

    __slots__ = ("_file", "first", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.first = first_of(path)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def block(self, offset: int, is_known: Callable[[int, int], bool] | None = None) -> Block | None:
        """Return the block at ``offset``, None where there is none that is whole and right.

        Args:
            is_known: Says of a block, by its first record's number and its last one's, that all of it was written.
        """
        head = os.pread(self._file, _HEAD.size, offset)
        if len(head) < _HEAD.size:
            return None
        magic, checksum, size, count, first = _HEAD.unpack(head)
        if magic != _MAGIC or first < self.first or not count:
            return None
        is_right = is_known is not None and is_known(first, first + count - 1)
        begin = offset + _HEAD.size
        if size < _LONG_BYTES * count:
            short = os.pread(self._file, size, begin)
            is_right = len(short) == size and (is_right or _checksum((short,), first, count) == checksum)
            return Block(first, count, short, begin) if is_right else None
        before = begin % mmap.ALLOCATIONGRANULARITY
        try:
            # Of our own where it is written, which it is not: the checksum's library takes no buffer that is only read.
            mapped = mmap.mmap(self._file, before + size, access=mmap.ACCESS_COPY, offset=begin - before)
        except ValueError:
            # It ends before.
            return None
        if not is_right:
            content = (ctypes.c_char * size).from_buffer(mapped, before)
            if _checksum((content,), first, count) != checksum:
                return None
        return Block(first, count, memoryview(mapped)[before:].toreadonly(), begin)

    def close(self) -> None:
        """Read no more."""
        os.close(self._file)

    def retire(self) -> None:
        """Let go of it, as ``retire`` does of one that is not open."""
        self.close()
        retire(self.path)


def head_of_block(pieces: Sequence[bytes | npt.NDArray[np.uint8]], first: int, count: int) -> bytes:
    """Return what stands before a block's pieces."""
    return _HEAD.pack(_MAGIC, _checksum(pieces, first, count), sum(map(len, pieces)), count, first)


def _checksum(
    pieces: Iterable[bytes | npt.NDArray[np.uint8] | ctypes.Array[ctypes.c_char]], first: int, count: int
) -> int:
    # CRC-32C, for which processors have an instruction: ten times as fast as zlib's.
    checksum: int = google_crc32c.value(b"%d %d" % (first, count))
    for piece in pieces:
        checksum = google_crc32c.extend(checksum, piece)
    return checksum


def path_of(folder: Path, first: int) -> Path:
    """Return the segment whose first record has this number."""
    return folder / f"{first:020d}{_SUFFIX}"


def segments(folder: Path) -> list[Path]:
    """Return the segments that are there, the oldest first."""
    return sorted(folder.glob(f"*{_SUFFIX}"))


def first_of(segment: Path) -> int:
    """Return the number of a segment's first record."""
    return int(segment.stem)


def retire(path: Path) -> None:
    """Let go of a segment: it is a spare, or removed where there are enough of them."""
    if len(spares(path.parent)) < _SPARES:
        path.rename(path.with_suffix(_SPARE))
    else:
        path.unlink()


def spares(folder: Path) -> list[Path]:
    """Return the segments that may be written over, the oldest first."""
    return sorted(folder.glob(f"*{_SPARE}"))


def last_number(folder: Path) -> int:
    """Return the number of the last record that can be read, 0 where there is none."""
    for path in reversed(segments(folder)):
        segment = Segment(path)
        last, offset = 0, 0
        while (block := segment.block(offset)) is not None:
            last, offset = block.last, block.end
        segment.close()
        if last:
            return last
    return 0


def size_bytes(folder: Path) -> int:
    """Return what all segments and spares hold; one that goes away meanwhile counts for nothing."""
    found = 0
    for segment in (*segments(folder), *spares(folder)):
        try:
            found += segment.stat().st_size
        except FileNotFoundError:
            continue
    return found
