"""The sources that need no SDK: files, and HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Sink, StorageEntry, StorageProvider, StorageUri

CHUNK_BYTES = 1024 * 1024
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


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


class HttpProvider:
    """``http(s)://`` URIs: one file, which may be an archive."""

    name = "http"
    schemes = frozenset({"http", "https"})

    def __init__(self) -> None:
        self._timeout = httpx.Timeout(30.0)

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the one file of the URL, named as the server or the path names it."""
        name = uri.path.rpartition("/")[2]
        async with self._client() as client:
            try:
                response = await client.head(uri.text)
            except httpx.TransportError as error:
                raise _unreachable(uri.text, error) from error
        if response.status_code not in {405, 501}:
            _raise_for(uri.text, response)
        disposition = re.search(r'filename="?([^";/\\]+)', response.headers.get("content-disposition", ""))
        name = disposition[1] if disposition else name
        if not name:
            raise Permanent(f"{uri}: no filename in the URI; end the path with one")
        size = response.headers.get("content-length") if response.is_success else None
        yield StorageEntry(
            path=name,
            source=uri.text,
            size_bytes=int(size) if size and "content-encoding" not in response.headers else None,
            version=response.headers.get("etag"),
        )

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Read the file from ``offset`` on, by a range where there is one."""
        headers = {"accept-encoding": "identity"}
        if offset:
            headers["range"] = f"bytes={offset}-"
        try:
            async with self._client() as client, client.stream("GET", entry.source, headers=headers) as response:
                if response.status_code == 416 and offset == _length(response, entry):
                    return  # All of it is there already, and no server sends a range of nothing.
                _raise_for(entry.source, response)
                skip = offset if response.status_code == 200 else 0
                # As it comes: what is gathered to larger pieces would be lost when the connection breaks.
                async for chunk in response.aiter_raw():
                    skipped = min(skip, len(chunk))
                    skip -= skipped
                    sink.write(chunk[skipped:])
        except (httpx.TransportError, httpx.TooManyRedirects) as error:
            raise _unreachable(entry.source, error) from error

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=self._timeout, follow_redirects=True, max_redirects=10)


def _length(response: httpx.Response, entry: StorageEntry) -> int | None:
    """Return the object's bytes, as the server says beside a range that it cannot send, or else as it was listed."""
    said = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("content-range", ""))
    return int(said[1]) if said else entry.size_bytes


def _unreachable(url: str, error: Exception) -> Permanent | Transient:
    if isinstance(error, httpx.TooManyRedirects | httpx.UnsupportedProtocol):
        return Permanent(f"{url}: {error}")
    return Transient(f"{url}: {type(error).__name__}: {error}")


def _raise_for(url: str, response: httpx.Response) -> None:
    if response.is_success:
        return
    message = f"{url}: the server answered {response.status_code} {response.reason_phrase}"
    if response.status_code in _RETRIED:
        raise Transient(message, retry_after_seconds=_retry_after(response))
    raise Permanent(message)


def _retry_after(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    try:
        wanted, now = parsedate_to_datetime(value), parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return None
    return max(0.0, (wanted - now).total_seconds())


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute files and HTTP."""
    yield FileProvider()
    yield HttpProvider()
