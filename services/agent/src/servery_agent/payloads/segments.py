"""The spool's files: blocks of records, each with its length and its checksum, in segments named by their first number.

A process that is killed may leave half a block at the end of its segment; the next one begins a new segment, so whoever
reads takes what is wrong for the end of its segment.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

_HEAD = struct.Struct("<4sIIIQ")
_MAGIC = b"SPL1"
_SUFFIX = ".spool"


@dataclass(frozen=True, slots=True)
class Block:
    """Records that were written at once.

    Attributes:
        first: Number of the first record.
        end: Offset behind it in its segment.
    """

    first: int
    count: int
    content: bytes
    end: int

    @property
    def last(self) -> int:
        """Number of the last record."""
        return self.first + self.count - 1


def head_of_block(pieces: Sequence[bytes], first: int, count: int) -> bytes:
    """Return what stands before a block's pieces."""
    return _HEAD.pack(_MAGIC, _checksum(pieces, first, count), sum(map(len, pieces)), count, first)


def _checksum(pieces: Iterable[bytes], first: int, count: int) -> int:
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


def read_block(segment: Path, offset: int) -> Block | None:
    """Return the block at ``offset``, None where there is none that is whole and right."""
    with segment.open("rb") as file:
        file.seek(offset)
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        magic, checksum, size, count, first = _HEAD.unpack(head)
        if magic != _MAGIC:
            return None
        content = file.read(size)
    if len(content) < size or _checksum((content,), first, count) != checksum:
        return None
    return Block(first, count, content, offset + _HEAD.size + size)


def last_number(folder: Path) -> int:
    """Return the number of the last record that can be read, 0 where there is none."""
    for segment in reversed(segments(folder)):
        last, offset = 0, 0
        while (block := read_block(segment, offset)) is not None:
            last, offset = block.last, block.end
        if last:
            return last
    return 0


def size_bytes(folder: Path) -> int:
    """Return what all segments hold; one that goes away meanwhile counts for nothing."""
    found = 0
    for segment in segments(folder):
        try:
            found += segment.stat().st_size
        except FileNotFoundError:
            continue
    return found
