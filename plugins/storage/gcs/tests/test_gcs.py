from __future__ import annotations

import gzip
from pathlib import Path

import google.auth
import google.auth.credentials
import pytest
from google.auth.exceptions import DefaultCredentialsError
from servery_sdk.digests import DigestAlgorithm, digest_of
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
    (entry,) = listed(GcsProvider(), "gs://models/m")
    words = r"gs://models/m: Access denied to GCS resource 'models'\. Verify permissions\. \(403 .*as the test wants it"
    buckets.failures = [403, 403]
    with pytest.raises(Permanent, match=words):
        listed(GcsProvider(), "gs://models/m")
    with pytest.raises(Permanent, match=f"(?s){words}"):
        fetched(GcsProvider(), entry)


def test_object_that_changed_meanwhile_is_refused(buckets: Buckets) -> None:
    buckets.put("models/m", b"abc")
    (entry,) = listed(GcsProvider(), "gs://models/m")
    buckets.put("models/m", b"xyz")
    with pytest.raises(Permanent, match=r"GCS resource 'gs://models/m' not found\. \(404"):
        fetched(GcsProvider(), entry)


def test_missing_bucket_is_said(buckets: Buckets) -> None:
    with pytest.raises(Permanent, match=r"gs://nope/m: GCS resource 'gs://nope/m' not found\. \(404"):
        listed(GcsProvider(), "gs://nope/m")


def test_uri_without_a_bucket_is_said(buckets: Buckets) -> None:
    with pytest.raises(Permanent, match="gs:///m: names no bucket"):
        listed(GcsProvider(), "gs:///m")


@pytest.mark.parametrize("name", ["a b.bin", "ä/ö+%20.bin", "x&y=z?.bin", "#1.bin"])
def test_object_of_any_name_is_read(buckets: Buckets, name: str) -> None:
    buckets.put(f"models/llm/{name}", name.encode())
    (entry,) = listed(GcsProvider(), "gs://models/llm")
    assert entry.path == name
    assert fetched(GcsProvider(), entry) == name.encode()


def test_listing_tells_the_sum(buckets: Buckets) -> None:
    buckets.put("models/m", b"abc")
    (entry,) = listed(GcsProvider(), "gs://models/m")
    assert entry.digest == digest_of(DigestAlgorithm.CRC32C, b"abc")


def test_packed_object_is_read_as_it_is_sent(buckets: Buckets) -> None:
    """Its size and its sum are of what is stored."""
    buckets.put("models/m.json", gzip.compress(b"abc" * 1000))
    buckets.packed.add("models/m.json")
    (entry,) = listed(GcsProvider(), "gs://models/m.json")
    assert (entry.size_bytes, entry.digest, entry.has_ranges) == (None, None, False)
    assert fetched(GcsProvider(), entry) == b"abc" * 1000


class Credentials(google.auth.credentials.Credentials):
    """A service account's: each refresh gives the next token, or the last again."""

    def __init__(self, tokens: list[str]) -> None:
        super().__init__()
        self._tokens = tokens

    def refresh(self, request: object) -> None:
        self.token = self._tokens.pop(0) if len(self._tokens) > 1 else self._tokens[0]


class TestCredentials:
    @pytest.fixture
    def default(self, buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> Credentials:
        """What Google's chain finds, for the stand-in."""
        credentials = Credentials(["first", "second"])
        monkeypatch.delenv("STORAGE_EMULATOR_HOST")
        monkeypatch.setenv("API_ENDPOINT_OVERRIDE", buckets.url)
        monkeypatch.setattr(google.auth, "default", lambda scopes: (credentials, None))
        return credentials

    def test_token_that_was_refused_in_the_middle_is_replaced(self, buckets: Buckets, default: Credentials) -> None:
        buckets.put("models/m", b"abc")
        buckets.token = "first"
        provider = GcsProvider()
        (entry,) = listed(provider, "gs://models/m")
        buckets.token = "second"
        with pytest.raises(Transient, match="gs://models/m: 401"):
            fetched(provider, entry)
        assert fetched(provider, entry) == b"abc"

    def test_token_that_listing_may_not_use_is_said(self, buckets: Buckets, default: Credentials) -> None:
        buckets.token = "another"
        with pytest.raises(Permanent, match=r"GCS authentication failed\. Verify GOOGLE_APPLICATION_CREDENTIALS"):
            listed(GcsProvider(), "gs://models/m")

    def test_without_credentials_it_reads_as_everybody(
        self, buckets: Buckets, default: Credentials, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def none(scopes: object) -> None:
            raise DefaultCredentialsError

        monkeypatch.setattr(google.auth, "default", none)
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        buckets.put("models/m", b"abc")
        provider = GcsProvider()
        (entry,) = listed(provider, "gs://models/m")
        assert provider.locate(entry).headers == {}
        assert fetched(provider, entry) == b"abc"

    def test_credentials_that_are_named_and_are_none_are_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
        with pytest.raises(Permanent, match=r"GCS authentication failed\. .*none\.json was not found"):
            listed(GcsProvider(), "gs://models/m")
