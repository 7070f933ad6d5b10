from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from servery_sdk.errors import Permanent, ServeryError, Transient
from servery_sdk.storage import Location, Resolving, StorageEntry, StorageProvider, StorageUri, Tls
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_sdk.testing.storage import fetched, listed
from servery_storage_mlflow.plugin import MlflowProvider
from stand_ins.certificates import certified

STORE = "/api/2.0/mlflow-artifacts/artifacts"


@dataclass
class Server:
    """A stand-in of an MLflow server: a registry, runs, logged models and a store of its own.

    Source: MLflow 3.17, what ``mlflow server`` answered to the same requests.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    latest: dict[tuple[str, str | None], str] = field(default_factory=dict)
    aliases: dict[tuple[str, str], str] = field(default_factory=dict)
    logged: dict[str, tuple[str, str]] = field(default_factory=dict)
    runs: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    authorization: str | None = None
    refusals: list[int] = field(default_factory=list)

    def answer(self, path: str, query: Mapping[str, str]) -> Any:
        """Return what a method answers; raises KeyError for what is not there."""
        method, name = path.removeprefix("/api/2.0/mlflow/"), query.get("name", "")
        if path == STORE:
            return {"files": self.children(query["path"])} if self.children(query["path"]) else {}
        if method == "model-versions/get-download-uri":
            return {"artifact_uri": self.versions[name, query["version"]]}
        if method == "registered-models/alias":
            return {"model_version": {"name": name, "version": self.aliases[name, query["alias"]]}}
        if method == "registered-models/get-latest-versions":
            found = self.latest.get((name, query.get("stages")))
            return {"model_versions": [{"version": found}]} if found else {}
        if method.startswith("logged-models/"):
            model_name, uri = self.logged[method.removeprefix("logged-models/")]
            return {"model": {"info": {"name": model_name, "artifact_uri": uri}}}
        assert method == "runs/get", path
        uri, models = self.runs[query["run_id"]]
        outputs = {"outputs": {"model_outputs": [{"model_id": model} for model in models]}} if models else {}
        return {"run": {"info": {"artifact_uri": uri}, **outputs}}

    def children(self, folder: str) -> list[dict[str, Any]]:
        start = f"{folder}/" if folder else ""
        below = [path for path in self.files if path.startswith(start)]
        names = {PurePosixPath(path[len(start) :]).parts[0] for path in below}
        return [
            {"path": name, "is_dir": False, "file_size": len(self.files[start + name])}
            if start + name in self.files
            else {"path": name, "is_dir": True}
            for name in sorted(names)
        ]


class Handler(BaseHTTPRequestHandler):
    def __init__(self, server: Server, *arguments: Any) -> None:
        self.mlflow = server
        super().__init__(*arguments)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        path = unquote(url.path)
        if self.mlflow.refusals:
            self.refuse(self.mlflow.refusals.pop(0), "TEMPORARILY_UNAVAILABLE", "not now")
        elif self.mlflow.authorization and self.headers.get("authorization") != self.mlflow.authorization:
            self.answer(401, b"You are not authenticated.")
        else:
            try:
                if path.startswith(f"{STORE}/"):
                    self.answer(200, self.mlflow.files[path.removeprefix(f"{STORE}/")])
                else:
                    self.answer(200, json.dumps(self.mlflow.answer(path, query)).encode())
            except KeyError as missing:
                self.refuse(404, "RESOURCE_DOES_NOT_EXIST", f"{missing} not found")

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, json.dumps({"error_code": code, "message": message}).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, server)) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        server.url = f"http://127.0.0.1:{listening.server_port}"
        yield server
        listening.shutdown()
        thread.join()


def make_provider(server: Server, **environment: str) -> MlflowProvider:
    return MlflowProvider({"MLFLOW_TRACKING_URI": server.url, **environment})


class Store:
    """The server's own store, which knows no empty directories, so a marker is none."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def uri(self, path: str) -> str:
        return f"mlflow-artifacts:/{path}"

    def put(self, path: str, content: bytes) -> None:
        if not path.endswith("/"):
            self._server.files[path] = content

    def remove(self, path: str) -> None:
        del self._server.files[path]


class TestMlflow(PrefixStorageContract, RemoteStorageContract):
    @pytest.fixture
    def provider(self, server: Server) -> StorageProvider:
        return make_provider(server)

    @pytest.fixture
    def source(self, server: Server) -> Source:
        return Store(server)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return make_provider(Server(url=f"http://127.0.0.1:{port}")), "models:/iris/1"


async def resolved(server: Server, uri: str, **environment: str) -> str:
    provider = make_provider(server, **environment)
    assert isinstance(provider, Resolving)
    return str(await provider.resolve(StorageUri.parse(uri)))


@pytest.fixture
def registry(server: Server) -> Server:
    """The server with versions of a model in a bucket, runs, and a logged model."""
    server.versions = {("iris", "1"): "s3://models/iris/1", ("iris", "2"): "mlflow-artifacts:/2/artifacts"}
    server.aliases = {("iris", "champion"): "1"}
    server.latest = {("iris", None): "2", ("iris", "Production"): "1"}
    server.logged = {"m-7": ("model", "gs://models/m-7/artifacts")}
    server.runs = {"r1": ("s3://models/r1/artifacts", ["m-7"]), "r0": ("/srv/mlruns/r0/artifacts", [])}
    return server


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("models:/iris/1", "s3://models/iris/1"),
        ("models:/iris/2", "mlflow-artifacts:/2/artifacts"),
        ("models:/iris/1/deep/a%20b", "s3://models/iris/1/deep/a%20b"),
        ("models:/iris@champion", "s3://models/iris/1"),
        ("models:/iris@champion/deep", "s3://models/iris/1/deep"),
        ("models:/iris/latest", "mlflow-artifacts:/2/artifacts"),
        ("models:/iris/Production", "s3://models/iris/1"),
        ("models:/m-7", "gs://models/m-7/artifacts"),
        ("runs:/r1/model", "gs://models/m-7/artifacts"),
        ("runs:/r1/model/code", "gs://models/m-7/artifacts/code"),
        ("runs:/r1/plots", "s3://models/r1/artifacts/plots"),
        ("runs:/r0/a b", "/srv/mlruns/r0/artifacts/a b"),
        ("mlflow-artifacts:/2/artifacts", "mlflow-artifacts:/2/artifacts"),
    ],
)
async def test_name_is_resolved_to_where_the_artifacts_lie(registry: Server, uri: str, place: str) -> None:
    assert await resolved(registry, uri) == place


async def test_store_by_its_address_is_the_server_s_own(registry: Server) -> None:
    registry.versions["iris", "3"] = f"{registry.url}{STORE}/3/artifacts"
    registry.files["3/artifacts/MLmodel"] = b"flavors: {}"
    host = urlsplit(registry.url).netloc
    assert await resolved(registry, "models:/iris/3") == f"mlflow-artifacts://{host}/3/artifacts"


async def test_registry_may_be_another_server(registry: Server) -> None:
    unused = "http://127.0.0.1:1"
    found = await resolved(
        registry, "models:/iris/1", MLFLOW_TRACKING_URI=unused, MLFLOW_REGISTRY_URI=f"{registry.url}/"
    )
    assert found == "s3://models/iris/1"


def test_registered_model_in_the_server_s_store_is_read(registry: Server) -> None:
    registry.files = {"2/artifacts/MLmodel": b"flavors: {}", "2/artifacts/data/a b#1.bin": b"weights", "2/other": b""}
    found = listed(make_provider(registry), "models:/iris/latest")
    assert {entry.path: fetched(make_provider(registry), entry) for entry in found} == {
        "MLmodel": b"flavors: {}",
        "data/a b#1.bin": b"weights",
    }
    host = urlsplit(registry.url).netloc
    (entry,) = listed(make_provider(registry), f"mlflow-artifacts://{host}/2/artifacts/MLmodel")
    assert fetched(make_provider(registry), entry) == b"flavors: {}"


def test_artifacts_elsewhere_are_another_provider_s(registry: Server) -> None:
    with pytest.raises(Permanent, match="models:/iris/1: the artifacts lie at s3://models/iris/1, which another prov"):
        listed(make_provider(registry), "models:/iris/1")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("models:/iris/9", "404 .*RESOURCE_DOES_NOT_EXIST: .*'iris', '9'.* not found"),
        ("models:/iris@nobody", "404 .*RESOURCE_DOES_NOT_EXIST"),
        ("models:/iris/Staging", "the registered model 'iris' has no version 'Staging'"),
        ("runs:/none/model", "404 .*RESOURCE_DOES_NOT_EXIST"),
        ("models:/iris", "not of the forms models:/<name>/<version>, models:/<name>@<alias>, "),
        ("runs:/", "not of the forms "),
    ],
)
async def test_name_of_nothing_is_said(registry: Server, uri: str, said: str) -> None:
    with pytest.raises(Permanent, match=f"{uri}: .*{said}"):
        await resolved(registry, uri)


@pytest.mark.parametrize(
    ("authorization", "environment"),
    [
        (
            "Basic " + base64.b64encode(b"me:it").decode(),
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "it"},
        ),
        ("Bearer it", {"MLFLOW_TRACKING_TOKEN": "it"}),
    ],
    ids=["password", "token"],
)
def test_credential_opens_registry_and_store(registry: Server, authorization: str, environment: dict[str, str]) -> None:
    registry.authorization = authorization
    registry.files = {"2/artifacts/MLmodel": b"flavors: {}"}
    (entry,) = listed(make_provider(registry, **environment), "models:/iris/2")
    assert fetched(make_provider(registry, **environment), entry) == b"flavors: {}"
    with pytest.raises(
        Permanent, match=r"401 .*; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW"
    ):
        listed(make_provider(registry), "models:/iris/2")


@pytest.mark.parametrize(("status", "kind"), [(503, Transient), (429, Transient), (400, Permanent)])
async def test_refusal_is_transient_where_it_may_pass(registry: Server, status: int, kind: type[ServeryError]) -> None:
    registry.refusals.append(status)
    with pytest.raises(kind, match=f"models:/iris/1: .*{status} .*TEMPORARILY_UNAVAILABLE: not now"):
        await resolved(registry, "models:/iris/1")


@pytest.mark.parametrize("url", ["", "sqlite:///mlflow.db", "./mlruns", "databricks"])
async def test_tracking_uri_that_is_no_server_is_refused(server: Server, url: str) -> None:
    with pytest.raises(Permanent, match=f"MLFLOW_TRACKING_URI: '{url}' is no URL of an MLflow server; such is https"):
        await resolved(server, "models:/iris/1", MLFLOW_TRACKING_URI=url)


async def test_server_that_is_no_mlflow_is_said_to_be_none(registry: Server) -> None:
    registry.versions = {}
    with pytest.raises(Permanent, match="404"):
        await resolved(registry, "models:/iris/1")
    registry.logged["m-8"] = ("model", "")
    registry.answer = lambda path, query: []  # type: ignore[method-assign, assignment]  # as any JSON server may
    with pytest.raises(Permanent, match="MLFLOW_TRACKING_URI does not answer as MLflow does"):
        await resolved(registry, "models:/m-8")


def test_files_are_read_with_the_tls_of_the_server(server: Server, tmp_path: Path) -> None:
    certified(tmp_path)
    bundle = str(tmp_path / "cert.pem")
    provider = make_provider(
        server, MLFLOW_TRACKING_SERVER_CERT_PATH=bundle, MLFLOW_TRACKING_CLIENT_CERT_PATH=bundle, MLFLOW_WORKSPACE="a"
    )
    location = provider.locate(StorageEntry(path="a", source="https://mlflow x/a b"))
    assert location == Location(
        url=f"https://mlflow{STORE}/x/a%20b",
        headers={"user-agent": "servery", "x-mlflow-workspace": "a"},
        tls=Tls(ca_file=Path(bundle), certificate_file=Path(bundle), key_file=Path(bundle)),
    )
    insecure = make_provider(server, MLFLOW_TRACKING_INSECURE_TLS="true")
    assert not insecure.locate(StorageEntry(path="a", source="https://mlflow a")).tls.verify
