"""Objects that this node has fetched before, for all of its pods: by what they are, not by who asked.

An object is handed out as a clone where the volume can, else as a hard link, else as a copy. Any number of processes may
use one cache at once: an object appears by a rename, whole, and goes by an unlink, which leaves who has it alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from servery_sdk.digests import DigestAlgorithm
from servery_sdk.storage import StorageEntry

_FICLONE = 0x40049409  # linux/fs.h
_NOT_HERE = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EPERM, errno.EMLINK, errno.ENOSYS}
)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the cache notes beside an object: a hard link lets a pod write into it, which its time of change betrays."""

    size_bytes: int
    changed_ns: int


class Cache:
    """A directory of objects.

    Args:
        max_bytes: Of all objects; the least recently used go first. 0 is no bound.
    """

    def __init__(self, root: Path, *, max_bytes: int = 0) -> None:
        self._objects, self._models = root / "objects", root / "models"
        self._max_bytes = max_bytes
        self._objects.mkdir(parents=True, exist_ok=True)

    @staticmethod
    def key(provider: str, entry: StorageEntry) -> str:
        """Return what an object, which has a version or a digest, is kept under: its SHA-256, or else its place and
        version.
        """
        if entry.digest is not None and entry.digest.algorithm is DigestAlgorithm.SHA256:
            return f"sha256-{entry.digest.value.hex()}"
        told = json.dumps([provider, entry.source, entry.size_bytes, entry.version, str(entry.digest)])
        return f"place-{hashlib.sha256(told.encode()).hexdigest()}"

    def lock_of(self, listing: str) -> Path:
        """Return what who fetches a model holds, so that the others wait and find it here."""
        return self._models / listing

    def take(self, key: str, path: str) -> bool:
        """Put the object at ``path``; return whether it was there, and as it came."""
        kept, stored = self._kept(key), self._objects / key
        try:
            stat = stored.stat()
            if kept is None or (stat.st_size, stat.st_mtime_ns) != (kept.size_bytes, kept.changed_ns):
                self._drop(key)
                return False
            _handed(stored, path)
        except FileNotFoundError:
            return False
        with suppress(FileNotFoundError):
            os.utime(self._note(key))
        return True

    def give(self, key: str, path: str) -> None:
        """Keep the object at ``path``. A cache that is full or broken is no reason to fail: it keeps nothing then."""
        size = os.stat(path).st_size
        if self._max_bytes and size > self._max_bytes:
            return
        with suppress(OSError):
            self._make_room(size)
            with tempfile.TemporaryDirectory(dir=self._objects, prefix=".new-") as new:
                stored, note = Path(new, "object"), Path(new, "note")
                _handed(Path(path), str(stored))
                stat = stored.stat()
                note.write_text(json.dumps([stat.st_size, stat.st_mtime_ns]))
                note.rename(self._note(key))
                stored.rename(self._objects / key)

    def used_bytes(self) -> int:
        """Return the sizes of all objects together."""
        return sum(size for _, size, _ in self._all())

    def _make_room(self, size_bytes: int) -> None:
        if not self._max_bytes:
            return
        kept = sorted(self._all())
        used = sum(size for _, size, _ in kept)
        for _, size, key in kept:
            if used + size_bytes <= self._max_bytes:
                return
            self._drop(key)
            used -= size

    def _all(self) -> Iterator[tuple[float, int, str]]:
        """Yield each object's last use, size and key."""
        for note in self._objects.glob("*.note"):
            key = note.name.removesuffix(".note")
            with suppress(FileNotFoundError):
                yield note.stat().st_mtime, (self._objects / key).stat().st_size, key

    def _kept(self, key: str) -> _Kept | None:
        try:
            return _Kept(*json.loads(self._note(key).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _note(self, key: str) -> Path:
        return self._objects / f"{key}.note"

    def _drop(self, key: str) -> None:
        (self._objects / key).unlink(missing_ok=True)
        self._note(key).unlink(missing_ok=True)


def _handed(source: Path, target: str) -> None:
    """Give ``target`` the bytes of ``source``: shared until one is written to, or shared for good, or its own."""
    with suppress(FileNotFoundError):
        os.unlink(target)
    for way in (_clone, os.link, _copy):
        try:
            way(str(source), target)
        except OSError as error:
            with suppress(FileNotFoundError):
                os.unlink(target)
            if error.errno not in _NOT_HERE or way is _copy:
                raise
        else:
            return


def _clone(source: str, target: str) -> None:
    with open(source, "rb") as read, open(target, "xb") as written:
        fcntl.ioctl(written.fileno(), _FICLONE, read.fileno())
    _as_old(source, target)


def _copy(source: str, target: str) -> None:
    with open(source, "rb") as read, open(target, "xb") as written:
        left = os.fstat(read.fileno()).st_size
        while left:
            left -= os.copy_file_range(read.fileno(), written.fileno(), left)
    _as_old(source, target)


def _as_old(source: str, target: str) -> None:
    stat = os.stat(source)
    os.utime(target, ns=(stat.st_atime_ns, stat.st_mtime_ns))
