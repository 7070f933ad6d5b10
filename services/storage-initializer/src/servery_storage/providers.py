"""The sources that need no SDK: files, and HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from servery_sdk.errors import Permanent
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Sink, StorageEntry, StorageProvider, StorageUri

from servery_storage.web import HttpProvider

CHUNK_BYTES = 1024 * 1024


class FileProvider:
    """``file://`` URIs and plain paths, a mounted claim's among them."""

    name = "file"
    schemes = frozenset({"file"})

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the file, or every file below the directory."""
        root = path_of(uri)
        if root.is_file():
            yield _entry(root, root.name)
        elif root.is_dir():
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    yield _entry(path, path.relative_to(root).as_posix())
        else:
            raise Permanent(f"{uri}: no such file or directory: {root}")

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Copy the file from ``offset`` on."""
        await asyncio.to_thread(_copy, Path(entry.source), sink, offset)


def _copy(source: Path, sink: Sink, offset: int) -> None:
    try:
        file = source.open("rb")
    except (PermissionError, FileNotFoundError) as error:
        raise Permanent(f"{source}: {error.strerror}") from error
    with file:
        file.seek(offset)
        while chunk := file.read(CHUNK_BYTES):
            sink.write(chunk)


def path_of(uri: StorageUri) -> Path:
    """Return the path that a ``file`` URI names: ``file:///abs``, or a plain path, relative ones included."""
    text = uri.text
    return Path(text.removeprefix("file://")) if text else Path("/") / uri.path


def _entry(path: Path, relative: str) -> StorageEntry:
    stat = path.stat()
    return StorageEntry(path=relative, source=str(path), size_bytes=stat.st_size, version=str(stat.st_mtime_ns))


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute files and HTTP."""
    yield FileProvider()
    yield HttpProvider()
