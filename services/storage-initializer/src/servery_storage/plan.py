"""What is fetched in which pieces: pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from servery_sdk.storage import StorageEntry


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of one object. ``size_bytes`` is None where the source does not say where the object ends."""

    entry: StorageEntry
    offset: int
    size_bytes: int | None

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the object."""
        return self.offset == 0 and self.size_bytes == self.entry.size_bytes


def pieces_of(entry: StorageEntry, piece_bytes: int) -> tuple[Piece, ...]:
    """Return an object's pieces, in its order; an empty object is one empty piece."""
    size = entry.size_bytes
    if size is None or size <= piece_bytes or not entry.has_ranges:
        return (Piece(entry, 0, size),)
    return tuple(Piece(entry, start, min(piece_bytes, size - start)) for start in range(0, size, piece_bytes))


def in_order(pieces: Iterable[Piece]) -> list[Piece]:
    """Return pieces as they are best begun: what takes longest first, so that no connection has to wait for the last
    one, and the pieces of one object from its front, so that its sum can follow. What has no size may be the longest.
    """
    return sorted(pieces, key=lambda piece: (piece.size_bytes is not None, -(piece.size_bytes or 0), piece.offset))
