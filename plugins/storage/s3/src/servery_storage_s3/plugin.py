"""The S3 provider, as Servery finds it. boto3 is imported when the first URI is met; it lists and signs, and the engine
reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageProvider, StorageUri, Tls, path_below

_TRANSIENT = frozenset(
    {"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "Throttling", "ExpiredToken", "503", "500"}
)
_MD5 = re.compile(r"[0-9a-f]{32}")
_SAID = re.compile(rb"<(Code|Message)>([^<]*)<")


class S3Provider:
    """Objects of Amazon S3 and what speaks like it.

    Environment: the AWS SDK's own, and KServe's ``S3_ENDPOINT``, ``S3_USE_HTTPS``, ``S3_VERIFY_SSL``,
    ``S3_USER_VIRTUAL_BUCKET``, ``S3_USE_ACCELERATE``, ``awsAnonymousCredential``, ``STORAGE_CONFIG`` and
    ``STORAGE_OVERRIDE_CONFIG``.
    """

    name = "s3"
    schemes = frozenset({"s3"})

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._made: Any = None
        self._making = threading.Lock()
        self._credentials: Any = None
        self._urls: dict[str, str] = {}

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the object of exactly this key, or all below ``key/``."""
        bucket = self._config().get("bucket", "") if uri.host == "<bucket>" else uri.host
        for entry in await asyncio.to_thread(lambda: list(self._entries(bucket, uri.path, uri))):
            yield entry

    def _entries(self, bucket: str, key: str, uri: StorageUri) -> Iterator[StorageEntry]:
        prefix = key.rstrip("/")
        with _translated(str(uri)):
            for page in self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
                for found in page.get("Contents", ()):
                    relative = path_below(found["Key"], prefix)
                    if relative is not None and not found["Key"].endswith("/"):
                        yield StorageEntry(
                            path=relative,
                            source=f"{bucket}/{found['Key']}",
                            size_bytes=found["Size"],
                            version=found["ETag"],
                        )

    def locate(self, entry: StorageEntry) -> Location:
        """Return the object's URL and a signature of its own; it must still be the object that was listed."""
        bucket, _, key = entry.source.partition("/")
        url = self._bucket_url(bucket) + quote(key, safe="/~")
        headers = {"x-amz-checksum-mode": "ENABLED"}
        if entry.version is not None:
            headers["if-match"] = entry.version
        return Location(url=url, headers=self._signed(url, headers), tls=self._tls())

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what S3's error document says."""
        what = f"s3://{entry.source}"
        code, words = _error_of(refusal.body)
        if code in _TRANSIENT:
            return Transient(f"{what}: {code}: {words}", retry_after_seconds=refusal.retry_after_seconds)
        return refusal.failure(what, f"{code}: {words}" if code else "")

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

    def _bucket_url(self, bucket: str) -> str:
        """Return the URL that a key is appended to, as the SDK spells it: endpoint, path or virtual style, region."""
        if bucket not in self._urls:
            with _translated(f"s3://{bucket}"):
                signed = self._client().generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
            self._urls[bucket] = signed.partition("?")[0].removesuffix("k")
        return self._urls[bucket]

    def _signed(self, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        if self._credentials is None:
            return headers
        request = AWSRequest("GET", url, headers)
        request.context["payload_signing_enabled"] = False
        S3SigV4Auth(self._credentials.get_frozen_credentials(), "s3", self._client().meta.region_name).add_auth(request)
        return {name.lower(): value for name, value in request.headers.items()}

    def _config(self) -> Mapping[str, str]:
        given = json.loads(self._environment.get("STORAGE_CONFIG", "{}"))
        return {**given, **json.loads(self._environment.get("STORAGE_OVERRIDE_CONFIG", "{}"))}

    def _tls(self) -> Tls:
        if bundle := self._config().get("ca_bundle") or self._environment.get("AWS_CA_BUNDLE"):
            return Tls(ca_file=Path(bundle))
        return Tls(verify=self._environment.get("S3_VERIFY_SSL", "1").lower() not in {"0", "false"})

    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = self._connect()
            return self._made

    def _connect(self) -> Any:
        import boto3  # half a second that other schemes need not wait
        from botocore import UNSIGNED
        from botocore.config import Config

        environment, config = self._environment, self._config()
        style = "virtual" if _true(environment.get("S3_USER_VIRTUAL_BUCKET")) else "auto"
        s3 = {"addressing_style": style, "use_accelerate_endpoint": _true(environment.get("S3_USE_ACCELERATE"))}
        anonymous = _true(environment.get("awsAnonymousCredential")) or _true(str(config.get("anonymous", "")))
        tls = self._tls()
        session = boto3.Session(
            aws_access_key_id=config.get("access_key_id"),
            aws_secret_access_key=config.get("secret_access_key"),
            region_name=config.get("region"),
        )
        if not anonymous:
            self._credentials = session.get_credentials()
        return session.client(
            "s3",
            endpoint_url=config.get("endpoint_url") or self._endpoint(),
            verify=str(tls.ca_file) if tls.ca_file else tls.verify,
            config=Config(
                s3=s3,
                connect_timeout=15,
                read_timeout=30,
                retries={"max_attempts": 1},
                **({"signature_version": UNSIGNED} if anonymous else {}),
            ),
        )

    def _endpoint(self) -> str | None:
        endpoint = self._environment.get("AWS_ENDPOINT_URL") or self._environment.get("S3_ENDPOINT")
        if not endpoint or "://" in endpoint:
            return endpoint
        plain = self._environment.get("S3_USE_HTTPS", "1").lower() in {"0", "false"}
        return f"{'http' if plain else 'https'}://{endpoint}"


def _error_of(body: bytes) -> tuple[str, str]:
    said = {name.decode(): text.decode(errors="replace") for name, text in _SAID.findall(body)}
    return said.get("Code", ""), said.get("Message", "")


def _true(value: str | None) -> bool:
    return (value or "").lower() in {"1", "true"}


class _translated:  # noqa: N801  # reads as a statement
    """Turns the SDK's errors into ours."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        from botocore import exceptions as sdk

        if isinstance(error, sdk.ClientError):
            code, words = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
            failure = Transient if code in _TRANSIENT else Permanent
            raise failure(f"{self._what}: {code}: {words}") from error
        if isinstance(error, sdk.NoCredentialsError | sdk.PartialCredentialsError):
            raise Permanent(f"{self._what}: {error}; give the service account a secret, or set it anonymous") from error
        if isinstance(error, sdk.BotoCoreError):
            raise Transient(f"{self._what}: {error}") from error


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute S3."""
    yield S3Provider()
