"""Zip archives put into a tree, where what they say in one place is what they say in the other."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from servery_storage.streams import BUFFER_BYTES, write
from servery_storage.tree import BadArchive, Tree

_MAX_DIRECTORY_BYTES = 64 * 1024**2
"""Of the central directory, which zipfile keeps in memory."""
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2})
"""Those whose memory is bounded: of LZMA an archive says itself how much it wants."""
_ENCRYPTED, _STREAMED, _UTF8 = 0x1, 0x8, 0x800
_LOCAL = struct.Struct("<4s2x2H4x3L2H")
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4s12x2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_UNKNOWN = 0xFFFFFFFF


def unzip(archive: Path, tree: Tree) -> None:
    """Put all of ``archive`` into ``tree``.

    Raises:
        BadArchive: It may not be there, or two readers might find two things in it.
        NoRoom: The volume cannot take what its directory says.
        zipfile.BadZipFile: It is broken.
    """
    with archive.open("rb") as file:
        _check_end(file)
        with zipfile.ZipFile(file) as zipped:
            members = zipped.infolist()
            for member in members:
                _check(member)
                tree.charge(member.orig_filename, member.file_size)
            _check_places(file, members, zipped.start_dir)
            tree.check_room("it", sum(member.file_size for member in members))
            for member in members:
                path = member.orig_filename
                if path.endswith("/"):
                    tree.directory(path.rstrip("/"))
                else:
                    tree.file(path, partial(_fill, zipped, member), mode=_mode(member))


def _fill(zipped: zipfile.ZipFile, member: zipfile.ZipInfo, descriptor: int) -> None:
    left = member.file_size
    with zipped.open(member) as source:
        while chunk := source.read(BUFFER_BYTES):
            left -= len(chunk)
            write(descriptor, chunk)
    if left:
        raise BadArchive(f"{member.filename!r} should have {member.file_size} bytes, and {left} of them did not come")


def _mode(member: zipfile.ZipInfo) -> int:
    return member.external_attr >> 16


def _check(member: zipfile.ZipInfo) -> None:
    name, kind = member.orig_filename, stat.S_IFMT(_mode(member))
    if kind == stat.S_IFLNK:
        raise BadArchive(f"{name!r} is a link; zip archives may not hold links")
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise BadArchive(f"{name!r} is a special file")
    if member.flag_bits & _ENCRYPTED:
        raise BadArchive(f"{name!r} is encrypted")
    if member.compress_type not in _METHODS:
        raise BadArchive(
            f"{name!r} is compressed by method {member.compress_type}; stored, deflate and bzip2 are taken"
        )
    if name.endswith("/") and member.file_size:
        raise BadArchive(f"{name!r} is a folder of {member.file_size} bytes")


def _check_end(file: BinaryIO) -> None:
    """See that the directory's own end is the file's, and that it is of a size to read."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size - 0xFFFF))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise BadArchive("failed to unpack: it has no zip archive's end; it is cut, or is none")
    _, disk, first_disk, _, _, directory_bytes, _, comment_bytes = _END.unpack_from(tail, at)
    follows = len(tail) - at - _END.size - comment_bytes
    if follows:
        raise BadArchive(f"its comment should have {comment_bytes} bytes, and {follows} more follow its end")
    if at >= _LOCATOR_64.size:
        signature, _, place, _ = _LOCATOR_64.unpack_from(tail, at - _LOCATOR_64.size)
        if signature == b"PK\x06\x07":
            file.seek(place)
            record = file.read(_END_64.size)
            if len(record) == _END_64.size and record.startswith(b"PK\x06\x06"):
                _, disk, first_disk, _, _, directory_bytes, _ = _END_64.unpack(record)
    if disk or first_disk:
        raise BadArchive("it is one part of an archive of several")
    if directory_bytes > _MAX_DIRECTORY_BYTES:
        raise BadArchive(f"its directory has {directory_bytes} bytes; {_MAX_DIRECTORY_BYTES} are allowed")


def _check_places(file: BinaryIO, members: Sequence[zipfile.ZipInfo], directory_at: int) -> None:
    """See that each member has bytes of its own, and that what stands before them says the same as the directory.

    Source: David Fifield, "A better zip bomb", WOOT 2019: 46 MB that are 4.5 PB, by members that overlap.
    """
    end, before = 0, ""
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise BadArchive(f"{member.filename!r} overlaps {before!r}, as in a zip bomb")
        file.seek(member.header_offset)
        header = file.read(_LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(b"PK\x03\x04"):
            raise BadArchive(f"{member.filename!r} is not where the directory says")
        _, flags, method, crc, packed, size, name_bytes, extra_bytes = _LOCAL.unpack(header)
        told: list[object] = [file.read(name_bytes), method]
        encoding = "utf-8" if member.flag_bits & _UTF8 else "cp437"
        known: list[object] = [member.orig_filename.encode(encoding), member.compress_type]
        # Of a member that was written as a stream, the sizes follow it; of a large one, they stand in a field of their own.
        if not flags & _STREAMED and _UNKNOWN not in {packed, size}:
            told += [crc, packed, size]
            known += [member.CRC, member.compress_size, member.file_size]
        if told != known or (flags ^ member.flag_bits) & _ENCRYPTED:
            raise BadArchive(f"{member.filename!r} is {known} by the directory, and {told} where it lies")
        before = member.filename
        end = member.header_offset + _LOCAL.size + name_bytes + extra_bytes + member.compress_size
    if end > directory_at:
        raise BadArchive(f"{before!r} overlaps the archive's directory")
