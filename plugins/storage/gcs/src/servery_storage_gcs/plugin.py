"""The Google Cloud Storage provider, as Servery finds it. Its SDK is imported when the first URI is met; it lists and
finds tokens, and the engine reads.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageProvider, StorageUri, path_below

TIMEOUT_SECONDS = 30.0
"""For one answer. The caller tries again, so the SDK does not."""
SCOPE = "https://www.googleapis.com/auth/devstorage.read_only"
_FIELDS = "items(name,size,generation,crc32c,contentEncoding),nextPageToken"


class GcsProvider:
    """Objects of Google Cloud Storage, with the default credentials, or without any where there are none.

    Environment: Google's own, ``GOOGLE_APPLICATION_CREDENTIALS``, ``GOOGLE_CLOUD_QUOTA_PROJECT`` (who pays for a bucket
    whose readers pay) and ``STORAGE_EMULATOR_HOST`` (asked without credentials) among them.
    """

    name = "gcs"
    schemes = frozenset({"gs"})

    def __init__(self) -> None:
        self._made: Any = None
        self._credentials: Any = None
        self._lock = threading.Lock()

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the object of exactly this name, or all below ``name/``."""
        for entry in await asyncio.to_thread(lambda: list(self._entries(uri))):
            yield entry

    def _entries(self, uri: StorageUri) -> Iterator[StorageEntry]:
        from servery_storage_gcs.failures import translated  # the SDK: a second that others need not wait

        if not uri.host:
            raise Permanent(f"{uri}: names no bucket; write gs://bucket/path")
        prefix = uri.path.rstrip("/")
        with translated(str(uri), uri.host):
            for blob in self._client().list_blobs(
                uri.host, prefix=prefix, fields=_FIELDS, timeout=TIMEOUT_SECONDS, retry=None
            ):
                relative = path_below(blob.name, prefix)
                if relative is not None and not blob.name.endswith("/"):
                    yield _entry(uri.host, blob, relative)

    def locate(self, entry: StorageEntry) -> Location:
        """Return the URL of the generation that was listed, and a token that is valid now."""
        from servery_storage_gcs.failures import translated

        bucket, _, name = entry.source.partition("/")
        headers: dict[str, str] = {}
        with translated(f"gs://{entry.source}", bucket):
            place = f"{self._client().api_endpoint}/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
            url = f"{place}?alt=media&generation={entry.version}"
            if self._credentials is not None:
                with self._lock:  # One thread finds a new token for all.
                    self._credentials.before_request(_transport(), "GET", url, headers)
        return Location(url=url, headers={name.lower(): value for name, value in headers.items()})

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what Google's answer says. The next request has a new token where this one's was refused."""
        from servery_storage_gcs.failures import sentence

        what, words = f"gs://{entry.source}", refusal.body.decode(errors="replace").strip()
        if refusal.status == HTTPStatus.UNAUTHORIZED and self._credentials is not None:
            with self._lock:
                self._credentials.token = None
            return Transient(f"{what}: 401: {words}")
        plain = refusal.failure(what)
        if isinstance(plain, Transient):
            return plain
        return Permanent(
            f"{what}: {sentence(refusal.status, entry.source.partition('/')[0], what)} ({refusal.status} {words})"
        )

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return the sum that was listed: an answer's is of what is stored, even where it is sent unpacked."""
        return entry.digest

    def _client(self) -> Any:
        with self._lock:
            if self._made is None:
                self._made, self._credentials = _connected()
            return self._made


def _connected() -> tuple[Any, Any]:
    """Return a client, and its credentials if it has any."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client.create_anonymous_client(), None
    try:
        credentials, project = google.auth.default(scopes=[SCOPE])
    except DefaultCredentialsError:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            raise  # They are meant, and are not there or are none.
        return storage.Client.create_anonymous_client(), None
    # Who reads has no use for a project, and the SDK will not do without.
    return storage.Client(project=project or "none", credentials=credentials), credentials


def _transport() -> Any:
    import google.auth.transport.requests

    return google.auth.transport.requests.Request()


def _entry(bucket: str, blob: Any, path: str) -> StorageEntry:
    source, version = f"{bucket}/{blob.name}", str(blob.generation)
    if blob.content_encoding == "gzip":
        # It is sent unpacked to who does not ask for gzip: of another size and sum than is listed, and whole.
        return StorageEntry(path=path, source=source, version=version, has_ranges=False)
    return StorageEntry(
        path=path,
        source=source,
        size_bytes=blob.size,
        version=version,
        digest=Digest.of_base64(DigestAlgorithm.CRC32C, blob.crc32c) if blob.crc32c else None,
    )


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute Google Cloud Storage."""
    yield GcsProvider()
