"""List, fetch many pieces at once, verify, place: one engine for all providers.

Everything is written below a hidden directory on the target's own volume and renamed into place at the end, so a reader
of the target sees the whole model or none of it. Another process goes on where one died.
"""

from __future__ import annotations

import asyncio
import errno
import random
import re
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from servery_sdk.errors import ErrorCode, Permanent, ServeryError, Transient
from servery_sdk.storage import (
    Addressed,
    Resolving,
    StorageEntry,
    StorageProvider,
    StorageUri,
    Streamed,
    provider_of,
)

from servery_storage import formats, names, policies, sums
from servery_storage.archive import is_archive, unpack
from servery_storage.assembly import Assembly
from servery_storage.backoff import delay_seconds
from servery_storage.cache import Cache
from servery_storage.crew import LEAST_OBJECTS, Crew, is_small, size_of
from servery_storage.garbage import seldom_collected
from servery_storage.layers import unpack_layers
from servery_storage.lock import held
from servery_storage.mover import Mover
from servery_storage.patterns import Patterns
from servery_storage.place import Record, listing_of, place
from servery_storage.plan import Piece
from servery_storage.progress import Origin, Progress
from servery_storage.settings import Formats, Settings, SignaturePolicy
from servery_storage.staging import Staging
from servery_storage.tree import Bounds

_T = TypeVar("_T")


_SECRET = re.compile(r"([?&](?:sig|[\w-]*(?:signature|token|credential|key))=)[^&\s'\"]+", re.IGNORECASE)
"""What a URI's query holds that no log may: a shared access signature, a presigned URL's."""


class FetchFailed(Permanent):
    """The model could not be fetched; says the URI, the object and the reason."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """One fetch: what, from where, to where, and whom to tell."""

    provider: StorageProvider
    source: str
    target: Path
    patterns: Patterns
    entries: Sequence[StorageEntry]
    progress: Progress
    crew: Crew


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
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._providers = providers
        self._settings = settings
        self._cache = Cache(settings.cache, max_bytes=settings.max_cache_bytes) if settings.cache else None
        self._policies = policies.of(settings)
        self._sleep = sleep

    async def fetch(
        self,
        source: str,
        target: Path,
        progress: Progress,
        patterns: Patterns = Patterns(),  # noqa: B008  # frozen
    ) -> None:
        """Put the model at ``source``, or what of it ``patterns`` want, into the directory ``target``.

        Raises:
            FetchFailed: It could not be done; ``target`` holds nothing of it.
        """
        with seldom_collected():
            await self._fetch(source, target, progress, patterns)

    async def _fetch(self, source: str, target: Path, progress: Progress, patterns: Patterns) -> None:
        crew = Crew()
        try:
            uri = StorageUri.parse(source)
            uri, provider = await self._resolved(uri, progress)
            entries = await self._listed(provider, uri, patterns, progress, crew)
            if (
                self._settings.formats is Formats.SAFETENSORS
                and self._settings.signature_policy is SignaturePolicy.NONE
            ):
                # Who signed the model signed these as well: then they go when that is checked.
                patterns = patterns.but(formats.left_out(entry.path for entry in entries))
                entries = [entry for entry in entries if entry.unpack or patterns.wants(entry.path)]
            progress.begin(source, entries)
            await self._brought(_Wish(provider, source, target, patterns, entries, progress, crew))
        except (ServeryError, OSError) as error:
            code = error.code if isinstance(error, ServeryError) else ErrorCode.INTERNAL
            raise FetchFailed(_said(source, error), code=code) from error
        finally:
            await _in_thread(crew.close)
        progress.end(source)

    async def _brought(self, wish: _Wish) -> None:
        listing = listing_of(wish.entries, wish.patterns)
        kept = listing_of(wish.entries, wish.patterns, *(policy.terms for policy in self._policies))
        wish.target.parent.mkdir(parents=True, exist_ok=True)
        record = Record.path(wish.source, wish.target)
        staging = Staging(wish.source, wish.target)
        async with held(staging.directory) as staging.lock:
            earlier = Record.read(record)
            if earlier is not None and earlier.still_holds(kept, wish.target):
                staging.remove()
                _told_of(wish.entries, wish.progress)
                return
            try:
                names.check(wish.entries, folds_case=staging.folds_case())
                staging.begin(wish.entries, self._settings.piece_bytes)
                await self._fetched(wish, staging, listing)
                root = await _in_thread(lambda: self._checked(wish, staging))
            except Transient:
                raise  # The next process goes on from what is there.
            except (ServeryError, OSError):
                staging.remove()
                raise
            finally:
                staging.close()
            await _in_thread(lambda: _placed(root, wish.target, record, kept, earlier))
            staging.remove()

    async def _fetched(self, wish: _Wish, staging: Staging, listing: str) -> None:
        """See that every entry is whole in ``staging``: from this node's cache, or from its source."""
        missing = [entry for entry in wish.entries if not staging.is_whole(entry)]
        _told_of(set(wish.entries).difference(missing), wish.progress)
        cache = self._cache
        if cache is None or not listing:
            await self._moved(wish, staging, missing)
            return
        keys = {entry: Cache.key(wish.provider.name, entry) for entry in missing}
        async with held(cache.lock_of(listing), lambda: wish.progress.waits("another process fetches the same model")):
            fetched = await _in_thread(lambda: _taken(cache, keys, staging, wish.progress))
            await self._moved(wish, staging, fetched)
            await _in_thread(lambda: _given(cache, {keys[entry]: staging.path(entry) for entry in fetched}))

    async def _resolved(self, uri: StorageUri, progress: Progress) -> tuple[StorageUri, StorageProvider]:
        """Return where the model lies, and who reads it there."""
        while isinstance(provider := self._provider(uri), Resolving):
            found = await self._tried(partial(provider.resolve, uri), progress)
            if found == uri:
                break
            uri = found
        return uri, provider

    def _provider(self, uri: StorageUri) -> StorageProvider:
        found = provider_of(uri, self._providers.values())
        if found is None:
            schemes = {scheme for provider in self._providers.values() for scheme in provider.schemes}
            known = ", ".join(f"{scheme}://" for scheme in sorted(schemes))
            raise FetchFailed(f"cannot recognize storage type for {uri}: known are {known}")
        return found

    async def _listed(
        self, provider: StorageProvider, uri: StorageUri, patterns: Patterns, progress: Progress, crew: Crew
    ) -> list[StorageEntry]:
        async def collect() -> list[StorageEntry]:
            found, small = [], 0
            async for entry in provider.list(uri):
                if entry.unpack or patterns.wants(entry.path):
                    found.append(entry)
                    small += is_small(entry)
                    if small == LEAST_OBJECTS and isinstance(provider, Addressed):
                        crew.start(size_of(self._settings))  # It has time until the rest is listed.
            return found

        entries = await self._tried(collect, progress)
        if not entries:
            raise Permanent(f"no model found in {uri}: the source holds no object there")
        return entries

    def _check_space(self, staging: Staging, missing: Sequence[StorageEntry]) -> None:
        needed = sum(entry.size_bytes or 0 for entry in missing) - staging.used_bytes(missing)
        free = shutil.disk_usage(staging.directory).free
        if needed > free:
            raise Permanent(f"the model needs {needed} bytes more, and the volume of {staging.files} has {free} free")

    async def _moved(self, wish: _Wish, staging: Staging, entries: Sequence[StorageEntry]) -> None:
        self._check_space(staging, entries)
        provider = wish.provider
        if isinstance(provider, Addressed):
            mover = Mover(provider, staging, self._settings, wish.progress, wish.crew)
            await _in_thread(lambda: mover.run(entries), mover.stop)
            return
        assert isinstance(provider, Streamed)
        stream, slots = provider, asyncio.Semaphore(self._settings.max_connections)

        async def one(entry: StorageEntry) -> None:
            async with slots:
                await self._streamed(stream, entry, staging, wish.progress)

        try:
            async with asyncio.TaskGroup() as group:
                for entry in entries:
                    group.create_task(one(entry), name=f"fetch-{entry.path}")
        except BaseExceptionGroup as failures:
            # The first is the cause; the others were cancelled by it or say the same.
            raise failures.exceptions[0] from None

    async def _streamed(self, provider: Streamed, entry: StorageEntry, staging: Staging, progress: Progress) -> None:
        piece = Piece(entry, 0, entry.size_bytes)
        assembly = Assembly(entry, staging.path(entry), (piece,), (piece,))
        sink = _Stream(assembly, progress)

        async def attempt() -> None:
            await provider.fetch(entry, sink, offset=sink.at)
            if entry.size_bytes is not None and sink.at != entry.size_bytes:
                came, sink.at = sink.at, min(sink.at, entry.size_bytes)
                if came > entry.size_bytes:
                    raise Permanent(f"object {entry.source!r}: {entry.size_bytes} bytes were listed, and {came} came")
                raise Transient(f"object {entry.source!r}: {came} of {entry.size_bytes} bytes came")

        assembly.open(entry.digest)
        try:
            await self._tried(attempt, progress)
            assembly.cut(sink.at)
            assembly.came(piece, memoryview(b""))
        finally:
            assembly.close()
        staging.entry_is_whole(entry)

    async def _tried(self, attempt: Callable[[], Awaitable[_T]], progress: Progress) -> _T:
        for tries in range(1, self._settings.max_attempts):
            try:
                return await attempt()
            except Transient as error:
                progress.tries_again(str(error))
                first, jitter = self._settings.backoff_seconds, random.random()  # noqa: S311  # no secret
                await self._sleep(delay_seconds(tries, error, first_seconds=first, jitter=jitter))
        return await attempt()

    def _checked(self, wish: _Wish, staging: Staging) -> Path:
        """Return where the model is whole, and as the policies want it."""
        root = self._unpacked(wish, staging)
        verified = {entry.path for entry in wish.entries if entry.digest is not None and root == staging.files}
        sums.check(root, but=verified, wants=wish.patterns.wants)
        for policy in self._policies:
            policy.check(root)
        return root

    def _unpacked(self, wish: _Wish, staging: Staging) -> Path:
        entries = wish.entries
        only, has_layers = staging.files / entries[0].path, any(entry.unpack for entry in entries)
        if not has_layers and (len(entries) != 1 or not is_archive(only)):
            return staging.files
        inside = staging.directory / "unpacked"
        if inside.exists():
            shutil.rmtree(inside)
        inside.mkdir()
        folds_case = staging.folds_case()
        bounds = Bounds(
            max_bytes=self._settings.max_unpacked_bytes,
            max_members=self._settings.max_unpacked_files,
            max_ratio=self._settings.max_unpacked_ratio,
        )
        if has_layers:
            unpack_layers(entries, staging.files, inside, bounds, wants=wish.patterns.wants, folds_case=folds_case)
        else:
            unpack(only, inside, bounds, folds_case=folds_case)
        return inside


class _Stream:
    """The sink of a provider that moves the bytes itself."""

    def __init__(self, assembly: Assembly, progress: Progress) -> None:
        self._assembly, self._progress = assembly, progress
        self.at = 0

    def write(self, chunk: bytes) -> None:
        self._assembly.write(memoryview(chunk), self.at)
        self.at += len(chunk)
        self._progress.advance(self._assembly.entry, len(chunk))


def _taken(
    cache: Cache, keys: Mapping[StorageEntry, str], staging: Staging, progress: Progress
) -> Sequence[StorageEntry]:
    """Take what the cache has, and return what it has not."""
    missing = []
    for entry, key in keys.items():
        if cache.take(key, staging.path(entry)):
            staging.entry_is_whole(entry)
            progress.has(entry, entry.size_bytes or 0, Origin.CACHE)
        else:
            missing.append(entry)
    return missing


def _told_of(entries: Iterable[StorageEntry], progress: Progress) -> None:
    """Say that ``entries`` are there already."""
    for entry in entries:
        progress.has(entry, entry.size_bytes or 0, Origin.EARLIER)


def _given(cache: Cache, paths: Mapping[str, str]) -> None:
    for key, path in paths.items():
        cache.give(key, path)


def _placed(root: Path, target: Path, record: Path, listing: str, earlier: Record | None) -> None:
    Record.of(listing, root).write(root / record.name)
    place(root, target, record, earlier)


async def _in_thread(call: Callable[[], _T], stop: Callable[[], None] = lambda: None) -> _T:
    """Return what ``call`` does beside the loop. Who is cancelled waits for its end: it writes where others come next."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait([running])
        raise


def _said(source: str, error: ServeryError | OSError) -> str:
    words = str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        words = f"the disk is full: {words}"
    return _SECRET.sub(r"\1…", words if source in words else f"{source}: {words}")
