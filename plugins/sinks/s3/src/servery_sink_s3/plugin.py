"""The S3 sink, as Servery finds it. boto3 is imported when the sink is opened."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from typing import Any

from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.payloads import ObjectOutlet, PayloadSink, SinkTarget

_REFUSED = frozenset({"EntityTooLarge", "InvalidRequest", "KeyTooLongError"})
"""What is wrong with the object. All else, as a missing bucket or a key that is not allowed, somebody may mend."""


class S3Sink:
    """Objects of Amazon S3 and what speaks like it.

    Environment: the AWS SDK's own, and KServe's ``S3_ENDPOINT``, ``S3_USE_HTTPS``, ``S3_VERIFY_SSL``,
    ``S3_USER_VIRTUAL_BUCKET`` and ``awsAnonymousCredential``.
    """

    name = "s3"
    schemes = frozenset({"s3", "s3a"})

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def open(self, target: SinkTarget) -> ObjectOutlet:
        """Return the way to the bucket."""
        bucket, _, prefix = target.url.partition("://")[2].partition("/")
        if not bucket:
            raise Permanent(f"--log-url: {target.url!r} names no bucket: s3://bucket/prefix")
        return S3Outlet(_client(self._environment, target), bucket, prefix.strip("/"), target)


class S3Outlet:
    """One bucket."""

    def __init__(self, client: Any, bucket: str, prefix: str, target: SinkTarget) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._url = target.url

    async def put(self, key: str, content: bytes, content_type: str) -> None:
        """Put one object, in one piece."""
        await asyncio.to_thread(self._put, f"{self._prefix}/{key}" if self._prefix else key, content, content_type)

    def _put(self, key: str, content: bytes, content_type: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=content, ContentType=content_type)
        except ClientError as error:
            code, words = error.response["Error"].get("Code", ""), error.response["Error"].get("Message", "")
            failure = Permanent if code in _REFUSED else Transient
            raise failure(f"{self._url}: {key}: {code}: {words}") from error
        except BotoCoreError as error:
            raise Transient(f"{self._url}: {key}: {error}") from error

    async def close(self) -> None:
        """Let go of connections."""
        self._client.close()


def _client(environment: Mapping[str, str], target: SinkTarget) -> Any:
    import boto3  # half a second that other sinks need not wait
    from botocore import UNSIGNED
    from botocore.config import Config

    endpoint = environment.get("AWS_ENDPOINT_URL") or environment.get("S3_ENDPOINT") or None
    if endpoint and "://" not in endpoint:
        endpoint = f"{'http' if _is_no(environment.get('S3_USE_HTTPS')) else 'https'}://{endpoint}"
    verifies = target.verifies_tls and not _is_no(environment.get("S3_VERIFY_SSL"))
    ca_file = str(target.ca_file) if target.ca_file else None
    unsigned = {"signature_version": UNSIGNED} if _is_yes(environment.get("awsAnonymousCredential")) else {}
    style = "virtual" if _is_yes(environment.get("S3_USER_VIRTUAL_BUCKET")) else "auto"
    session = boto3.Session(
        aws_access_key_id=environment.get("AWS_ACCESS_KEY_ID"),
        aws_secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY"),
        aws_session_token=environment.get("AWS_SESSION_TOKEN"),
        region_name=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"),
    )
    return session.client(
        "s3",
        endpoint_url=endpoint,
        verify=(ca_file or environment.get("AWS_CA_BUNDLE") or True) if verifies else False,
        config=Config(
            s3={"addressing_style": style},
            connect_timeout=min(5.0, target.timeout_seconds),
            read_timeout=target.timeout_seconds,
            # Whoever delivers tries again, and counts that.
            retries={"max_attempts": 0},
            **unsigned,
        ),
    )


def _is_no(value: str | None) -> bool:
    return (value or "").lower() in {"0", "false"}


def _is_yes(value: str | None) -> bool:
    return (value or "").lower() in {"1", "true"}


@hookimpl
def servery_payload_sinks() -> Iterable[PayloadSink]:
    """Contribute S3."""
    yield S3Sink()
