"""Unpacks an archive that somebody else made: nothing outside the target, no links out, no bombs."""

from __future__ import annotations

import contextlib
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from servery_storage.streams import BUFFER_BYTES, Reader, is_compressed, plain, write
from servery_storage.tars import Tar
from servery_storage.tree import BadArchive, Bounds, NoRoom, Tree
from servery_storage.zips import unzip

_TARS = (
    ".tar",
    *(f".{suffix}" for suffix in ["tar.gz", "tgz", "tar.zst", "tzst", "tar.bz2", "tbz2", "tbz", "tar.xz", "txz"]),
)
SUFFIXES = (*_TARS, ".zip", ".gz")
BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zstandard.ZstdError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    # tarfile's and zipfile's own, of what no archive has: numbers that are none, members without an end.
    ValueError,
    OverflowError,
    RecursionError,
    NotImplementedError,
)


def is_archive(path: Path) -> bool:
    """Return whether the name is an archive's."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path, bounds: Bounds, *, folds_case: bool = False) -> None:
    """Unpack ``archive`` into the empty directory ``target``; what is compressed by gzip alone is one file.

    Raises:
        BadArchive: Not an archive, a member outside the target, a link out, a device, or more than ``bounds`` allow.
        NoRoom: What it holds does not fit beside it.
    """
    tree, name = Tree(target, bounds, folds_case=folds_case), archive.name.lower()
    with said_of(archive.name):
        tree.opens(archive)
        if name.endswith(".zip"):
            unzip(archive, tree)
            return
        with reading(archive, tree) as reader:
            if name.endswith(_TARS):
                _untar(reader, tree)
            elif not is_compressed(archive):
                raise BadArchive("failed to unpack: it is not compressed by gzip, or by anything else")
            else:
                path = archive.name[: -len(".gz")]
                tree.file(path, lambda descriptor: _expand(reader, tree, path, descriptor))


def _untar(reader: Reader, tree: Tree) -> None:
    tar = Tar(reader)
    for member in tar:
        tree.charge(member.name, member.size)
        path = _relative(member.name)
        if path or not member.isdir():
            tar.put(member, path, _relative(member.linkname) if member.islnk() else member.linkname, tree)
    tree.check_links()


def _expand(reader: Reader, tree: Tree, path: str, descriptor: int) -> None:
    while chunk := reader.read(BUFFER_BYTES):
        tree.grow(path, len(chunk))
        write(descriptor, chunk)


@contextlib.contextmanager
def reading(archive: Path, tree: Tree) -> Iterator[Reader]:
    """Yield what is compressed in ``archive``, as much of it as ``tree`` may take."""
    with plain(archive) as stream:
        yield Reader(stream, max_bytes=tree.may_expand_to_bytes, too_much=tree.too_much)


@contextlib.contextmanager
def said_of(name: str) -> Iterator[None]:
    """Raise whatever is wrong within as a ``BadArchive`` that names the archive, but for what the disk says."""
    try:
        yield
    except (BadArchive, NoRoom) as error:
        raise type(error)(f"{name}: {error}") from error
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadArchive(f"{name}: failed to unpack: {error}") from error


def _relative(name: str) -> str:
    """Return a name as it is below the root, without what tar writes for that and for folders."""
    while name.startswith("./"):
        name = name[2:]
    return "" if name == "." else name.rstrip("/")
