"""The Google Cloud Storage provider, as Servery finds it. Its SDK is imported when the first URI is met."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Sink, StorageEntry, StorageProvider, StorageUri, path_below

CHUNK_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 30.0
"""For one answer. The caller tries again, so the SDK does not."""


class GcsProvider:
    """Objects of Google Cloud Storage, with the default credentials, or without any where there are none."""

    name = "gcs"
    schemes = frozenset({"gs"})

    def __init__(self) -> None:
        self._made: Any = None

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the object of exactly this name, or all below ``name/``."""
        for entry in await asyncio.to_thread(lambda: list(self._entries(uri))):
            yield entry

    def _entries(self, uri: StorageUri) -> Iterator[StorageEntry]:
        prefix = uri.path.rstrip("/")
        with _translated(str(uri)):
            for blob in self._client().list_blobs(uri.host, prefix=prefix, timeout=TIMEOUT_SECONDS, retry=None):
                relative = path_below(blob.name, prefix)
                if relative is not None and not blob.name.endswith("/"):
                    yield StorageEntry(
                        path=relative,
                        source=f"{uri.host}/{blob.name}",
                        size_bytes=blob.size,
                        version=str(blob.generation),
                    )

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Read the object from ``offset`` on; it must still be the generation that was listed."""
        await asyncio.to_thread(self._fetch, entry, sink, offset)

    def _fetch(self, entry: StorageEntry, sink: Sink, offset: int) -> None:
        bucket, _, name = entry.source.partition("/")
        blob = self._client().bucket(bucket).blob(name, generation=int(entry.version or 0) or None)
        while offset < (entry.size_bytes or 0):
            with _translated(f"gs://{entry.source}"):
                chunk = blob.download_as_bytes(
                    start=offset,
                    end=offset + CHUNK_BYTES - 1,
                    checksum=None,  # of the whole object only
                    timeout=TIMEOUT_SECONDS,
                    retry=None,
                )
            # Outside: what the disk says is not the bucket's doing.
            sink.write(chunk)
            offset += len(chunk)

    def _client(self) -> Any:
        if self._made is None:
            from google.auth.exceptions import DefaultCredentialsError  # a second that others need not wait
            from google.cloud import storage

            if os.environ.get("STORAGE_EMULATOR_HOST"):
                self._made = storage.Client.create_anonymous_client()
            else:
                try:
                    self._made = storage.Client()
                except DefaultCredentialsError:
                    self._made = storage.Client.create_anonymous_client()
        return self._made


class _translated:  # noqa: N801  # reads as a statement
    """Turns the SDK's errors into ours."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from google.api_core import exceptions as sdk
        from google.auth.exceptions import GoogleAuthError, TransportError

        # The SDK lets what its HTTP library raises pass, all of it OSErrors.
        if isinstance(error, sdk.ServerError | sdk.TooManyRequests | sdk.RetryError | TransportError | OSError):
            raise Transient(f"{self._what}: {error}") from error
        if isinstance(error, sdk.GoogleAPICallError | GoogleAuthError):
            raise Permanent(f"{self._what}: {error}") from error


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute Google Cloud Storage."""
    yield GcsProvider()
