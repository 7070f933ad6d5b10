"""One object on its way to the disk: its pieces come in any order and from several threads, its sum follows in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from servery_sdk.digests import Digest, Hasher, hasher
from servery_sdk.errors import Transient
from servery_sdk.storage import StorageEntry

from servery_storage.plan import Piece
from servery_storage.splicing import Pipe

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL


class Mismatch(Transient):
    """The bytes that came are not those whose sum the source gives."""


def mismatch(entry: StorageEntry, told: Digest, found: Digest) -> Mismatch:
    """Return what is said of an object whose sum is not the one that its source tells."""
    return Mismatch(f"object {entry.source!r}: its {told} came as {found}; the bytes are not those of the source")


class Assembly:
    """A file that is put together.

    A whole object's one piece is summed as it comes. Of several pieces, who brings the one that the sum waits for reads
    it back, and those behind it that are there, out of the page cache.

    Args:
        pieces: All of the object's, in its order.
        missing: Those that are still to come.
    """

    def __init__(self, entry: StorageEntry, path: str, pieces: Sequence[Piece], missing: Sequence[Piece]) -> None:
        self.entry, self.pieces = entry, pieces
        self.mismatches = 0
        self.missing = missing
        self._path = path
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._descriptor = -1
        self._restart(missing)

    def _restart(self, missing: Sequence[Piece]) -> None:
        self._missing = {piece.offset for piece in missing}
        self._digest: Digest | None = None
        self._hasher: Hasher | None = None
        self._next = 0  # the piece that the sum waits for
        self._summing = False

    def restart(self) -> Sequence[Piece]:
        """Return all pieces, to be fetched again."""
        self._restart(self.pieces)
        return self.pieces

    def open(self, digest: Digest | None) -> int:
        """Return the file's descriptor; ``digest`` is what the source says, as far as it is known by now."""
        with self._lock:
            if self._descriptor < 0:
                self._descriptor = self._opened()
            if self._digest is None and digest is not None:
                self._digest, self._hasher = digest, hasher(digest.algorithm)
            return self._descriptor

    def _opened(self) -> int:
        if len(self._missing) < len(self.pieces):
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            return os.open(self._path, _NEW, 0o644)
        except FileExistsError:
            # Who died here may have had a hard link to the cache's own object.
            os.unlink(self._path)
            return os.open(self._path, _NEW, 0o644)

    def write(self, view: memoryview, at: int) -> None:
        """Write at an offset. Of a single piece this comes in order, and is summed.

        The pieces' threads take turns: the kernel lets one of them write to a file, and the others burn a processor each
        while they ask whether it is done.
        """
        if len(self.pieces) == 1 and self._hasher is not None:
            self._hasher.update(view)
        while view:
            with self._turn:
                written = os.pwrite(self._descriptor, view, at)
            view, at = view[written:], at + written

    @property
    def is_summed_behind(self) -> bool:
        """Whether no byte need be seen as it is written."""
        return len(self.pieces) > 1 or self._hasher is None

    def pour(self, pipe: Pipe, size_bytes: int, at: int) -> None:
        """Write what is in ``pipe`` at an offset, where ``is_summed_behind``."""
        while size_bytes:
            with self._turn:
                poured = pipe.empty(self._descriptor, size_bytes, at)
            size_bytes, at = size_bytes - poured, at + poured

    def begin_again(self) -> None:
        """Forget what came of the single piece."""
        if self._digest is not None:
            self._hasher = hasher(self._digest.algorithm)

    def came(self, piece: Piece, buffer: memoryview) -> bool:
        """Note that a piece is written; return whether the object is whole now, which one caller is told.

        Args:
            buffer: To read back through.

        Raises:
            Mismatch: It is whole, and wrong.
        """
        with self._lock:
            self._missing.discard(piece.offset)
            if self._summing:
                return False  # Who sums comes by.
            self._summing = True
        is_single = len(self.pieces) == 1
        while True:
            with self._lock:
                if self._next == len(self.pieces):
                    break
                waited = self.pieces[self._next]
                if waited.offset in self._missing:
                    self._summing = False
                    return False
                self._next += 1
            if not is_single and self._hasher is not None:
                self._sum(waited, buffer)
        self._end()
        return True

    def _sum(self, piece: Piece, buffer: memoryview) -> None:
        assert self._hasher is not None
        at, end = piece.offset, piece.offset + (piece.size_bytes or 0)
        while at < end:
            read = os.preadv(self._descriptor, [buffer[: end - at]], at)
            self._hasher.update(buffer[:read])
            at += read

    def _end(self) -> None:
        self.close()
        if self._digest is None or self._hasher is None:
            return
        found = Digest(self._digest.algorithm, self._hasher.digest())
        if found != self._digest:
            raise mismatch(self.entry, self._digest, found)

    def cut(self, size_bytes: int) -> None:
        """Let the file end at ``size_bytes``."""
        os.ftruncate(self._descriptor, size_bytes)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1
