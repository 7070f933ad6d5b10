"""List, fetch at once, verify, place: one engine for all providers.

Everything is written below a hidden directory on the target's own volume and renamed into place at the end, so a reader
of the target sees the whole model or none of it.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from servery_sdk.errors import Permanent, ServeryError, Transient
from servery_sdk.storage import StorageEntry, StorageProvider, StorageUri

from servery_storage.archive import is_archive, unpack
from servery_storage.patterns import Patterns
from servery_storage.progress import Progress
from servery_storage.settings import Settings

STAGING_PREFIX = ".servery-fetch-"
_T = TypeVar("_T")


class FetchFailed(Permanent):
    """The model could not be fetched; says the URI, the object and the reason."""


class Engine:
    """Fetches models.

    Args:
        providers: By name; each scheme belongs to one.
        sleep: Waits between tries; tests pass their own clock.
    """

    def __init__(
        self,
        providers: Mapping[str, StorageProvider],
        settings: Settings,
        *,
        patterns: Patterns = Patterns(),  # noqa: B008  # frozen
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._by_scheme = {scheme: provider for provider in providers.values() for scheme in provider.schemes}
        self._settings = settings
        self._patterns = patterns
        self._sleep = sleep

    async def fetch(self, source: str, target: Path, progress: Progress) -> None:
        """Put the model at ``source`` into the directory ``target``.

        Raises:
            FetchFailed: It could not be done; ``target`` holds nothing of it.
        """
        uri = StorageUri.parse(source)
        provider = self._provider(uri)
        target.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=target))
        try:
            entries = await self._listed(provider, uri)
            progress.begin(source, entries)
            await self._fetch_all(provider, uri, entries, staging, progress)
            root = self._unpacked(staging, entries)
            _place(root, target)
        except (ServeryError, OSError) as error:
            raise FetchFailed(_said(source, error)) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        progress.end(source)

    def _provider(self, uri: StorageUri) -> StorageProvider:
        found = self._by_scheme.get(uri.scheme)
        if found is None:
            known = ", ".join(f"{scheme}://" for scheme in sorted(self._by_scheme))
            raise FetchFailed(f"cannot recognize storage type for {uri}: known are {known}")
        return found

    async def _listed(self, provider: StorageProvider, uri: StorageUri) -> list[StorageEntry]:
        async def collect() -> list[StorageEntry]:
            return [entry async for entry in provider.list(uri) if self._patterns.wants(entry.path)]

        entries = await self._tried(collect)
        if not entries:
            raise Permanent(f"no model found in {uri}: the source holds no object there")
        for entry in entries:
            path = PurePosixPath(entry.path)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise Permanent(f"object {entry.source!r} would be written outside the model's directory")
        return entries

    async def _fetch_all(
        self,
        provider: StorageProvider,
        uri: StorageUri,
        entries: Sequence[StorageEntry],
        staging: Path,
        progress: Progress,
    ) -> None:
        slots = asyncio.Semaphore(self._settings.max_concurrency)

        async def one(entry: StorageEntry) -> None:
            async with slots:
                await self._fetch_one(provider, entry, staging / entry.path, progress)

        try:
            async with asyncio.TaskGroup() as group:
                for entry in entries:
                    group.create_task(one(entry), name=f"fetch-{entry.path}")
        except BaseExceptionGroup as failures:
            # The first is the cause; the others were cancelled by it or say the same.
            raise failures.exceptions[0] from None

    async def _fetch_one(self, provider: StorageProvider, entry: StorageEntry, path: Path, progress: Progress) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)

        async def attempt() -> None:
            with path.open("ab") as file:
                await provider.fetch(entry, _Counted(file, progress, entry), offset=file.tell())
            size = path.stat().st_size
            if entry.size_bytes is not None and size != entry.size_bytes:
                if size > entry.size_bytes:
                    path.unlink()
                raise Transient(f"object {entry.source!r}: {size} of {entry.size_bytes} bytes came")

        await self._tried(attempt)

    async def _tried(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        for number in range(1, self._settings.max_attempts):
            try:
                return await attempt()
            except Transient as error:
                wait = self._settings.backoff_seconds * 2 ** (number - 1) * random.uniform(0.5, 1.5)  # noqa: S311
                await self._sleep(max(wait, error.retry_after_seconds or 0.0))
        return await attempt()

    def _unpacked(self, staging: Path, entries: Sequence[StorageEntry]) -> Path:
        only = staging / entries[0].path
        if len(entries) != 1 or not is_archive(only):
            return staging
        inside = staging / "unpacked"
        inside.mkdir()
        unpack(only, inside, max_bytes=self._settings.max_unpacked_bytes)
        return inside


class _Counted:
    """A sink that tells the progress."""

    def __init__(self, file: BinaryIO, progress: Progress, entry: StorageEntry) -> None:
        self._file, self._progress, self._entry = file, progress, entry

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._progress.advance(self._entry, len(chunk))


def _place(root: Path, target: Path) -> None:
    """Rename what lies in ``root`` into ``target``, replacing what has the same name."""
    for path in sorted(root.iterdir()):
        final = target / path.name
        if final.is_dir() and not final.is_symlink():
            shutil.rmtree(final)
        path.replace(final)


def _said(source: str, error: ServeryError | OSError) -> str:
    words = str(error)
    return words if source in words else f"{source}: {words}"
