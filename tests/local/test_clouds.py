"""The engine reads what each cloud's provider locates, in pieces, and holds it against the cloud's own sums."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from azurite import ACCOUNT, KEY, azurite_served
from azurite import Unavailable as NoAzurite
from servery_sdk import plugins
from servery_storage.engine import Engine
from servery_storage.progress import JsonLines
from servery_storage.settings import Settings
from stand_ins.azure_files import shares_served
from stand_ins.gcs import buckets_served
from versitygw import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY, s3_served
from versitygw import Unavailable as NoVersitygw

pytestmark = [
    pytest.mark.local,
    pytest.mark.filterwarnings("ignore:Please install grpcio-status:ImportWarning"),
]
# Larger than two pieces, and no two parts of it alike.
LARGE = b"".join(number.to_bytes(4, "little") for number in range(2**16))
MODEL = {"model.bin": LARGE, "deep/empty": b"", "a b/ö.json": b"{}"}


@pytest.fixture(params=["s3", "s3 without ETags", "gcs", "azure", "azure files"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of the model, and the environment that its provider needs."""
    stored = {**{f"llm/{path}": content for path, content in MODEL.items()}, "llm-other/model.bin": b"a sibling"}
    match request.param:
        case "gcs":
            with buckets_served() as buckets:
                monkeypatch.setenv("STORAGE_EMULATOR_HOST", buckets.url)
                for path, content in stored.items():
                    buckets.put(f"models/{path}", content)
                yield "gs://models/llm"
        case "azure files":
            with shares_served() as shares:
                monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", account(FileEndpoint=shares.url))
                for path, content in stored.items():
                    shares.put(f"models/{path}", content)
                yield f"https://{ACCOUNT}.file.core.windows.net/models/llm"
        case "azure":
            yield from blobs(stored, tmp_path, monkeypatch)
        case _:
            yield from objects(stored, tmp_path, monkeypatch, has_metadata=request.param == "s3")


def blobs(stored: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from azure.storage.blob import BlobServiceClient

    try:
        with azurite_served(folder) as url:
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", account(BlobEndpoint=url))
            with BlobServiceClient(url, credential={"account_name": ACCOUNT, "account_key": KEY}) as service:
                container = service.create_container("models")
                for path, content in stored.items():
                    container.upload_blob(path, content)
            yield f"abfss://models@{ACCOUNT}.dfs.core.windows.net/llm"
    except NoAzurite as reason:
        pytest.skip(str(reason))


def objects(
    stored: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch, *, has_metadata: bool
) -> Iterator[str]:
    keys = {"access_key_id": ACCESS_KEY_ID, "secret_access_key": SECRET_ACCESS_KEY}
    try:
        with s3_served(folder, has_metadata=has_metadata) as url:
            monkeypatch.setenv("STORAGE_CONFIG", json.dumps({"type": "s3", "endpoint_url": url, **keys}))
            named: dict[str, Any] = {f"aws_{name}": value for name, value in keys.items()}
            bucket = boto3.resource("s3", endpoint_url=url, region_name=REGION, **named).create_bucket(Bucket="models")
            for path, content in stored.items():
                bucket.put_object(Key=path, Body=content)
            yield "s3://models/llm"
    except NoVersitygw as reason:
        pytest.skip(str(reason))


def account(**endpoint: str) -> str:
    fields = {"AccountName": ACCOUNT, "AccountKey": KEY, **endpoint}
    return ";".join(f"{name}={value}" for name, value in fields.items())


async def test_model_is_fetched_whole(source: str, tmp_path: Path) -> None:
    engine = Engine(plugins.load().storage_providers, Settings(piece_bytes=100_000))
    target = tmp_path / "target"
    await engine.fetch(source, target, JsonLines(io.StringIO()))
    found = {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    assert {path: content for path, content in found.items() if not path.startswith(".servery-")} == MODEL
