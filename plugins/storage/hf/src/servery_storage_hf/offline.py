"""What the hub's client keeps on this machine, read where ``HF_HUB_OFFLINE`` says that there is no hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent
from servery_sdk.storage import Sink, StorageEntry, StorageUri, path_below

from servery_storage_hf.uris import HUB

CHUNK_BYTES = 1024 * 1024
_SHA256_DIGITS = 64


def is_offline(environment: Mapping[str, str]) -> bool:
    """Return whether the environment forbids the network, in the client's own words."""
    said = environment.get("HF_HUB_OFFLINE") or environment.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in {"1", "ON", "YES", "TRUE"}


class CachedHub:
    """Models in the client's cache: ``HF_HUB_CACHE``, or ``hub`` below ``HF_HOME``.

    It holds what some download left there, which may be a part of the model: only the hub knows all of it.
    """

    name = "hf"
    schemes = frozenset({"hf"})

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the file of exactly this path, or all below ``path/``, of the commit that the revision last was."""
        for entry in await asyncio.to_thread(lambda: list(_entries(uri))):
            yield entry

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Copy the file from ``offset`` on."""
        await asyncio.to_thread(_copy, entry, sink, offset)


def _entries(uri: StorageUri) -> Iterator[StorageEntry]:
    from huggingface_hub import snapshot_download

    from servery_storage_hf.failures import translated

    place = HUB.place_of(uri)
    with translated(str(uri)):
        root = Path(snapshot_download(place.repository, revision=place.revision, local_files_only=True))
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        relative = path_below(file.relative_to(root).as_posix(), place.path)
        if relative is not None:
            # The cache names content by the hub's ETag, which is the SHA-256 of a large file.
            etag = file.resolve().name if file.is_symlink() else None
            yield StorageEntry(
                path=relative,
                source=str(file),
                size_bytes=file.stat().st_size,
                version=etag,
                digest=Digest.of_hex(DigestAlgorithm.SHA256, etag) if etag and len(etag) == _SHA256_DIGITS else None,
            )


def _copy(entry: StorageEntry, sink: Sink, offset: int) -> None:
    source = Path(entry.source)
    try:
        file = source.open("rb")
    except OSError as error:
        raise Permanent(f"{entry.source}: {error.strerror}") from error
    with file:
        file.seek(offset)
        while chunk := file.read(CHUNK_BYTES):
            sink.write(chunk)
