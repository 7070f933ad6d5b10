"""The S3 provider, as Servery finds it. boto3 is imported when the first URI is met."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Sink, StorageEntry, StorageProvider, StorageUri, path_below

CHUNK_BYTES = 1024 * 1024
_TRANSIENT = frozenset(
    {"SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "Throttling", "503", "500"}
)


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

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Read the object from ``offset`` on; it must still be the one that was listed."""
        if entry.size_bytes is not None and offset >= entry.size_bytes:
            return
        await asyncio.to_thread(self._fetch, entry, sink, offset)

    def _fetch(self, entry: StorageEntry, sink: Sink, offset: int) -> None:
        bucket, _, key = entry.source.partition("/")
        more = {"Range": f"bytes={offset}-"} if offset else {}
        with _translated(f"s3://{entry.source}"):
            found = self._client().get_object(Bucket=bucket, Key=key, IfMatch=entry.version, **more)
            with closing(found["Body"]) as body:
                for chunk in body.iter_chunks(CHUNK_BYTES):
                    sink.write(chunk)

    def _config(self) -> Mapping[str, str]:
        given = json.loads(self._environment.get("STORAGE_CONFIG", "{}"))
        return {**given, **json.loads(self._environment.get("STORAGE_OVERRIDE_CONFIG", "{}"))}

    def _client(self) -> Any:
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
        return boto3.client(
            "s3",
            endpoint_url=config.get("endpoint_url") or self._endpoint(),
            aws_access_key_id=config.get("access_key_id"),
            aws_secret_access_key=config.get("secret_access_key"),
            region_name=config.get("region"),
            verify=config.get("ca_bundle") or environment.get("S3_VERIFY_SSL", "1").lower() not in {"0", "false"},
            config=Config(
                s3=s3,
                max_pool_connections=32,
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
            hint = "; the object changed during the download" if code in {"PreconditionFailed", "412"} else ""
            raise failure(f"{self._what}: {code}: {words}{hint}") from error
        if isinstance(error, sdk.NoCredentialsError | sdk.PartialCredentialsError):
            raise Permanent(f"{self._what}: {error}; give the service account a secret, or set it anonymous") from error
        if isinstance(error, sdk.BotoCoreError):
            raise Transient(f"{self._what}: {error}") from error


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute S3."""
    yield S3Provider()
