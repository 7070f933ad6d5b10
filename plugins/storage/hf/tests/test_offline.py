from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from servery_sdk.digests import DigestAlgorithm, digest_of
from servery_sdk.errors import Permanent
from servery_sdk.testing.storage import fetched, listed
from servery_storage_hf.offline import CachedHub
from servery_storage_hf.plugin import HuggingFaceProvider, servery_storage_providers
from stand_ins.hub import Hub

LARGE = b"weights " * 1000


@pytest.fixture
def cache(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The client's cache with a model that it downloaded from the hub."""
    hub.commit({"config.json": b"{}", "onnx/model.onnx": LARGE}, "v1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = hub.revisions["v1"]
    repository = tmp_path / "models--acme--models"
    snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
    blobs.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "v1").write_text(commit)
    for path, content in hub.commits[commit].items():
        blob = blobs / digest_of(DigestAlgorithm.SHA256, content).value.hex()
        blob.write_bytes(content)
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).symlink_to(blob)
    assert snapshot_download("acme/models", revision="v1", local_files_only=True, cache_dir=tmp_path) == str(snapshot)
    return tmp_path


def test_cached_model_is_read_without_the_hub(hub: Hub, cache: Path) -> None:
    hub.seen.clear()
    found = {entry.path: entry for entry in listed(CachedHub(), "hf://acme/models:v1")}
    assert {path: fetched(CachedHub(), entry) for path, entry in found.items()} == hub.files | hub.commits[
        hub.revisions["v1"]
    ]
    assert found["onnx/model.onnx"].digest == digest_of(DigestAlgorithm.SHA256, LARGE)
    assert hub.seen == []


def test_part_of_a_cached_model_is_read_from_an_offset(cache: Path) -> None:
    (entry,) = listed(CachedHub(), "hf://acme/models:v1/onnx")
    assert (entry.path, fetched(CachedHub(), entry, offset=9)) == ("model.onnx", LARGE[9:])


def test_model_that_is_not_cached_is_said(cache: Path) -> None:
    with pytest.raises(Permanent, match=r"^hf://acme/models:v2: "):
        listed(CachedHub(), "hf://acme/models:v2")


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("HF_HUB_OFFLINE", "1", CachedHub),
        ("TRANSFORMERS_OFFLINE", "yes", CachedHub),
        ("HF_HUB_OFFLINE", "0", HuggingFaceProvider),
    ],
)
def test_environment_says_whether_there_is_a_hub(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, kind: type
) -> None:
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(name, value)
    (provider,) = servery_storage_providers()
    assert type(provider) is kind
