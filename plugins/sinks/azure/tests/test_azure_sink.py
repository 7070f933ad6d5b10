from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient
from azurite import ACCOUNT, KEY, Unavailable, azurite_served
from servery_sdk.payloads import PayloadSink
from servery_sdk.testing.sinks import RemoteObjectSinkContract, Store
from servery_sink_azure.plugin import AzureSink

HOST = f"{ACCOUNT}.dfs.core.windows.net"


def environment(endpoint: str) -> dict[str, str]:
    said = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint}"
    return {"AZURE_STORAGE_CONNECTION_STRING": said}


class Container:
    def __init__(self, container: Any) -> None:
        self._container = container

    def url(self, prefix: str) -> str:
        return f"abfs://payloads@{HOST}/{prefix}"

    def missing_url(self) -> str:
        return f"abfs://nowhere@{HOST}/logs"

    def objects(self) -> dict[str, bytes]:
        return {name: self._container.download_blob(name).readall() for name in self._container.list_blob_names()}


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    try:
        with azurite_served(tmp_path_factory.mktemp("azurite")) as endpoint:
            yield endpoint
    except Unavailable as reason:
        pytest.skip(f"{reason}: blobs are NOT tested")


class TestAzure(RemoteObjectSinkContract):
    @pytest.fixture
    def sink(self, azurite: str) -> PayloadSink:
        return AzureSink(environment(azurite))

    @pytest.fixture
    def store(self, azurite: str) -> Iterator[Store]:
        service = BlobServiceClient(azurite, credential={"account_name": ACCOUNT, "account_key": KEY})
        with service, service.create_container("payloads") as container:
            yield Container(container)
            container.delete_container()

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[PayloadSink, str]:
        return AzureSink(environment(f"http://127.0.0.1:{port}/{ACCOUNT}")), f"abfs://payloads@{HOST}/logs"


@pytest.mark.parametrize("variables", [{"AZURE_STORAGE_ACCESS_KEY": KEY}, {"AZURE_STORAGE_SAS_TOKEN": "sig=x"}, {}])
def test_account_is_the_one_of_the_url(variables: dict[str, str], azurite: str) -> None:
    from servery_sdk.testing.sinks import target

    outlet: Any = AzureSink(variables).open(target("abfss://logs@mine.dfs.core.windows.net/p"))
    assert outlet._client.url.partition("?")[0] == "https://mine.blob.core.windows.net/logs"
    outlet._client.close()
