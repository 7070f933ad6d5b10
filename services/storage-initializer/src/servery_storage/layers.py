"""Unpacks the archives of which a model is made: an image's layers, in their order, with their whiteouts."""

from __future__ import annotations

import contextlib
import gzip
import os
import posixpath
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import zstandard
from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageEntry, Unpack

from servery_storage.archive import BadArchive

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_WHITEOUT, _OPAQUE, _RESERVED = ".wh.", ".wh..wh..opq", ".wh..wh."
_BUFFER_BYTES = 256 * 1024


def unpack_layers(
    entries: Sequence[StorageEntry], files: Path, target: Path, *, max_bytes: int, wants: Callable[[str], bool]
) -> None:
    """Make the tree of which ``entries`` are the parts in the empty directory ``target``.

    Args:
        entries: Archives and files; files win.
        files: Where their bytes lie, by their paths; nothing there is changed.
        max_bytes: Bound on what all archives hold.
        wants: Whether a member, by its path in the model, is wanted.

    Raises:
        BadArchive: No archive, a member outside the target, a link out, a device, or more than ``max_bytes``.
        Permanent: The archives hold nothing that is wanted.
    """
    budget = max_bytes
    archives = [(entry.unpack, files / entry.path) for entry in entries if entry.unpack is not None]
    for unpack, path in sorted(archives, key=lambda archive: archive[0].order):
        layer = _Layer(path, unpack, target, wants)
        budget = layer.unpack(budget, max_bytes)
    for entry in entries:
        if entry.unpack is None:
            _link(files / entry.path, target / entry.path)
    if not any(path.is_file() for path in target.rglob("*")):
        below = sorted({f"{unpack.below}/" for unpack, _ in archives if unpack.below})
        raise Permanent(
            f"no model found: none of {len(archives)} layers has a wanted file {' or '.join(below)}".rstrip()
        )


class _Layer:
    """One archive on its way into the tree; ``made`` are the paths that it has put there, which its own whiteouts spare."""

    def __init__(self, path: Path, unpack: Unpack, target: Path, wants: Callable[[str], bool]) -> None:
        self._path, self._rules, self._target, self._wants = path, unpack, target, wants
        self._made: set[str] = set()

    def unpack(self, budget: int, max_bytes: int) -> int:
        """Unpack all of it, and return what is left of ``budget``."""
        try:
            with (
                _plain(self._path) as stream,
                tarfile.open(fileobj=stream, mode="r|", bufsize=_BUFFER_BYTES) as tar,
            ):
                # As large as what is read: 16 KiB at once take twice as long, and copy the buffer each time.
                tar.copybufsize = _BUFFER_BYTES  # type: ignore[attr-defined]  # documented, and not in the stubs
                for member in tar:
                    budget -= max(0, member.size)
                    if budget < 0:
                        raise BadArchive(
                            f"{self._path.name}: more than {max_bytes} bytes unpacked, at {member.name!r}; "
                            "raise the bound if it is right"
                        )
                    self._member(tar, member)
        except (tarfile.TarError, zstandard.ZstdError, zlib.error, EOFError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise BadArchive(f"{self._path.name}: failed to unpack: {error}") from error
        return budget

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = self._inner(member.name)
        name = path.rpartition("/")[2]
        if self._rules.has_whiteouts and name.startswith(_WHITEOUT):
            if name == _OPAQUE:
                self._hide(path.rpartition("/")[0], is_opaque=True)
            elif not name.startswith(_RESERVED):
                self._hide(posixpath.join(path.rpartition("/")[0], name.removeprefix(_WHITEOUT)), is_opaque=False)
            return
        relative = self._below(path)
        if not relative or not (member.isdir() or self._wants(relative)):
            return
        self._make_way(relative, is_directory=member.isdir())
        if member.issym() or member.islnk():
            member = member.replace(linkname=self._linked(member, path, relative), deep=False)
        # The "data" filter refuses what leads out of the target by links that are there, and devices.
        tar.extract(member.replace(name=relative, deep=False), self._target, filter="data")
        self._made.update([relative, *map(str, PurePosixPath(relative).parents)])

    def _inner(self, name: str) -> str:
        """Return a member's path from the archive's root, without a slash at its beginning."""
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise BadArchive(f"{self._path.name}: {name!r} would be written outside the model's directory")
        return "/".join(parts)

    def _below(self, path: str) -> str | None:
        """Return the path in the model: empty for the model's root, None outside of it."""
        below = self._rules.below
        if not below:
            return path
        if path == below:
            return ""
        return path.removeprefix(f"{below}/") if path.startswith(f"{below}/") else None

    def _linked(self, member: tarfile.TarInfo, path: str, relative: str) -> str:
        """Return what a link's target is from where it is put. An absolute one is meant in the archive's root."""
        start = posixpath.dirname(path) if member.issym() else ""
        found = posixpath.normpath(posixpath.join("/", start, member.linkname)).lstrip("/")
        target = self._below(found)
        if target is None:
            raise BadArchive(f"{self._path.name}: {member.name!r} is a link to {member.linkname!r}, out of the model")
        if member.islnk() and not (self._target / target).is_file():
            raise BadArchive(f"{self._path.name}: {member.name!r} is a link to {member.linkname!r}, which is not there")
        return target if member.islnk() else posixpath.relpath(target or ".", posixpath.dirname(relative) or ".")

    def _hide(self, path: str, *, is_opaque: bool) -> None:
        """Delete what earlier layers have at ``path``, or only what they have in it."""
        below = self._rules.below
        covers_all = below and (not path or below == path or below.startswith(f"{path}/"))
        relative = "" if covers_all else self._below(path)
        if relative is None:
            return
        found = self._target / relative
        if not relative or is_opaque or relative in self._made:
            self._clear(found)
        elif found.is_symlink() or found.exists():
            _remove(found)

    def _clear(self, directory: Path) -> None:
        """Delete what is not of this layer."""
        if directory.is_symlink() or not directory.is_dir():
            return
        for path in list(directory.iterdir()):
            if path.relative_to(self._target).as_posix() in self._made:
                self._clear(path)
            else:
                _remove(path)

    def _make_way(self, relative: str, *, is_directory: bool) -> None:
        """Delete what stands where a member goes: files are not written into, which links may share, and nothing is
        written through a link to a directory, so where a path leads is what it says.
        """
        path = self._target / relative
        for part in PurePosixPath(relative).parents:
            parent = self._target / part
            if part.name and (parent.is_symlink() or parent.is_file()):
                _remove(parent)
        if (path.is_symlink() or path.exists()) and not (is_directory and path.is_dir() and not path.is_symlink()):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _link(source: Path, target: Path) -> None:
    """Put a file into the tree without its bytes being written again, where the volume can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        _remove(target)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@contextlib.contextmanager
def _plain(archive: Path) -> Iterator[BinaryIO]:
    """Yield the archive's bytes, decompressed as its own first bytes say: what media types say is often wrong."""
    with archive.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(_GZIP):
            with gzip.GzipFile(fileobj=file) as stream:
                yield cast("BinaryIO", stream)
        elif magic == _ZSTD:
            # Many frames follow each other where a layer can be read in parts.
            with zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader:
                yield cast("BinaryIO", reader)
        else:
            yield file
