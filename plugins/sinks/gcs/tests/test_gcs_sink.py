from __future__ import annotations

from collections.abc import Iterator

import pytest
from servery_sdk.payloads import PayloadSink
from servery_sdk.testing.sinks import RemoteObjectSinkContract, Store
from servery_sink_gcs.plugin import GcsSink
from stand_ins.gcs import Buckets, buckets_served

# The SDK says it once, when it is imported; it is of no concern to REST.
pytestmark = pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")


class Bucket:
    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        buckets.made.add("payloads")

    def url(self, prefix: str) -> str:
        return f"gs://payloads/{prefix}"

    def missing_url(self) -> str:
        return "gs://nowhere/logs"

    def objects(self) -> dict[str, bytes]:
        found = self._buckets.objects.items()
        return {path.removeprefix("payloads/"): content for path, (content, _) in found}


@pytest.fixture
def buckets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Buckets]:
    with buckets_served() as buckets:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", buckets.url)
        yield buckets


class TestGcs(RemoteObjectSinkContract):
    @pytest.fixture
    def sink(self) -> PayloadSink:
        return GcsSink()

    @pytest.fixture
    def store(self, buckets: Buckets) -> Store:
        return Bucket(buckets)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[PayloadSink, str]:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        return GcsSink(), "gs://payloads/logs"
