from __future__ import annotations

import pytest
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import StorageProvider
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_sdk.testing.storage import fetched, listed
from servery_storage_gcs.plugin import GcsProvider
from stand_ins.gcs import Buckets

# The SDK says it once, when it is imported; it is of no concern to REST.
pytestmark = pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning")


class Bucket:
    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets

    def uri(self, path: str) -> str:
        return f"gs://models/{path}"

    def put(self, path: str, content: bytes) -> None:
        self._buckets.put(f"models/{path}", content)

    def remove(self, path: str) -> None:
        self._buckets.remove(f"models/{path}")


class TestGcs(PrefixStorageContract, RemoteStorageContract):
    @pytest.fixture
    def provider(self, buckets: Buckets) -> StorageProvider:
        return GcsProvider()

    @pytest.fixture
    def source(self, buckets: Buckets) -> Source:
        return Bucket(buckets)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        return GcsProvider(), "gs://models/llm"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_server_in_trouble_is_asked_again_by_the_engine_not_by_the_sdk(buckets: Buckets, status: int) -> None:
    buckets.put("models/m", b"abc")
    buckets.failures = [status]
    with pytest.raises(Transient, match=f"gs://models/m: {status}"):
        listed(GcsProvider(), "gs://models/m")
    (entry,) = listed(GcsProvider(), "gs://models/m")
    buckets.failures = [status]
    with pytest.raises(Transient, match=f"gs://models/m: .*{status}"):
        fetched(GcsProvider(), entry)


def test_refusal_is_final_and_named(buckets: Buckets) -> None:
    buckets.put("models/m", b"abc")
    buckets.failures = [403]
    with pytest.raises(Permanent, match="gs://models/m: 403"):
        listed(GcsProvider(), "gs://models/m")


def test_object_that_changed_meanwhile_is_refused(buckets: Buckets) -> None:
    buckets.put("models/m", b"abc")
    (entry,) = listed(GcsProvider(), "gs://models/m")
    buckets.put("models/m", b"xyz")
    with pytest.raises(Permanent, match="gs://models/m: 404"):
        fetched(GcsProvider(), entry)


def test_missing_bucket_is_said(buckets: Buckets) -> None:
    with pytest.raises(Permanent, match="gs://nope/m: 404"):
        listed(GcsProvider(), "gs://nope/m")
