"""The S3 provider, as Servery finds it. boto3 is imported when the first URI is met; it lists and signs, and the engine
reads.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageProvider, StorageUri, path_below

from servery_storage_s3.settings import settings_of

if TYPE_CHECKING:
    from servery_storage_s3.connections import Connections

_MD5 = re.compile(r"[0-9a-f]{32}")
_SAID = re.compile(rb"<(Code|Message|Region|Token-0)>([^<]*)<")


class S3Provider:
    """Objects of Amazon S3 and what speaks like it.

    Environment: the AWS SDK's own, ``AWS_REGION``, ``AWS_REQUEST_PAYER``, and KServe's ``S3_ENDPOINT``,
    ``S3_USE_HTTPS``, ``S3_VERIFY_SSL``, ``S3_USER_VIRTUAL_BUCKET``, ``S3_USE_ACCELERATE``, ``S3_CONNECT_TIMEOUT``,
    ``S3_READ_TIMEOUT``, ``S3_MAX_ATTEMPTS``, ``awsAnonymousCredential``, ``CA_BUNDLE_CONFIGMAP_NAME``,
    ``CA_BUNDLE_VOLUME_MOUNT_POINT``, ``STORAGE_CONFIG`` and ``STORAGE_OVERRIDE_CONFIG``.
    """

    name = "s3"
    schemes = frozenset({"s3"})

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._made: Connections | None = None
        self._making = threading.Lock()

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the object of exactly this key, or all below ``key/``. ``s3://bucket@region/…`` is OME's spelling."""
        pages = self._pages(uri)
        while (page := await asyncio.to_thread(lambda: next(pages, None))) is not None:
            for entry in page:
                yield entry

    def _pages(self, uri: StorageUri) -> Iterator[Sequence[StorageEntry]]:
        from servery_storage_s3.failures import translated

        connections = self._connections()
        settings = connections.settings
        bucket, _, region = (settings.bucket if uri.host == "<bucket>" else uri.host).partition("@")
        if not bucket:
            raise Permanent(f"{uri}: names no bucket; write s3://bucket/path")
        if region:
            connections.learn(bucket, region)
        prefix = uri.path.rstrip("/")
        asked = {"Bucket": bucket, "Prefix": prefix}
        if settings.is_requester_paying:
            asked["RequestPayer"] = "requester"
        with translated(str(uri), bucket, settings.endpoint_url):
            for page in connections.client(bucket).get_paginator("list_objects_v2").paginate(**asked):
                yield [
                    StorageEntry(
                        path=relative,
                        source=f"{bucket}/{found['Key']}",
                        size_bytes=found["Size"],
                        # Servers of plain files have none.
                        version=found.get("ETag") or None,
                    )
                    for found in page.get("Contents", ())
                    if (relative := path_below(found["Key"], prefix)) is not None and not found["Key"].endswith("/")
                ]

    def locate(self, entry: StorageEntry) -> Location:
        """Return the object's URL and a signature of its own; it must still be the object that was listed."""
        from servery_storage_s3.failures import translated

        bucket, _, key = entry.source.partition("/")
        connections = self._connections()
        settings = connections.settings
        headers = {"x-amz-checksum-mode": "ENABLED"}
        if settings.is_requester_paying:
            headers["x-amz-request-payer"] = "requester"
        if entry.version is not None:
            headers["if-match"] = entry.version
        with translated(f"s3://{entry.source}", bucket, settings.endpoint_url):
            url, signed = connections.get(bucket, key, headers)
            return Location(url=url, headers=signed, tls=settings.tls)

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what S3's error document says. Of a bucket that is elsewhere the region is kept, and credentials that
        have run out are looked for again.
        """
        from servery_storage_s3.failures import ELSEWHERE, EXPIRED, failure, translated

        what, bucket = f"s3://{entry.source}", entry.source.partition("/")[0]
        said = {name.decode(): text.decode(errors="replace") for name, text in _SAID.findall(refusal.body)}
        code, words = said.get("Code", ""), said.get("Message", "")
        region = refusal.headers.get("x-amz-bucket-region") or said.get("Region")
        connections = self._connections()
        if code in ELSEWHERE and region and connections.learn(bucket, region):
            return Transient(f"{what}: the bucket is in region {region}")
        if code in EXPIRED:
            with translated(what, bucket, connections.settings.endpoint_url):
                if connections.renew(said.get("Token-0", "")):
                    return Transient(f"{what}: {code}: {words}")
        if not code:
            return refusal.failure(what)
        return failure(what, bucket, code, words, retry_after_seconds=refusal.retry_after_seconds)

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return the checksum that was stored with the object, or else the MD5 that the ETag is of an object that was
        put in one piece and not encrypted by a key of one's own.
        """
        if headers.get("x-amz-checksum-type", "FULL_OBJECT") == "FULL_OBJECT":
            for algorithm in (
                DigestAlgorithm.CRC32C,
                DigestAlgorithm.CRC32,
                DigestAlgorithm.SHA1,
                DigestAlgorithm.SHA256,
            ):
                # A sum of a multipart object's parts' sums ends in their number.
                if (said := headers.get(f"x-amz-checksum-{algorithm}")) and "-" not in said:
                    return Digest.of_base64(algorithm, said)
        etag = headers.get("etag", "").strip('"')
        is_encrypted = headers.get("x-amz-server-side-encryption", "AES256") != "AES256" or (
            "x-amz-server-side-encryption-customer-algorithm" in headers
        )
        return Digest.of_hex(DigestAlgorithm.MD5, etag) if _MD5.fullmatch(etag) and not is_encrypted else None

    def _connections(self) -> Connections:
        from servery_storage_s3.connections import Connections  # half a second that other schemes need not wait

        with self._making:
            if self._made is None:
                self._made = Connections(settings_of(self._environment))
            return self._made


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute S3."""
    yield S3Provider()
