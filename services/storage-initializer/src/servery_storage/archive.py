"""Unpacks an archive that somebody else made: nothing outside the target, no links out, no bombs."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

from servery_sdk.errors import Permanent

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")


class BadArchive(Permanent):
    """The archive is broken or wants what it may not."""


def is_archive(path: Path) -> bool:
    """Return whether the name is an archive's."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path, *, max_bytes: int) -> None:
    """Unpack ``archive`` into the empty directory ``target``.

    Raises:
        BadArchive: Not an archive, a member outside the target, a link out, a device, or more than ``max_bytes``.
    """
    try:
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, target, max_bytes)
        else:
            _untar(archive, target, max_bytes)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BadArchive(f"{archive.name}: failed to unpack: {error}") from error


def _untar(archive: Path, target: Path, max_bytes: int) -> None:
    budget = max_bytes
    with tarfile.open(archive) as tar:
        for member in tar:
            budget = _charged(archive, member.name, member.size, budget, max_bytes)
            # The "data" filter refuses absolute names, "..", links out of the target and devices.
            tar.extract(member, target, filter="data")


def _unzip(archive: Path, target: Path, max_bytes: int) -> None:
    budget = max_bytes
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            budget = _charged(archive, member.filename, member.file_size, budget, max_bytes)
            path = (target / member.filename).resolve()
            if not path.is_relative_to(target.resolve()):
                raise BadArchive(f"{archive.name}: {member.filename!r} would be written outside the model's directory")
            if stat.S_ISLNK(member.external_attr >> 16):
                raise BadArchive(f"{archive.name}: {member.filename!r} is a link; zip archives may not hold links")
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with zipped.open(member) as source, path.open("wb") as sink:
                shutil.copyfileobj(source, sink)


def _charged(archive: Path, name: str, size: int, budget: int, max_bytes: int) -> int:
    if size > budget:
        raise BadArchive(
            f"{archive.name}: more than {max_bytes} bytes unpacked, at {name!r}; raise the bound if it is right"
        )
    return budget - size
