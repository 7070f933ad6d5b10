from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from servery_sdk.payloads import PayloadSink
from servery_sdk.testing.sinks import RemoteObjectSinkContract, Store, put
from servery_sink_s3.plugin import S3Sink
from versitygw import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, Unavailable, program, s3_served


def environment(endpoint: str) -> dict[str, str]:
    return {
        "S3_ENDPOINT": endpoint.removeprefix("http://"),
        "S3_USE_HTTPS": "0",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        "AWS_DEFAULT_REGION": REGION,
    }


class Bucket:
    def __init__(self, endpoint: str) -> None:
        self._session = boto3.Session(ACCESS_KEY_ID, SECRET_ACCESS_KEY, region_name=REGION)
        self._resource: Any = self._session.resource("s3", endpoint_url=endpoint)
        self._bucket = self._resource.create_bucket(Bucket="payloads")

    def url(self, prefix: str) -> str:
        return f"s3://payloads/{prefix}"

    def missing_url(self) -> str:
        return "s3://nowhere/logs"

    def objects(self) -> dict[str, bytes]:
        return {found.key: found.get()["Body"].read() for found in self._bucket.objects.all()}

    def delete(self) -> None:
        self._bucket.objects.all().delete()
        self._bucket.delete()
        self._resource.meta.client.close()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


class TestMoto(RemoteObjectSinkContract):
    @pytest.fixture
    def sink(self, endpoint: str) -> PayloadSink:
        return S3Sink(environment(endpoint))

    @pytest.fixture
    def store(self, endpoint: str) -> Iterator[Store]:
        bucket = Bucket(endpoint)
        yield bucket
        bucket.delete()

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[PayloadSink, str]:
        return S3Sink(environment(f"http://127.0.0.1:{port}")), "s3://payloads/logs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        program()
    except Unavailable as reason:
        pytest.skip(str(reason))
    with s3_served(tmp_path_factory.mktemp("versitygw")) as url:
        yield url


class TestServer(TestMoto):
    """The same against a server that is somebody's real one."""

    @pytest.fixture
    def sink(self, server: str) -> PayloadSink:
        return S3Sink(environment(server))

    @pytest.fixture
    def store(self, server: str) -> Iterator[Store]:
        bucket = Bucket(server)
        yield bucket
        bucket.delete()


def test_files_have_the_type_that_they_were_given(endpoint: str, tmp_path: Path) -> None:
    bucket = Bucket(endpoint)
    put(S3Sink(environment(endpoint)), "s3a://payloads/p", {"k.json": b"{}"})
    assert bucket._bucket.Object("p/k.json").content_type == "text/plain"
    bucket.delete()
