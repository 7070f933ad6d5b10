"""From the staging directory to the target, and the record that is left there of what came."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from servery_sdk.storage import StorageEntry

from servery_storage.patterns import Patterns

RECORD_PREFIX = ".servery-fetched-"
"""No suffix: runtimes look for their model file by its own."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one fetch put into a target.

    Attributes:
        listing: Of the source's objects, as a sum; empty where the source gives them no version to tell them by.
        files: Relative path to size and time of change in nanoseconds, as they were left.
    """

    listing: str
    files: Mapping[str, tuple[int, int]]

    @classmethod
    def path(cls, source: str, target: Path) -> Path:
        """Return where the record of ``source`` lies."""
        return target / f"{RECORD_PREFIX}{hashlib.sha256(source.encode()).hexdigest()[:12]}"

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Return the record, or None where there is none that can be read."""
        try:
            said = json.loads(path.read_text())
            return cls(said["listing"], {name: (size, changed) for name, (size, changed) in said["files"].items()})
        except (OSError, ValueError, LookupError, TypeError):
            return None

    @classmethod
    def of(cls, listing: str, root: Path) -> Record:
        """Return the record of all files below ``root``."""
        files = {}
        for name in _files_below(str(root)):
            stat = os.lstat(f"{root}/{name}")
            files[name] = (stat.st_size, stat.st_mtime_ns)
        return cls(listing, files)

    def write(self, path: Path) -> None:
        """Write it."""
        path.write_text(json.dumps({"listing": self.listing, "files": self.files}))

    def still_holds(self, listing: str, target: Path) -> bool:
        """Whether ``target`` still has what came, and the source still lists it so."""
        return (
            bool(listing)
            and listing == self.listing
            and all(
                (found := _stat(f"{target}/{name}")) is not None and (found.st_size, found.st_mtime_ns) == left
                for name, left in self.files.items()
            )
        )


def listing_of(entries: Sequence[StorageEntry], patterns: Patterns, *terms: str) -> str:
    """Return a sum that differs where the objects do, what of them is wanted, or the ``terms`` that they are let through
    by; nothing where one has neither version nor digest.
    """
    if any(entry.version is None and entry.digest is None for entry in entries):
        return ""
    told = sorted([entry.path, entry.source, entry.size_bytes, entry.version, str(entry.digest)] for entry in entries)
    return hashlib.sha256(json.dumps([patterns.allow, patterns.ignore, told, *terms]).encode()).hexdigest()


def place(root: Path, target: Path, record: Path, earlier: Record | None) -> None:
    """Move all below ``root`` to ``target``, which then has what another source put there, and of this source only what
    is new.

    A target that is absent or empty, and is no volume's mount, is replaced by one rename. Into another, names are
    renamed one by one: until the last, the staging directory beside them says that they are not all.
    """
    try:
        root.rename(target)
    except OSError:  # A mount, another volume, or not empty.
        new = set(_files_below(str(root)))
        target.mkdir(parents=True, exist_ok=True)
        left = root / record.name
        _merge(root, target, but=left)
        for stale in set(earlier.files if earlier else ()) - new:
            (target / stale).unlink(missing_ok=True)
        left.replace(record)


def _merge(root: Path, target: Path, *, but: Path) -> None:
    for path in sorted(root.iterdir()):
        final = target / path.name
        if path == but:
            continue
        if path.is_dir() and not path.is_symlink():
            if final.is_symlink() or final.is_file():
                final.unlink()
            if not final.exists():
                path.rename(final)
            else:
                _merge(path, final, but=but)
            continue
        if final.is_dir() and not final.is_symlink():
            shutil.rmtree(final)
        path.replace(final)


def _files_below(root: str, within: str = "") -> Iterator[str]:
    """Yield relative paths of files and links; ``pathlib`` takes longer over 2,000 files than it takes to fetch them."""
    with os.scandir(f"{root}/{within}") as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(root, f"{within}{entry.name}/")
            else:
                yield within + entry.name


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None
