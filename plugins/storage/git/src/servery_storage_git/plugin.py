"""The provider of models in git repositories, as Servery finds it. dulwich is imported when the first URI is met."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servery_sdk.errors import Permanent
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Sink, StorageEntry, StorageProvider, StorageUri, path_below

from servery_storage_git.access import Access
from servery_storage_git.uris import SCHEMES, Place, is_repository, place_of

if TYPE_CHECKING:
    from servery_storage_git.checkout import Checkout, File

MAX_CHECKOUTS = 8
"""Kept below the directory of temporary files; who lists a ninth repository meanwhile loses the oldest."""

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    checkout: Checkout
    place: Place
    access: Access

    def source(self, path: str) -> str:
        return f"{self.place.url}@{self.checkout.commit}//{path}"


class GitProvider:
    """Files of git repositories as of one commit, and what LFS keeps of them.

    Listing fetches the commit, without history, below ``TMPDIR``; fetching copies from there, or from the LFS server.

    Environment: ``GIT_USERNAME`` and ``GIT_PASSWORD`` or ``GIT_TOKEN``, ``GIT_SSL_CAINFO``, ``GIT_SSL_NO_VERIFY``,
    ``GIT_SSH_COMMAND``.
    """

    name = "git"
    schemes = SCHEMES

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._kept: OrderedDict[Path, _Kept] = OrderedDict()
        self._keeping = threading.Lock()

    def claims(self, uri: StorageUri) -> bool:
        """Return whether the URI is a git repository's, of HTTP's scheme too: ``https://host/models.git``."""
        return is_repository(uri)

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the file of exactly this path, or all below ``path/``, of the commit that the reference now is."""
        kept = await asyncio.to_thread(self._checked_out, uri)
        for path, file in sorted(kept.checkout.files.items()):
            relative = path_below(path, kept.place.folder)
            assert relative is not None
            yield StorageEntry(
                path=relative,
                source=kept.source(path),
                size_bytes=file.size_bytes,
                version=file.version,
                digest=file.digest,
                has_ranges=file.copy is None,
            )

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Write the file's bytes from ``offset`` on, of the commit that was listed."""
        kept, file = self._found(entry)
        if file.copy is not None:
            await asyncio.to_thread(_copy, file.copy, sink, offset)
        elif offset < file.size_bytes:
            from servery_storage_git import lfs

            await lfs.fetch(
                file,
                sink,
                offset=offset,
                endpoint=lfs.endpoint_of(kept.place.url, kept.checkout.lfs_url),
                repository=kept.place.url,
                access=kept.access,
                what=entry.source,
            )

    def _checked_out(self, uri: StorageUri) -> _Kept:
        from servery_storage_git.checkout import checked_out

        place = place_of(uri)
        access = Access.of(place, self._environment)
        directory = Path(tempfile.mkdtemp(prefix="servery-git-"))
        try:
            made = checked_out(place, access, directory, _said(uri, place))
            kept = _Kept(checkout=made, place=place, access=access)
        except BaseException:
            shutil.rmtree(directory)
            raise
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        with self._keeping:
            self._kept[directory] = kept
            if len(self._kept) > MAX_CHECKOUTS:
                oldest, _ = self._kept.popitem(last=False)
                shutil.rmtree(oldest)
        return kept

    def _found(self, entry: StorageEntry) -> tuple[_Kept, File]:
        with self._keeping:
            for kept in reversed(self._kept.values()):
                path = entry.source.removeprefix(kept.source(""))
                if path != entry.source and (file := kept.checkout.files.get(path)) is not None:
                    return kept, file
        raise Permanent(f"{entry.source}: its checkout is gone from this machine; list the repository again")


def _said(uri: StorageUri, place: Place) -> str:
    """Return the URI for messages, without a password."""
    return str(uri).replace(f":{place.password}@", "@") if place.password else str(uri)


def _copy(source: Path, sink: Sink, offset: int) -> None:
    with source.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(CHUNK_BYTES):
            sink.write(chunk)


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute git."""
    yield GitProvider()
