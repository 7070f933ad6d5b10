"""TorchServe's model archives: a manifest, a handler and weights in a zip (``.mar``), a ``.tar.gz`` or a directory.

Source: the torch model archiver's README.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from servery_sdk.serving import LoadError

MANIFEST = PurePosixPath("MAR-INF/MANIFEST.json")
SUFFIXES = (".mar", ".tar.gz", ".tgz")
WORKFLOW = ".war"
"""The end of the names of archives that say how requests go through several models."""
MAX_BYTES = 64 * 2**30
"""Of an archive's files together, once unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An archive's description of itself; ``document`` is all of it, as handlers read it."""

    name: str
    version: str
    handler: str
    requirements: str | None
    document: Mapping[str, Any]

    def of_version(self, version: str) -> Manifest:
        """Return the manifest under another version's name."""
        return replace(self, version=version)


def found(folder: Path) -> Iterator[Path]:
    """Yield what in ``folder`` is an archive, or ``folder`` itself if it is one that lies unpacked."""
    if not folder.is_dir():
        return
    if (folder / MANIFEST).is_file():
        yield folder
        return
    for path in folder.iterdir():
        if path.name.endswith(SUFFIXES) or (path / MANIFEST).is_file():
            yield path


def manifest(path: Path, *, expected: Path) -> Manifest:
    """Return the manifest of the archive at ``path``.

    Args:
        path: A file or a directory.
        expected: Where archives lie; listed if this one is not there.

    Raises:
        LoadError: No such archive, or no manifest that can be read.
    """
    if path.suffix == WORKFLOW:
        raise LoadError(
            f"{path}: is a workflow archive, which is not served: serve each of its models from the model store, and "
            "say how requests go through them in an InferenceGraph"
        )
    if not path.exists():
        present = ", ".join(sorted(entry.name for entry in found(expected))) or "none"
        raise LoadError(f"{path}: no such archive; {expected} holds: {present}")
    try:
        document = json.loads(_read(path))
        model = document["model"]
        return Manifest(
            name=str(model["modelName"]),
            version=str(model.get("modelVersion", "1.0")),
            handler=str(model["handler"]),
            requirements=model.get("requirementsFile"),
            document=document,
        )
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(
            f"{path}: {MANIFEST} must be JSON with model.modelName and model.handler: {type(error).__name__}: {error}"
        ) from error


def _read(path: Path) -> bytes:
    try:
        if path.is_dir():
            return (path / MANIFEST).read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as packed:
                return packed.read(str(MANIFEST))
        with tarfile.open(path) as tar:
            for member in tar:
                if PurePosixPath(member.name) == MANIFEST and (file := tar.extractfile(member)) is not None:
                    return file.read()
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise LoadError(f"{path}: is neither a zip nor a tar archive: {error}") from error
    except KeyError:
        pass
    raise LoadError(f"{path}: has no {MANIFEST}; make it with torch-model-archiver")


def unpack(path: Path, target: Path) -> Path:
    """Return the directory of the archive's files: ``target``, or ``path`` itself where it is a directory.

    Raises:
        LoadError: A member leads out of ``target``, is no plain file, or all together are too large.
    """
    if path.is_dir():
        return path
    left = MAX_BYTES
    try:
        for name, content in _members(path):
            relative = PurePosixPath(name)
            if relative.is_absolute() or ".." in relative.parts or "\\" in name:
                raise LoadError(f"{path}: member {name!r} leads out of the archive")
            file = target / relative
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as out:
                shutil.copyfileobj(_Bounded(content, left, path), out)
                left -= out.tell()
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise LoadError(f"{path}: cannot be unpacked: {error}") from error
    return target


def _members(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            for info in packed.infolist():
                if not info.is_dir():
                    with packed.open(info) as content:
                        yield info.filename, content
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isdir():
                continue
            opened = tar.extractfile(member) if member.isfile() else None
            if opened is None:
                raise LoadError(f"{path}: member {member.name!r} is no plain file; links are not followed")
            yield member.name, opened


class _Bounded:
    """A file of which at most ``left`` bytes are read: what a header says of a size may be a lie."""

    def __init__(self, content: IO[bytes], left: int, path: Path) -> None:
        self._content, self._left, self._path = content, left, path

    def read(self, size: int = -1) -> bytes:
        chunk = self._content.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise LoadError(f"{self._path}: holds more than {MAX_BYTES} bytes")
        return chunk
