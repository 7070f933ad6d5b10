"""The directory that an archive is unpacked into: nothing is written outside of it, through a link, or beyond bounds."""

from __future__ import annotations

import errno
import os
import posixpath
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from servery_sdk.errors import Permanent

from servery_storage import names

FREE_BYTES = 16 * 1024**2
"""What an archive may hold however small it is: few zeros more are no bomb."""
_MAX_HOPS = 40  # as Linux follows


class BadArchive(Permanent):
    """The archive is broken or wants what it may not."""


class NoRoom(Permanent):
    """What an archive holds does not fit beside the archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What an archive may hold.

    Attributes:
        max_members: Files, links and directories.
        max_ratio: Of the bytes unpacked to those of the archives.
    """

    max_bytes: int
    max_members: int = 100_000
    max_ratio: int = 200


class Tree:
    """A directory, empty at first. Whoever fills it is alone with it.

    Every path is relative, POSIX, and given as the archive has it but for slashes at its end.

    Args:
        folds_case: Whether the volume takes ``A`` and ``a`` for one name.
    """

    def __init__(self, root: Path, bounds: Bounds, *, folds_case: bool = False) -> None:
        self._root, self._bounds, self._folds_case = str(root), bounds, folds_case
        self._members = self._bytes = self._archive_bytes = 0
        self._spelt: dict[str, str] = {}
        self._links: list[str] = []

    def opens(self, archive: Path) -> None:
        """Note that ``archive`` is unpacked next: its size bounds what may come."""
        self._archive_bytes += archive.stat().st_size

    def check_room(self, what: str, size_bytes: int) -> None:
        """See that so much more can be written, before any of it is.

        Raises:
            NoRoom: The volume has less.
        """
        free = shutil.disk_usage(self._root).free
        if size_bytes > free:
            raise NoRoom(f"{what} unpacks to {size_bytes} bytes, and the volume has {free} free; {self._advice}")

    @property
    def _advice(self) -> str:
        return (
            f"what is unpacked, of {self._archive_bytes} bytes, stays there until the model is in place: make the volume "
            "larger, or keep the model unpacked at its source"
        )

    @property
    def may_expand_to_bytes(self) -> int:
        """What all archives so far may be decompressed to."""
        return FREE_BYTES + self._bounds.max_ratio * self._archive_bytes

    def charge(self, name: str, size_bytes: int) -> None:
        """Count a member before anything of it is written.

        Raises:
            BadArchive: It is one too many, or too large.
        """
        if size_bytes < 0:
            raise BadArchive(f"{name!r} has a size of {size_bytes} bytes")
        self._count(name)
        self.grow(name, size_bytes)

    def grow(self, name: str, size_bytes: int) -> None:
        """Count more bytes of a member."""
        self._bytes += size_bytes
        if self._bytes > self._bounds.max_bytes:
            raise BadArchive(
                f"more than {self._bounds.max_bytes} bytes unpacked, at {name!r}; raise the bound if it is right"
            )
        if self._bytes > self.may_expand_to_bytes:
            raise BadArchive(self.too_much(f"at {name!r}"))

    def too_much(self, where: str) -> str:
        """Return what is said of an archive that grows too much."""
        return (
            f"it unpacks to more than {self._bounds.max_ratio} times its size, {where}; raise the bound if it is right"
        )

    def directory(self, path: str) -> None:
        """Make a directory, if it is not there."""
        self._check(path)
        self._make_parents(f"{path}/")

    def file(self, path: str, fill: Callable[[int], object], *, mode: int = 0) -> None:
        """Make a file; ``fill`` writes to its descriptor. Of ``mode``, whether the owner may execute it counts."""
        self._new(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(self._at(path), flags, 0o755 if mode & stat.S_IXUSR else 0o644)
        try:
            fill(descriptor)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise NoRoom(
                f"the volume is full at {path!r}, with {self._bytes} bytes unpacked; {self._advice}"
            ) from error
        finally:
            os.close(descriptor)

    def symbolic_link(self, path: str, to: str) -> None:
        """Make a link to another path of the tree; where it leads is checked once all is there."""
        self._new(path)
        if to.startswith("/"):
            raise BadArchive(f"{path!r} is a link to {to!r}, which is absolute")
        if "\\" in to or "\0" in to or len(to.encode(errors="surrogateescape")) > names.MAX_PATH_BYTES:
            raise BadArchive(f"{path!r} is a link to {to[:80]!r}, which is no path")
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(path), to))
        if inside == ".." or inside.startswith("../"):
            raise BadArchive(f"{path!r} is a link to {to!r}, outside the model's directory")
        os.symlink(to, self._at(path))
        self._links.append(path)

    def hard_link(self, path: str, to: str) -> None:
        """Make a second name of a file that is there."""
        reason = names.wrong(to)
        if reason is not None:
            raise BadArchive(f"{path!r} is a hard link to {to!r}: {reason}")
        self._new(path)
        if self._is_behind_a_link(to) or self._kind(to) != stat.S_IFREG:
            raise BadArchive(f"{path!r} is a hard link to {to!r}, which is no file of the archive before it")
        os.link(self._at(to), self._at(path), follow_symlinks=False)

    def adopt(self, path: str, file: Path) -> None:
        """Put a file that lies elsewhere into the tree, without its bytes being written again where the volume can."""
        self._new(path)
        try:
            os.link(file, self._at(path))
        except OSError:
            shutil.copyfile(file, self._at(path))

    def inside(self, directory: str) -> list[str]:
        """Return what lies in a directory, or in the tree itself: no paths where that is none or lies behind a link."""
        if directory and (self._is_behind_a_link(directory) or self._kind(directory) != stat.S_IFDIR):
            return []
        return [posixpath.join(directory, name) for name in os.listdir(self._at(directory))]

    def remove(self, path: str) -> None:
        """Take away what is there, with all that is in it; what lies behind a link is not there."""
        self._check(path)
        kind = None if self._is_behind_a_link(path) else self._kind(path)
        if kind == stat.S_IFDIR:
            shutil.rmtree(self._at(path))
        elif kind is not None:
            os.unlink(self._at(path))
        if self._folds_case:
            gone = path.casefold()
            self._spelt = {
                name: spelt for name, spelt in self._spelt.items() if name != gone and not name.startswith(f"{gone}/")
            }

    def make_way(self, path: str, *, is_directory: bool) -> None:
        """Take away what stands where a member goes: files are not written into, which links may share, and nothing is
        written through a link to a directory, so where a path leads is what it says.
        """
        self._check(path)
        for parent in _parents(path):
            if self._kind(parent) not in {None, stat.S_IFDIR}:
                self.remove(parent)
        if not (is_directory and self._kind(path) == stat.S_IFDIR):
            self.remove(path)

    def check_links(self) -> None:
        """See that every link leads to a place within the tree, through whatever others it goes.

        Raises:
            BadArchive: One leads out, or round in a circle.
        """
        for path in self._links:
            if self._kind(path) == stat.S_IFLNK:
                self._follow(path)

    def _follow(self, link: str) -> None:
        """Walk as the kernel would, but for the root being no door."""
        left, at, hops = link.split("/")[::-1], list[str](), 0
        while left:
            part = left.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                if not at:
                    raise BadArchive(f"{link!r} is a link that leads outside the model's directory, by other links")
                at.pop()
                continue
            at.append(part)
            if self._kind("/".join(at)) != stat.S_IFLNK:
                continue
            hops += 1
            if hops > _MAX_HOPS:
                raise BadArchive(f"{link!r} is a link that leads round in a circle, or through too many others")
            left += os.readlink(self._at("/".join(at))).split("/")[::-1]
            at.pop()

    def _count(self, name: str) -> None:
        self._members += 1
        if self._members > self._bounds.max_members:
            raise BadArchive(
                f"more than {self._bounds.max_members} files and folders, at {name!r}; raise the bound if it is right"
            )

    def _check(self, path: str) -> None:
        reason = names.wrong(path)
        if reason is not None:
            raise BadArchive(reason)

    def _new(self, path: str) -> None:
        """See that a path may become a file or a link, and that its folders are there."""
        self._check(path)
        self._make_parents(path)
        other = self._spelt.get(path.casefold()) if self._folds_case else None
        if other is not None and other != path:
            raise BadArchive(
                f"{other!r} and {path!r} would be one file, on a volume that takes upper and lower case for the same"
            )
        if self._kind(path) is not None:
            raise BadArchive(f"{path!r} is in the archive twice, or is a folder as well")
        if self._folds_case:
            self._spelt[path.casefold()] = path

    def _make_parents(self, path: str) -> None:
        for parent in _parents(path):
            kind = self._kind(parent)
            if kind is None:
                self._count(path)
                os.mkdir(self._at(parent), 0o755)
            elif kind == stat.S_IFLNK:
                raise BadArchive(f"{path!r} would be written through {parent!r}, which is a link")
            elif kind != stat.S_IFDIR:
                raise BadArchive(f"{path!r} lies in {parent!r}, which is a file")

    def _is_behind_a_link(self, path: str) -> bool:
        return any(self._kind(parent) == stat.S_IFLNK for parent in _parents(path))

    def _kind(self, path: str) -> int | None:
        """Return ``S_IFREG`` and its like, or None where nothing is there."""
        try:
            return stat.S_IFMT(os.lstat(self._at(path)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BadArchive(f"{path[:80]!r}… cannot be reached: {error.strerror}") from error

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def _parents(path: str) -> Iterator[str]:
    """Yield ``a`` and ``a/b`` of ``a/b/c``."""
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)
