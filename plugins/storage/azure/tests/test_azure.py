from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.core.credentials import AccessToken
from azure.storage.blob import BlobSasPermissions, BlobServiceClient, ContainerSasPermissions, generate_container_sas
from azurite import ACCOUNT, KEY, Unavailable, azurite_served
from servery_sdk.digests import DigestAlgorithm, digest_of
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Refusal, StorageEntry, StorageProvider, StorageUri, provider_of
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_sdk.testing.storage import fetched, listed
from servery_storage_azure import accounts
from servery_storage_azure.places import Place, Service, place_of
from servery_storage_azure.plugin import AzureProvider
from servery_storage_azure.settings import AzureSettings, settings_of
from stand_ins.azure_files import Shares, shares_served

HOST = f"{ACCOUNT}.blob.core.windows.net"


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with azurite_served(tmp_path_factory.mktemp("azurite")) as endpoint:
            yield endpoint
    except Unavailable as reason:
        pytest.skip(f"{reason}: blobs are NOT tested")


@pytest.fixture
def container(azurite: str) -> Iterator[Any]:
    service = BlobServiceClient(azurite, credential={"account_name": ACCOUNT, "account_key": KEY})
    with service, service.create_container("models") as container:
        yield container
        container.delete_container()


def with_key(endpoint: str) -> AzureProvider:
    return AzureProvider({"AZURE_STORAGE_CONNECTION_STRING": f"{at(endpoint)};AccountKey={KEY}"})


def at(endpoint: str) -> str:
    return f"AccountName={ACCOUNT};BlobEndpoint={endpoint}"


class Container:
    def __init__(self, container: Any) -> None:
        self._container = container

    def uri(self, path: str) -> str:
        return f"https://{HOST}/models/{path}"

    def put(self, path: str, content: bytes) -> None:
        self._container.upload_blob(path, content, overwrite=True)

    def remove(self, path: str) -> None:
        self._container.delete_blob(path)


class TestBlobs(PrefixStorageContract, RemoteStorageContract):
    @pytest.fixture
    def provider(self, azurite: str) -> StorageProvider:
        return with_key(azurite)

    @pytest.fixture
    def source(self, container: Any) -> Source:
        return Container(container)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return with_key(f"http://127.0.0.1:{port}/{ACCOUNT}"), f"https://{HOST}/models/llm"


@pytest.fixture
def shares() -> Iterator[Shares]:
    with shares_served() as shares:
        yield shares


def of_shares(url: str) -> AzureProvider:
    fields = f"AccountName={ACCOUNT};AccountKey={KEY};FileEndpoint={url}"
    return AzureProvider({"AZURE_STORAGE_CONNECTION_STRING": fields})


class Share:
    def __init__(self, shares: Shares) -> None:
        self._shares = shares

    def uri(self, path: str) -> str:
        return f"https://{ACCOUNT}.file.core.windows.net/models/{path}"

    def put(self, path: str, content: bytes) -> None:
        self._shares.put(f"models/{path}", content)

    def remove(self, path: str) -> None:
        self._shares.remove(f"models/{path}")


class TestFiles(PrefixStorageContract, RemoteStorageContract):
    @pytest.fixture
    def provider(self, shares: Shares) -> StorageProvider:
        return of_shares(shares.url)

    @pytest.fixture
    def source(self, shares: Shares) -> Source:
        return Share(shares)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return of_shares(f"http://127.0.0.1:{port}"), f"https://{ACCOUNT}.file.core.windows.net/models/llm"


class TestFilesOfAShare:
    URI = f"https://{ACCOUNT}.file.core.windows.net/models"

    def test_that_changed_meanwhile_are_refused(self, shares: Shares) -> None:
        """A share heeds no condition: the answer's ETag tells."""
        shares.put("models/m", b"abc")
        provider = of_shares(shares.url)
        (entry,) = listed(provider, f"{self.URI}/m")
        shares.put("models/m", b"xyz")
        with pytest.raises(Permanent, match="models/m: The object changed during the download"):
            fetched(provider, entry)

    def test_have_one_version_listed_alone_or_in_their_folder(self, shares: Shares) -> None:
        shares.put("models/llm/m", b"abc")
        provider = of_shares(shares.url)
        (alone,), (inside,) = listed(provider, f"{self.URI}/llm/m"), listed(provider, f"{self.URI}/llm")
        assert alone == inside

    def test_are_those_of_the_whole_share(self, shares: Shares) -> None:
        shares.put("models/a/b/m", b"abc")
        assert [entry.path for entry in listed(of_shares(shares.url), self.URI)] == ["a/b/m"]

    def test_of_a_share_that_is_not_there_are_said(self, shares: Shares) -> None:
        with pytest.raises(Permanent, match="Azure resource 'models' not found"):
            listed(of_shares(shares.url), self.URI)

    def test_of_nobody_are_refused(self, shares: Shares) -> None:
        provider = AzureProvider(
            {"AZURE_STORAGE_CONNECTION_STRING": f"AccountName={ACCOUNT};FileEndpoint={shares.url}"}
        )
        with pytest.raises(Permanent, match="Azure authentication failed"):
            listed(provider, f"{self.URI}/m")


CLIENT = {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_CLIENT_SECRET": "s"}


class Client:
    """A client's credentials: each call gives the next token."""

    def __init__(self, *_: object, **__: object) -> None:
        self.calls = 0

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        assert scopes == ("https://storage.azure.com/.default",)
        self.calls += 1
        return AccessToken(f"token-{self.calls}", int(time.time()) + 3600)


def location_of(place: Place, environment: dict[str, str]) -> tuple[str, dict[str, str]]:
    query, headers = accounts.Account(place, settings_of(environment)).authorization()
    return query, dict(headers)


BLOB = Place(service=Service.BLOB, account=ACCOUNT, host=HOST, container="models")


class TestWhoReads:
    def test_a_signature_of_the_uri_before_all_else(self, azurite: str, container: Any) -> None:
        container.upload_blob("llm/m", b"abc")
        sas = generate_container_sas(
            ACCOUNT,
            "models",
            KEY,
            permission=ContainerSasPermissions(read=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        wrong = f"{at(azurite)};AccountKey=d3Jvbmc="
        provider = AzureProvider({"AZURE_STORAGE_CONNECTION_STRING": wrong})
        (entry,) = listed(provider, f"https://{HOST}/models/llm?{sas}")
        assert "sig" not in entry.source, "what is logged"
        assert fetched(provider, entry) == b"abc"

    def test_a_wrong_signature_is_said_and_not_printed(self, azurite: str, container: Any) -> None:
        provider = AzureProvider({"AZURE_STORAGE_CONNECTION_STRING": at(azurite)})
        uri = f"https://{HOST}/models/llm?sv=2023-11-03&sp=rl&sr=c&se=2036-01-01T00:00:00Z&sig=c2VjcmV0"
        with pytest.raises(Permanent, match="Azure authentication failed") as failed:
            listed(provider, uri)
        assert "c2VjcmV0" not in str(failed.value)

    def test_a_key_of_the_environment(self) -> None:
        query, headers = location_of(BLOB, {"AZURE_STORAGE_ACCESS_KEY": KEY})
        said = parse_qs(query)
        assert (said["sp"], said["sr"], headers) == (["r"], ["c"], {})
        assert BlobSasPermissions.from_string(said["sp"][0]).read

    def test_a_wrong_key_is_said(self, azurite: str, container: Any) -> None:
        fields = f"{at(azurite)};AccountKey=d3Jvbmc="
        with pytest.raises(Permanent, match=r"Azure authentication failed\. Verify AZURE_CLIENT_ID"):
            listed(AzureProvider({"AZURE_STORAGE_CONNECTION_STRING": fields}), f"https://{HOST}/models/m")

    def test_nobody_in_a_container_that_all_may_read(self, azurite: str, container: Any) -> None:
        container.upload_blob("llm/m", b"abc")
        provider = AzureProvider({"AZURE_STORAGE_CONNECTION_STRING": at(azurite)})
        with pytest.raises(Permanent, match=r"models/llm: Azure (authentication failed|resource .* not found)"):
            listed(provider, f"https://{HOST}/models/llm")
        container.set_container_access_policy({}, public_access="container")
        (entry,) = listed(provider, f"https://{HOST}/models/llm")
        assert fetched(provider, entry) == b"abc"

    @pytest.mark.parametrize(
        ("environment", "kind"),
        [
            (CLIENT, "ClientSecretCredential"),
            ({"AZ_TENANT_ID": "t", "AZ_CLIENT_ID": "c", "AZ_CLIENT_SECRET": "s"}, "ClientSecretCredential"),
            (
                {"AZURE_TENANT_ID": "t", "AZURE_CLIENT_ID": "c", "AZURE_FEDERATED_TOKEN_FILE": "/f"},
                "WorkloadIdentityCredential",
            ),
            ({"AZURE_CLIENT_ID": "c"}, "DefaultAzureCredential"),
            ({"AZURE_CLIENT_ID": "c", "AZURE_STORAGE_ACCESS_KEY": KEY}, "DefaultAzureCredential"),
        ],
        ids=["client", "older names", "workload identity", "managed identity", "before a key"],
    )
    def test_a_client(self, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], kind: str) -> None:
        monkeypatch.setattr(accounts, kind, Client)
        _, headers = location_of(BLOB, environment)
        assert headers == {"authorization": "Bearer token-1", "x-ms-version": "2023-11-03"}

    def test_a_token_that_was_given(self) -> None:
        assert location_of(BLOB, {"AZURE_ACCESS_TOKEN": "abc"})[1]["authorization"] == "Bearer abc"

    def test_a_signature_of_the_environment(self) -> None:
        assert location_of(BLOB, {"AZURE_STORAGE_SAS_TOKEN": "?sig=abc"}) == ("sig=abc", {})

    def test_a_token_of_a_share_says_that_no_list_of_rights_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The service wants to hear so of who reads by a role."""
        monkeypatch.setattr(accounts, "ClientSecretCredential", Client)
        assert location_of(replace(BLOB, service=Service.FILE), CLIENT)[1]["x-ms-file-request-intent"] == "backup"

    def test_a_token_that_was_refused_in_the_middle_is_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(accounts, "ClientSecretCredential", Client)
        provider = AzureProvider({**CLIENT, "AZURE_STORAGE_CONNECTION_STRING": at(f"http://127.0.0.1:1/{ACCOUNT}")})
        with pytest.raises(Permanent, match="only supported with HTTPS"):
            listed(provider, f"https://{HOST}/models/m")
        entry = StorageEntry(path="m", source=f"{HOST}/models/m")
        first = provider.locate(entry).headers["authorization"]
        assert provider.locate(entry).headers["authorization"] == first
        refusal = Refusal(url="u", status=401, reason="InvalidAuthenticationInfo", headers={}, body=b"")
        assert isinstance(provider.refused(entry, refusal), Transient)
        assert provider.locate(entry).headers["authorization"] != first


def test_blob_that_changed_meanwhile_is_refused(azurite: str, container: Any) -> None:
    container.upload_blob("m", b"abc")
    provider = with_key(azurite)
    (entry,) = listed(provider, f"https://{HOST}/models/m")
    container.upload_blob("m", b"xyz", overwrite=True)
    with pytest.raises(Permanent, match="changed during the download"):
        fetched(provider, entry)


def test_sum_that_was_stored_is_listed(azurite: str, container: Any) -> None:
    container.upload_blob("m", b"abc")
    (entry,) = listed(with_key(azurite), f"https://{HOST}/models/m")
    assert entry.digest == digest_of(DigestAlgorithm.MD5, b"abc")


def test_marker_of_a_folder_is_no_file(azurite: str, container: Any) -> None:
    """As Hadoop's drivers, and accounts with folders, list them."""
    container.upload_blob("llm/deep", b"", metadata={"hdi_isfolder": "true"})
    container.upload_blob("llm/deep/m", b"abc")
    assert [entry.path for entry in listed(with_key(azurite), f"https://{HOST}/models/llm")] == ["deep/m"]


@pytest.mark.parametrize("name", ["a b.bin", "ä/ö+%20.bin", "x&y=z?.bin", "#1.bin"])
def test_blob_of_any_name_is_read(azurite: str, container: Any, name: str) -> None:
    container.upload_blob(f"llm/{name}", name.encode())
    provider = with_key(azurite)
    (entry,) = listed(provider, f"https://{HOST}/models/llm")
    assert entry.path == name
    assert fetched(provider, entry) == name.encode()


def test_missing_container_is_said(azurite: str) -> None:
    with pytest.raises(Permanent, match=r"nope/m: Azure resource 'nope' not found\. \(404 ContainerNotFound"):
        listed(with_key(azurite), f"https://{HOST}/nope/m")


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (503, Transient, "503"),
        (429, Transient, "429"),
        (403, Permanent, "Access denied to Azure resource 'models'. Verify permissions."),
        (409, Permanent, "Azure refused. (409 AsTheTestWantsIt: as the test wants it)"),
    ],
)
def test_refusal_is_said(shares: Shares, status: int, kind: type[Exception], words: str) -> None:
    shares.put("models/m", b"abc")
    provider, uri = of_shares(shares.url), f"https://{ACCOUNT}.file.core.windows.net/models/m"
    (entry,) = listed(provider, uri)
    shares.failures = [status]
    with pytest.raises(kind) as failed:
        fetched(provider, entry)
    assert words in str(failed.value)


class TestPlaces:
    @pytest.mark.parametrize(
        ("uri", "service", "host", "container", "path"),
        [
            ("https://acct.blob.core.windows.net/c/a/b/", "blob", "acct.blob.core.windows.net", "c", "a/b"),
            ("https://acct.blob.core.windows.net/c", "blob", "acct.blob.core.windows.net", "c", ""),
            ("https://acct.z12.blob.storage.azure.net/c/a", "blob", "acct.z12.blob.storage.azure.net", "c", "a"),
            ("https://acct.file.core.windows.net/s/a", "file", "acct.file.core.windows.net", "s", "a"),
            ("https://acct.z3.file.storage.azure.net/s/a", "file", "acct.z3.file.storage.azure.net", "s", "a"),
            ("https://acct.dfs.core.windows.net/c/a", "blob", "acct.blob.core.windows.net", "c", "a"),
            ("https://acct.blob.core.chinacloudapi.cn/c/a", "blob", "acct.blob.core.chinacloudapi.cn", "c", "a"),
            ("abfss://c@acct.dfs.core.windows.net/a/b", "blob", "acct.blob.core.windows.net", "c", "a/b"),
            ("wasbs://c@acct.blob.core.windows.net/a", "blob", "acct.blob.core.windows.net", "c", "a"),
            ("az://acct/c/a", "blob", "acct.blob.core.windows.net", "c", "a"),
            ("az://acct.blob.core.windows.net/c/a", "blob", "acct.blob.core.windows.net", "c", "a"),
            ("azure://acct/c/a", "blob", "acct.blob.core.windows.net", "c", "a"),
        ],
    )
    def test_are_spelled_in_several_ways(self, uri: str, service: str, host: str, container: str, path: str) -> None:
        assert provider_of(StorageUri.parse(uri), [AzureProvider()]) is not None
        place = place_of(StorageUri.parse(uri))
        assert (place.service, place.host, place.container, place.path) == (service, host, container, path)
        assert place.account == "acct"

    @pytest.mark.parametrize(
        "uri",
        ["https://example.com/c/a", "http://acct.blob.core.windows.net/c", "https://blob.core.windows.net.evil.io/c"],
    )
    def test_of_others_are_not_claimed(self, uri: str) -> None:
        assert provider_of(StorageUri.parse(uri), [AzureProvider()]) is None

    @pytest.mark.parametrize(
        ("uri", "words"),
        [
            ("abfss://acct.dfs.core.windows.net/a", "abfss://<container>@<account>.dfs.core.windows.net/<path>"),
            ("az://acct", "az://<account>/<container>/<path>"),
            (
                "https://acct.blob.core.windows.net/?sig=abc",
                "https://<account>.blob.core.windows.net/<container>/<path>",
            ),
        ],
    )
    def test_that_are_none_are_said(self, uri: str, words: str) -> None:
        with pytest.raises(Permanent) as failed:
            listed(AzureProvider({}), uri)
        assert words in str(failed.value)
        assert "sig" not in str(failed.value)


class TestSettings:
    def test_of_another_account_are_not_used(self) -> None:
        settings = settings_of({"AZURE_STORAGE_CONNECTION_STRING": f"AccountName=other;AccountKey={KEY}"})
        assert settings.of_account("other")["AccountKey"] == KEY
        assert settings.of_account(ACCOUNT) == {}

    def test_are_none_where_nothing_is_said(self) -> None:
        assert settings_of({}) == AzureSettings()

    @pytest.mark.parametrize("text", ["nonsense", f"AccountKey={KEY}"])
    def test_that_are_none_are_said(self, text: str) -> None:
        with pytest.raises(Permanent, match="AZURE_STORAGE_CONNECTION_STRING: not of the form"):
            listed(AzureProvider({"AZURE_STORAGE_CONNECTION_STRING": text}), f"https://{HOST}/c/m")


def test_signature_of_one_uri_is_not_anothers() -> None:
    provider = AzureProvider({"AZURE_STORAGE_CONNECTION_STRING": at(f"http://127.0.0.1:1/{ACCOUNT}")})
    for folder in ("a", "b"):
        # Nobody answers: what is asked for is kept all the same.
        with pytest.raises(Transient):
            listed(provider, f"https://{HOST}/c/{folder}?sig={folder}")
    for folder in ("a", "b"):
        entry = StorageEntry(path="m", source=f"{HOST}/c/{folder}/m")
        assert urlsplit(provider.locate(entry).url).query == f"sig={folder}"
