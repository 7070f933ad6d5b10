"""Tar archives, read once through and put into a tree."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import IO, cast

from servery_storage.streams import Reader
from servery_storage.tree import BadArchive, Tree

_MAX_HEADER_BYTES = 1024**2
"""Of one member's headers: GNU's long names, pax's records, a sparse file's map."""


class Tar:
    """One archive.

    Iterated, it gives its members in their order; each may be put into the tree before the next is asked for.

    Raises:
        BadArchive: It does not end as a tar archive does, or something follows it.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        with self._reader.bounded(_MAX_HEADER_BYTES):
            tar = tarfile.TarFile(fileobj=cast("IO[bytes]", self._reader), encoding="utf-8")
            member = tar.next()
        while member is not None:
            yield member
            tar.members.clear()  # type: ignore[attr-defined]  # not in the stubs; it keeps all that it has seen
            with self._reader.bounded(_MAX_HEADER_BYTES):
                member = tar.next()
        self._check_end()

    def _check_end(self) -> None:
        """See that the archive was read to its end: tarfile takes whatever is no header for it."""
        if not self._reader.last:
            raise BadArchive("failed to unpack: it ends without the mark that a tar archive ends with")
        if self._reader.last.strip(b"\0"):
            raise BadArchive(f"failed to unpack: at byte {self._reader.tell()} should be a member, and is none")
        # To the very end, where a compressed file has its sum.
        while chunk := self._reader.read(tarfile.RECORDSIZE):
            if chunk.strip(b"\0"):
                raise BadArchive(f"something follows its end, at byte {self._reader.tell()}")

    def put(self, member: tarfile.TarInfo, path: str, to: str, tree: Tree) -> None:
        """Put the member that was given last into ``tree``.

        Args:
            path: Where.
            to: What a link leads to.

        Raises:
            BadArchive: It may not be there.
            NoRoom: The volume cannot take it.
        """
        if member.isdir():
            tree.directory(path)
        elif member.issym():
            tree.symbolic_link(path, to)
        elif member.islnk():
            tree.hard_link(path, to)
        elif member.isreg():
            tree.check_room(repr(member.name), _written_bytes(member))
            tree.file(path, lambda descriptor: self._fill(member, descriptor), mode=member.mode)
        elif member.ischr() or member.isblk() or member.isfifo():
            raise BadArchive(f"{member.name!r} is a special file")
        else:
            raise BadArchive(f"{member.name!r} is of a type {member.type!r} that no model has")

    def _fill(self, member: tarfile.TarInfo, descriptor: int) -> None:
        self._reader.seek(member.offset_data)
        parts = _parts(member)
        if parts is None:
            self._reader.copy(member.size, descriptor)
            return
        at = 0
        for offset, size in parts:
            if size < 0 or offset < at or offset + size > member.size:
                raise BadArchive(f"{member.name!r} is a sparse file, and its parts lie outside of it or on each other")
            os.lseek(descriptor, offset, os.SEEK_SET)
            self._reader.copy(size, descriptor)
            at = offset + size
        os.ftruncate(descriptor, member.size)


def _parts(member: tarfile.TarInfo) -> list[tuple[int, int]] | None:
    """Return where a sparse file has bytes; None for any other."""
    parts = cast("list[tuple[int, int]] | None", member.sparse)  # the stubs have it wrong
    # A header of GNU's has four places, and those that are not needed say nothing at nothing.
    return None if parts is None else [(offset, size) for offset, size in parts if size]


def _written_bytes(member: tarfile.TarInfo) -> int:
    """Return what a file takes on the disk: of a sparse one, its holes nothing."""
    parts = _parts(member)
    return member.size if parts is None else sum(size for _, size in parts)
