"""The Google Cloud Storage sink, as Servery finds it. Its SDK is imported when the sink is opened."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.payloads import ObjectOutlet, PayloadSink, SinkTarget


class GcsSink:
    """Objects of Google Cloud Storage, with the default credentials."""

    name = "gcs"
    schemes = frozenset({"gs", "gcs"})

    def open(self, target: SinkTarget) -> ObjectOutlet:
        """Return the way to the bucket."""
        bucket, _, prefix = target.url.partition("://")[2].partition("/")
        if not bucket:
            raise Permanent(f"--log-url: {target.url!r} names no bucket: gs://bucket/prefix")
        return GcsOutlet(bucket, prefix.strip("/"), target)


class GcsOutlet:
    """One bucket."""

    def __init__(self, bucket: str, prefix: str, target: SinkTarget) -> None:
        from google.auth.exceptions import DefaultCredentialsError  # a second that other sinks need not wait
        from google.cloud import storage

        self._prefix = prefix
        self._url = target.url
        self._seconds = target.timeout_seconds
        try:
            is_emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
            self._client: Any = storage.Client.create_anonymous_client() if is_emulated else storage.Client()
        except DefaultCredentialsError as error:
            raise Permanent(f"{target.url}: {error}") from error
        self._bucket = self._client.bucket(bucket)

    async def put(self, key: str, content: bytes, content_type: str) -> None:
        """Put one object, in one piece."""
        await asyncio.to_thread(self._put, f"{self._prefix}/{key}" if self._prefix else key, content, content_type)

    def _put(self, key: str, content: bytes, content_type: str) -> None:
        from google.api_core.exceptions import BadRequest, GoogleAPICallError, RequestRangeNotSatisfiable, RetryError
        from google.auth.exceptions import GoogleAuthError

        try:
            self._bucket.blob(key).upload_from_string(
                content, content_type=content_type, timeout=self._seconds, retry=None, checksum="crc32c"
            )
        except (BadRequest, RequestRangeNotSatisfiable) as error:
            raise Permanent(f"{self._url}: {key}: {error}") from error
        # The SDK lets what its HTTP library raises pass, all of it OSErrors.
        except (GoogleAPICallError, GoogleAuthError, RetryError, OSError) as error:
            raise Transient(f"{self._url}: {key}: {error}") from error

    async def close(self) -> None:
        """Let go of connections."""
        self._client.close()


@hookimpl
def servery_payload_sinks() -> Iterable[PayloadSink]:
    """Contribute Google Cloud Storage."""
    yield GcsSink()
