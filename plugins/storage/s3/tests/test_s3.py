from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from servery_sdk.errors import Permanent
from servery_sdk.storage import StorageProvider
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_sdk.testing.storage import fetched, listed
from servery_storage_s3.plugin import S3Provider


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
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()


def config(endpoint: str) -> dict[str, str]:
    return {"endpoint_url": endpoint, "access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}


@pytest.fixture
def provider(endpoint: str) -> S3Provider:
    return S3Provider({"STORAGE_CONFIG": json.dumps({**config(endpoint), "bucket": "models"})})


class Bucket:
    def __init__(self, bucket: Any, host: str = "models") -> None:
        self._bucket, self._host = bucket, host

    def uri(self, path: str) -> str:
        return f"s3://{self._host}/{path}"

    def put(self, path: str, content: bytes) -> None:
        self._bucket.put_object(Key=path, Body=content)

    def remove(self, path: str) -> None:
        self._bucket.Object(path).delete()


class TestS3(PrefixStorageContract, RemoteStorageContract):
    @pytest.fixture
    def provider(self, provider: S3Provider) -> StorageProvider:
        return provider

    @pytest.fixture
    def source(self, bucket: Any) -> Source:
        return Bucket(bucket)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return S3Provider({"STORAGE_CONFIG": json.dumps(config(f"http://127.0.0.1:{port}"))}), "s3://models/llm"


def test_bucket_may_be_said_by_the_credentials(provider: S3Provider, bucket: Any) -> None:
    bucket.put_object(Key="llm/a", Body=b"")
    assert [entry.path for entry in listed(provider, "s3://<bucket>/llm")] == ["a"]


def test_object_that_changed_meanwhile_is_refused(provider: S3Provider, bucket: Any) -> None:
    bucket.put_object(Key="llm/a.bin", Body=b"first")
    (entry,) = listed(provider, "s3://models/llm/a.bin")
    bucket.put_object(Key="llm/a.bin", Body=b"changed")
    with pytest.raises(Permanent, match="changed during the download"):
        fetched(provider, entry)


def test_missing_bucket_is_said(provider: S3Provider, bucket: Any) -> None:
    with pytest.raises(Permanent, match="s3://nope/x: NoSuchBucket"):
        listed(provider, "s3://nope/x")


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
