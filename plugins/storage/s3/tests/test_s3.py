from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import StorageUri
from servery_storage_s3.plugin import S3Provider


class Buffer:
    def __init__(self) -> None:
        self.data = b""

    def write(self, chunk: bytes) -> None:
        self.data += chunk


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str) -> Iterator[Any]:
    session = boto3.Session("key", "secret", region_name="us-east-1")
    bucket = session.resource("s3", endpoint_url=endpoint).create_bucket(Bucket="models")
    for key, body in {"llm/a.bin": b"0123456789", "llm/deep/empty": b"", "llm/": b"", "llm-other/x": b"x"}.items():
        bucket.put_object(Key=key, Body=body)
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


@pytest.fixture
def provider(endpoint: str) -> S3Provider:
    config = {"endpoint_url": endpoint, "access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}
    return S3Provider({"STORAGE_CONFIG": json.dumps({**config, "bucket": "models"})})


async def listed(provider: S3Provider, uri: str) -> dict[str, Any]:
    return {entry.path: entry async for entry in provider.list(StorageUri.parse(uri))}


@pytest.mark.parametrize("uri", ["s3://models/llm", "s3://models/llm/", "s3://<bucket>/llm"])
async def test_prefix_never_takes_a_sibling_and_keeps_empty_files(provider: S3Provider, bucket: Any, uri: str) -> None:
    found = await listed(provider, uri)
    assert {path: entry.size_bytes for path, entry in found.items()} == {"a.bin": 10, "deep/empty": 0}


async def test_object_is_read_whole_and_from_an_offset(provider: S3Provider, bucket: Any) -> None:
    entry = (await listed(provider, "s3://models/llm/a.bin"))["a.bin"]
    for offset, expected in ((0, b"0123456789"), (7, b"789"), (10, b"")):
        buffer = Buffer()
        await provider.fetch(entry, buffer, offset=offset)
        assert buffer.data == expected


async def test_object_that_changed_meanwhile_is_refused(provider: S3Provider, bucket: Any) -> None:
    entry = (await listed(provider, "s3://models/llm/a.bin"))["a.bin"]
    bucket.put_object(Key="llm/a.bin", Body=b"changed")
    with pytest.raises(Permanent, match="changed during the download"):
        await provider.fetch(entry, Buffer(), offset=0)


async def test_missing_bucket_is_said(provider: S3Provider, bucket: Any) -> None:
    with pytest.raises(Permanent, match="s3://nope/x: NoSuchBucket"):
        await listed(provider, "s3://nope/x")


async def test_closed_endpoint_may_open_again() -> None:
    config = {"endpoint_url": "http://127.0.0.1:1", "access_key_id": "k", "secret_access_key": "s", "region": "r"}
    with pytest.raises(Transient, match="Could not connect"):
        await listed(S3Provider({"STORAGE_CONFIG": json.dumps(config)}), "s3://models/llm")


@pytest.mark.parametrize(
    ("environment", "endpoint"),
    [
        ({}, None),
        ({"AWS_ENDPOINT_URL": "http://a:1"}, "http://a:1"),
        ({"S3_ENDPOINT": "a:1"}, "https://a:1"),
        ({"S3_ENDPOINT": "a:1", "S3_USE_HTTPS": "0"}, "http://a:1"),
    ],
)
def test_endpoint_is_read_as_kserve_reads_it(environment: dict[str, str], endpoint: str | None) -> None:
    assert S3Provider(environment)._endpoint() == endpoint
