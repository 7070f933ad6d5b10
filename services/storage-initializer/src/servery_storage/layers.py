"""Unpacks the archives of which a model is made: an image's layers, in their order, with their whiteouts."""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageEntry, Unpack

from servery_storage.archive import reading, said_of
from servery_storage.tars import Tar
from servery_storage.tree import BadArchive, Bounds, Tree

_WHITEOUT, _OPAQUE, _RESERVED = ".wh.", ".wh..wh..opq", ".wh..wh."


def unpack_layers(
    entries: Sequence[StorageEntry],
    files: Path,
    target: Path,
    bounds: Bounds,
    *,
    wants: Callable[[str], bool],
    folds_case: bool = False,
) -> None:
    """Make the tree of which ``entries`` are the parts in the empty directory ``target``.

    Args:
        entries: Archives and files; files win.
        files: Where their bytes lie, by their paths; nothing there is changed.
        bounds: On what all archives hold together.
        wants: Whether a member, by its path in the model, is wanted.

    Raises:
        BadArchive: No archive, a member outside the target, a link out, a device, or more than ``bounds`` allow.
        Permanent: The archives hold nothing that is wanted.
    """
    tree = Tree(target, bounds, folds_case=folds_case)
    archives = [(entry.unpack, files / entry.path) for entry in entries if entry.unpack is not None]
    for unpack, path in sorted(archives, key=lambda archive: archive[0].order):
        tree.opens(path)
        _Layer(path, unpack, tree, wants).unpack()
    with said_of(" and ".join(path.name for _, path in archives)):
        tree.check_links()
    for entry in entries:
        if entry.unpack is None:
            tree.make_way(entry.path, is_directory=False)
            tree.adopt(entry.path, files / entry.path)
    if not any(path.is_file() for path in target.rglob("*")):
        below = sorted({f"{unpack.below}/" for unpack, _ in archives if unpack.below})
        raise Permanent(
            f"no model found: none of {len(archives)} layers has a wanted file {' or '.join(below)}".rstrip()
        )


class _Layer:
    """One archive on its way into the tree; ``made`` are the paths that it has put there, which its own whiteouts spare."""

    def __init__(self, path: Path, unpack: Unpack, tree: Tree, wants: Callable[[str], bool]) -> None:
        self._path, self._rules, self._tree, self._wants = path, unpack, tree, wants
        self._made: set[str] = set()

    def unpack(self) -> None:
        """Unpack all of it."""
        with said_of(self._path.name), reading(self._path, self._tree) as reader:
            tar = Tar(reader)
            for member in tar:
                self._tree.charge(member.name, member.size)
                self._member(tar, member)

    def _member(self, tar: Tar, member: tarfile.TarInfo) -> None:
        path = self._inner(member.name)
        name = path.rpartition("/")[2]
        if self._rules.has_whiteouts and name.startswith(_WHITEOUT):
            if name == _OPAQUE:
                self._hide(path.rpartition("/")[0], is_opaque=True)
            elif not name.startswith(_RESERVED):
                hidden = name.removeprefix(_WHITEOUT)
                if hidden in {"", ".", ".."}:
                    raise BadArchive(f"{member.name!r} is a whiteout of no name")
                self._hide(posixpath.join(path.rpartition("/")[0], hidden), is_opaque=False)
            return
        relative = self._below(path)
        if not relative or not (member.isdir() or self._wants(relative)):
            return
        self._tree.make_way(relative, is_directory=member.isdir())
        to = self._linked(member, path, relative) if member.issym() or member.islnk() else ""
        tar.put(member, relative, to, self._tree)
        self._made.update([relative, *map(str, PurePosixPath(relative).parents)])

    def _inner(self, name: str) -> str:
        """Return a member's path from the archive's root, without a slash at its beginning."""
        parts = [part for part in name.split("/") if part not in {"", "."}]
        if ".." in parts:
            raise BadArchive(f"{name!r} would be written outside the model's directory")
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
            raise BadArchive(f"{member.name!r} is a link to {member.linkname!r}, out of the model")
        return target if member.islnk() else posixpath.relpath(target or ".", posixpath.dirname(relative) or ".")

    def _hide(self, path: str, *, is_opaque: bool) -> None:
        """Delete what earlier layers have at ``path``, or only what they have in it."""
        below = self._rules.below
        covers_all = below and (not path or below == path or below.startswith(f"{path}/"))
        relative = "" if covers_all else self._below(path)
        if relative is None:
            return
        if not relative or is_opaque or relative in self._made:
            self._clear(relative)
        else:
            self._tree.remove(relative)

    def _clear(self, directory: str) -> None:
        """Delete what is not of this layer."""
        for path in self._tree.inside(directory):
            if path in self._made:
                self._clear(path)
            else:
                self._tree.remove(path)
