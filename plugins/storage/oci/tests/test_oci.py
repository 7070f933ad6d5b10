from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import oras.client
import pytest
import zstandard
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Refusal, StorageProvider, Unpack
from servery_sdk.testing import RemoteStorageContract, Source
from servery_sdk.testing.storage import fetched, listed
from servery_storage_oci.plugin import OciProvider
from stand_ins.registry import INDEX, PASSWORD, USER, Registry, registry_served

pytestmark = pytest.mark.timeout(600)  # the registry's build, once on a machine
IMAGE = "application/vnd.oci.image.config.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
TITLE = "org.opencontainers.image.title"
INSECURE = {"KSERVE_OCI_INSECURE_REGISTRY": "true", "KSERVE_OCI_DOCKER_CONFIG": "/nonexistent", "HOME": "/nonexistent"}


def make_provider(**environment: str) -> OciProvider:
    return OciProvider({**INSECURE, **environment})


class Artifacts:
    """Each object is an artifact of one file: a registry has no directories of artifacts."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._digests: dict[str, str] = {}

    def uri(self, path: str) -> str:
        return f"oci://{self._registry.host}/{path}"

    def put(self, path: str, content: bytes) -> None:
        if not path.endswith("/"):
            name = path.rpartition("/")[2]
            self._registry.push(path, [("application/octet-stream", content, {TITLE: name})])
            self._digests[path] = f"sha256:{hashlib.sha256(content).hexdigest()}"

    def remove(self, path: str) -> None:
        status, _ = self._registry.ask("DELETE", f"{path}/blobs/{self._digests[path]}")
        assert status == 202


class TestOci(RemoteStorageContract):
    @pytest.fixture
    def provider(self) -> StorageProvider:
        return make_provider()

    @pytest.fixture
    def source(self, registry: Registry) -> Source:
        return Artifacts(registry)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return make_provider(), f"oci://127.0.0.1:{port}/llm"


def archive(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_layers_of_a_modelcar_are_archives_in_their_order(registry: Registry) -> None:
    first, second = archive({"models/a": b"1"}), archive({"models/b": b"2"})
    layers = [
        (f"{TAR}+gzip", gzip.compress(first), {}),
        (TAR, second, {}),
        (f"{TAR}+zstd", zstandard.compress(first), {}),
        (TAR, second, {}),
    ]
    registry.push("car/iris", layers, tag="v1", config=IMAGE)
    entries = listed(make_provider(), f"oci://{registry.host}/car/iris:v1")
    assert [entry.unpack for entry in entries] == [
        Unpack(order=order, below="models", has_whiteouts=True) for order in range(4)
    ]
    assert [fetched(make_provider(), entry) for entry in entries] == [content for _, content, _ in layers]


def test_index_is_read_for_this_machine(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    push_index(registry, {"amd64": b"amd", "arm64": b"arm"})
    for machine, content in (("x86_64", b"amd"), ("aarch64", b"arm")):
        monkeypatch.setattr("platform.machine", lambda machine=machine: machine)
        (entry,) = listed(make_provider(), f"oci://{registry.host}/indexed")
        assert fetched(make_provider(), entry) == content
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(
        Permanent, match=r"the index has no manifest for linux/riscv64; it has linux/amd64, linux/arm64$"
    ):
        listed(make_provider(), f"oci://{registry.host}/indexed")
    push_index(registry, {"s390x": b"the same anywhere"})
    (entry,) = listed(make_provider(), f"oci://{registry.host}/indexed")
    assert fetched(make_provider(), entry) == b"the same anywhere"


def push_index(registry: Registry, files: Mapping[str, bytes]) -> None:
    """Push an index of a manifest for each architecture, and of an attestation, as BuildKit does."""
    manifests: list[dict[str, Any]] = [
        {
            **registry.push("indexed", [("application/x", content, {TITLE: "model"})], tag=name),
            "platform": {"os": "linux", "architecture": name},
        }
        for name, content in files.items()
    ]
    attestation = {
        **registry.push("indexed", [], tag="attestation"),
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    registry.manifest("indexed", "latest", {"mediaType": INDEX, "manifests": [*manifests, attestation]})


def test_model_packs_and_model_kits_are_read(registry: Registry) -> None:
    pack = "application/vnd.cncf.model"
    registry.push(
        "pack",
        [
            (f"{pack}.weight.v1.raw", b"weights", {"org.cncf.model.filepath": "deep/model.safetensors"}),
            (f"{pack}.weight.config.v1.tar", archive({"config.json": b"{}"}), {"org.cncf.model.filepath": "c"}),
            ("application/vnd.docker.ai.gguf.v3", b"gguf", {"org.cncf.model.filepath": "./model.gguf"}),
            ("application/vnd.kitops.modelkit.model.v1.tar+gzip", gzip.compress(archive({"k": b""})), {}),
            (f"{TAR}+gzip", gzip.compress(archive({"d/x": b""})), {TITLE: "d", "io.deis.oras.content.unpack": "true"}),
            ("application/vnd.oci.empty.v1+json", b"{}", {}),
        ],
        config=f"{pack}.config.v1+json",
    )
    found = listed(make_provider(), f"oci://{registry.host}/pack")
    assert {entry.path for entry in found if entry.unpack is None} == {"deep/model.safetensors", "model.gguf"}
    assert [entry.unpack for entry in found if entry.unpack] == [Unpack(order=order) for order in (1, 3, 4)]


def test_artifact_that_oras_pushed_is_read(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.bin").write_bytes(b"weights")
    (tmp_path / "vocab").mkdir()
    (tmp_path / "vocab" / "words.txt").write_text("a b")
    client = oras.client.OrasClient(hostname=registry.host, insecure=True)
    client.push(target=f"{registry.host}/pushed:v1", files=["model.bin", "vocab"])
    file, folder = sorted(
        listed(make_provider(), f"oci://{registry.host}/pushed:v1"), key=lambda entry: entry.unpack is not None
    )
    assert (file.path, fetched(make_provider(), file)) == ("model.bin", b"weights")
    with tarfile.open(fileobj=io.BytesIO(fetched(make_provider(), folder))) as tar:
        assert [member.name for member in tar if member.isfile()] == ["vocab/words.txt"]


def test_digest_holds_the_name_to_one_manifest(registry: Registry) -> None:
    descriptor = registry.push("moving", [("application/x", b"old", {TITLE: "model"})])
    registry.push("moving", [("application/x", b"new", {TITLE: "model"})])
    (old,) = listed(make_provider(), f"oci://{registry.host}/moving@{descriptor['digest']}")
    (new,) = listed(make_provider(), f"oci+fetch://{registry.host}/moving:latest")
    assert [fetched(make_provider(), entry) for entry in (old, new)] == [b"old", b"new"]


def test_layer_of_unknown_use_is_refused(registry: Registry) -> None:
    registry.push("odd", [("application/x-what", b"?", {})])
    with pytest.raises(Permanent, match=r"oci://.*/odd: .* of type 'application/x-what' is neither an archive nor"):
        listed(make_provider(), f"oci://{registry.host}/odd")


@pytest.mark.parametrize("path", ["nope", "moved:v9"])
def test_what_the_registry_does_not_have_is_said(registry: Registry, path: str) -> None:
    registry.push("moved", [("application/x", b"", {TITLE: "model"})])
    with pytest.raises(Permanent, match=f"oci://{registry.host}/{path}: .* 404 .*MANIFEST_UNKNOWN"):
        listed(make_provider(), f"oci://{registry.host}/{path}")


@pytest.fixture(scope="module", params=["htpasswd", "token"])
def guarded(
    request: pytest.FixtureRequest, program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """A registry that asks for a password, or for a token that is given for one."""
    with registry_served(program, tmp_path_factory.mktemp("guarded"), auth=request.param) as registry:
        registry.push("private/model", [("application/x", b"weights", {TITLE: "model"})])
        yield registry


def configured(tmp_path: Path, **auths: Any) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": auths}))
    return str(path)


PAIR = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


@pytest.mark.parametrize("form", ["pair", "fields", "namespace"])
def test_credential_of_a_docker_configuration_opens(guarded: Registry, tmp_path: Path, form: str) -> None:
    auths = {
        "pair": {guarded.host: PAIR},
        "fields": {f"https://{guarded.host}": {"username": USER, "password": PASSWORD}},
        "namespace": {f"{guarded.host}/private": PAIR, guarded.host: {"auth": "bm9ib2R5OndybyBuZw=="}},
    }[form]
    provider = make_provider(KSERVE_OCI_DOCKER_CONFIG=configured(tmp_path, **auths))
    (entry,) = listed(provider, f"oci://{guarded.host}/private/model")
    assert fetched(provider, entry, offset=3) == b"ghts"
    another = make_provider(KSERVE_OCI_DOCKER_CONFIG=configured(tmp_path, **auths))
    assert fetched(another, entry) == b"weights", "read without a listing in the same process"


def test_docker_s_own_directory_is_looked_in(guarded: Registry, tmp_path: Path) -> None:
    configured(tmp_path, **{guarded.host: PAIR})
    (entry,) = listed(make_provider(DOCKER_CONFIG=str(tmp_path)), f"oci://{guarded.host}/private/model")
    assert entry.size_bytes == 7


def test_registry_that_asks_for_a_credential_says_how_to_give_one(guarded: Registry) -> None:
    with pytest.raises(Permanent, match=f"401 .*no docker configuration has a credential for {guarded.host}; give an "):
        listed(make_provider(), f"oci://{guarded.host}/private/model")


def test_wrong_credential_is_named_by_its_file(guarded: Registry, tmp_path: Path) -> None:
    path = configured(tmp_path, **{guarded.host: {"username": USER, "password": "guessed"}})
    with pytest.raises(Permanent, match=f"401 .*the credential of {path} may not pull private/model"):
        listed(make_provider(KSERVE_OCI_DOCKER_CONFIG=path), f"oci://{guarded.host}/private/model")


@pytest.fixture(scope="module")
def tokens(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with a server of tokens, and a model that all may read."""
    with registry_served(program, tmp_path_factory.mktemp("tokens"), auth="token") as registry:
        for name in ("public/model", "private/model"):
            registry.push(name, [("application/x", b"weights", {TITLE: "model"})])
        yield registry


def test_public_model_is_read_with_nobody_s_token_and_one_for_all_ranges(tokens: Registry) -> None:
    now = [0.0]
    provider = OciProvider(INSECURE, clock=lambda: now[0])
    tokens.tokens.clear()
    (entry,) = listed(provider, f"oci://{tokens.host}/public/model")
    assert [fetched(provider, entry, offset=offset) for offset in (0, 3)] == [b"weights", b"ghts"]
    assert tokens.tokens == [("repository:public/model:pull", None)]
    now[0] = 241.0  # of 300 seconds
    assert fetched(provider, entry) == b"weights"
    assert len(tokens.tokens) == 2


def test_identity_token_is_changed_for_a_token(tokens: Registry, tmp_path: Path) -> None:
    path = configured(tmp_path, **{tokens.host: {"identitytoken": "the-identity"}})
    provider = make_provider(KSERVE_OCI_DOCKER_CONFIG=path)
    (entry,) = listed(provider, f"oci://{tokens.host}/private/model")
    assert fetched(provider, entry) == b"weights"
    assert tokens.tokens[-1] == ("repository:private/model:pull", "the-identity")


def test_token_that_is_refused_when_it_is_old_is_asked_for_anew(tokens: Registry) -> None:
    now = [0.0]
    provider = OciProvider(INSECURE, clock=lambda: now[0])
    (entry,) = listed(provider, f"oci://{tokens.host}/public/model")
    refusal = Refusal(url="", status=401, reason="Unauthorized", headers={}, body=b"")
    assert isinstance(provider.refused(entry, refusal), Permanent)
    now[0] = 100.0
    assert isinstance(provider.refused(entry, refusal), Transient)
    tokens.tokens.clear()
    assert fetched(provider, entry) == b"weights"
    assert len(tokens.tokens) == 1


def test_certificate_that_nobody_signed_is_taken_of_an_insecure_registry_only(program: Path, tmp_path: Path) -> None:
    with registry_served(program, tmp_path, certificate=True) as registry:
        uri = f"oci://{registry.host}/nope"
        with pytest.raises(Permanent, match="MANIFEST_UNKNOWN"):
            listed(make_provider(), uri)
        with pytest.raises(Transient, match="CERTIFICATE_VERIFY_FAILED"):
            listed(make_provider(KSERVE_OCI_INSECURE_REGISTRY="false"), uri)
