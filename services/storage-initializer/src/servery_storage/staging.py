"""Where a model lies until it is whole: files, and a journal of what of them is there.

A process that dies leaves both, and the next one goes on from them. The journal trusts the page cache, which outlives a
process but not the machine: it is of one boot, and begins anew with the next.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from servery_sdk.storage import StorageEntry

from servery_storage.plan import Piece

PREFIX = ".servery-fetch-"
_WRONG = -1  # in an offset's place
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Staging:
    """The staging directory of one source and one target. Who uses it holds the directory's lock.

    Attributes:
        lock: Its descriptor, for processes that write here as well; -1 until it is held.
    """

    def __init__(self, source: str, target: Path) -> None:
        name = hashlib.sha256(source.encode()).hexdigest()[:12]
        # Within a volume that is mounted at the target, or else beside it, whence one rename can replace the target.
        self._inside = target.is_mount() or not os.access(target.parent, os.W_OK)
        at = target / f"{PREFIX}{name}" if self._inside else target.with_name(f"{PREFIX}{target.name}-{name}")
        self.directory = at
        self.files = at / "files"
        self._journal_path = at / "journal"
        self.lock = -1
        self._journal = -1
        self._number: dict[str, int] = {}
        self._pieces: set[tuple[int, int]] = set()
        self._whole: set[int] = set()

    def close(self) -> None:
        """Close the journal."""
        if self._journal >= 0:
            os.close(self._journal)
            self._journal = -1

    def folds_case(self) -> bool:
        """Whether the volume takes upper and lower case for the same."""
        return self.directory.with_name(self.directory.name.upper()).exists()

    def begin(self, entries: Sequence[StorageEntry], piece_bytes: int) -> None:
        """Take up what an earlier process left, if it was after the very same objects; else begin anew."""
        self._number = {entry.path: number for number, entry in enumerate(entries)}
        first = _listing(entries, piece_bytes)
        lines = self._journal_path.read_text().split("\n") if self._journal_path.exists() else []
        if lines and lines[0] == first:
            # Of what follows the last newline the writer may have died.
            for line in lines[1:-1]:
                self._recall(*json.loads(line))
        else:
            self.clear()
        self._journal = os.open(self._journal_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if not lines or lines[0] != first:
            os.write(self._journal, f"{first}\n".encode())
        elif lines[-1]:
            os.ftruncate(self._journal, len("\n".join(lines[:-1]).encode()) + 1)
        self.files.mkdir(exist_ok=True)
        for folder in {entry.path.rpartition("/")[0] for entry in entries}:
            (self.files / folder).mkdir(parents=True, exist_ok=True)

    def _recall(self, number: int, offset: int | None = None) -> None:
        if offset is None:
            self._whole.add(number)
        elif offset == _WRONG:
            self._pieces = {piece for piece in self._pieces if piece[0] != number}
        else:
            self._pieces.add((number, offset))

    def path(self, entry: StorageEntry) -> str:
        """Return where an object is put together. Text: ``pathlib`` costs a small object as much as its request."""
        return f"{self.files}/{entry.path}"

    def is_whole(self, entry: StorageEntry) -> bool:
        """Whether the object is there and verified."""
        return self._number[entry.path] in self._whole

    def used_bytes(self, entries: Iterable[StorageEntry]) -> int:
        """Return what the volume already holds of ``entries``."""
        paths = map(self.path, entries)
        return sum(os.stat(path).st_blocks * 512 for path in paths if os.path.exists(path))

    def missing(self, pieces: Sequence[Piece]) -> Sequence[Piece]:
        """Return those of one object's pieces that are still to be fetched.

        The last is fetched again where all are there and none has verified them: the sum may come with an answer.
        """
        number = self._number[pieces[0].entry.path]
        missing = [piece for piece in pieces if (number, piece.offset) not in self._pieces]
        return missing or pieces[-1:]

    def piece_is_there(self, piece: Piece) -> None:
        """Note that a piece's bytes are written."""
        self._note(f"[{self._number[piece.entry.path]}, {piece.offset}]")

    def entry_is_whole(self, entry: StorageEntry) -> None:
        """Note that an object is whole and verified."""
        self._note(f"[{self._number[entry.path]}]")

    def entry_is_wrong(self, entry: StorageEntry) -> None:
        """Forget an object whose bytes are not those of its source."""
        self._note(f"[{self._number[entry.path]}, {_WRONG}]")

    def _note(self, line: str) -> None:
        os.write(self._journal, f"{line}\n".encode())

    def clear(self) -> None:
        """Empty the directory."""
        self._pieces.clear()
        self._whole.clear()
        for path in self.directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remove(self) -> None:
        """Take the directory away, with all that is in it."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _listing(entries: Iterable[StorageEntry], piece_bytes: int) -> str:
    """Return one line that differs where a journal's notes would mean something else."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    told = [[entry.path, entry.source, entry.size_bytes, entry.version, str(entry.digest)] for entry in entries]
    listing = hashlib.sha256(json.dumps(told).encode()).hexdigest()
    return json.dumps({"boot": boot, "listing": listing, "piece_bytes": piece_bytes})
