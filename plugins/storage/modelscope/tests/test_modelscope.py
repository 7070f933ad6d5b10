from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from servery_sdk.errors import Permanent, ServeryError, Transient
from servery_sdk.hubs import HubPlace
from servery_sdk.storage import StorageProvider, StorageUri
from servery_sdk.testing import PrefixStorageContract, RemoteStorageContract, Source
from servery_sdk.testing.storage import fetched, listed
from servery_storage_modelscope import plugin
from servery_storage_modelscope.plugin import ENDPOINT, HUB, ModelScopeProvider


@dataclass
class Scope:
    """A stand-in of ModelScope with one model, of whose listings ``most`` entries are shown.

    Source: modelscope_hub 0.5, ``_legacy_api.py``.
    """

    url: str = ""
    most: int = 10**6
    token: str | None = None
    files: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"master": {}})
    refusals: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def entries(self, revision: str, root: str, *, is_recursive: bool) -> list[dict[str, Any]]:
        start = f"{root}/" if root else ""
        files = {path: content for path, content in self.files[revision].items() if path.startswith(start)}
        folders = {"/".join(path.split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
        found: list[dict[str, Any]] = [
            {"Type": "tree", "Path": folder, "Size": 0} for folder in folders if folder.startswith(start)
        ]
        found += [
            {"Type": "blob", "Path": path, "Size": len(content), "Sha256": hashlib.sha256(content).hexdigest()}
            for path, content in files.items()
        ]
        wanted = [entry for entry in found if is_recursive or "/" not in entry["Path"][len(start) :]]
        return sorted(wanted, key=lambda entry: str(entry["Path"]))[: self.most]


class Handler(BaseHTTPRequestHandler):
    def __init__(self, scope: Scope, *arguments: Any) -> None:
        self.scope = scope
        super().__init__(*arguments)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.scope.asked.append(query.get("Root", ""))
        if self.scope.refusals:
            self.answer(self.scope.refusals.pop(0), {"retry-after": "7"}, b'{"Message": "not now"}')
        elif self.scope.token and self.headers.get("cookie") != f"m_session_id={self.scope.token}":
            self.answer(403, {}, b'{"Message": "access denied"}')
        elif url.path == "/api/v1/models/acme/models/repo/files" and query["Revision"] in self.scope.files:
            is_recursive = query["Recursive"] == "True"
            found = self.scope.entries(query["Revision"], query.get("Root", ""), is_recursive=is_recursive)
            self.answer(200, {}, json.dumps({"Code": 200, "Data": {"Files": found}, "Success": True}).encode())
        elif url.path == "/api/v1/models/acme/models/repo" and query["FilePath"] in self.scope.files[query["Revision"]]:
            content = self.scope.files[query["Revision"]][query["FilePath"]]
            start = int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            self.answer(206 if start else 200, {}, content[start:])
        else:
            self.answer(404, {}, b'{"Message": "no such model, revision or file"}')

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def scope() -> Iterator[Scope]:
    scope = Scope()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, scope)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        scope.url = f"http://127.0.0.1:{server.server_port}"
        yield scope
        server.shutdown()
        thread.join()


def make_provider(scope: Scope, **environment: str) -> ModelScopeProvider:
    return ModelScopeProvider({"MODELSCOPE_ENDPOINT": scope.url, **environment})


class Model:
    """The model as the contract sees it; git knows no empty directories, so a marker is none."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def uri(self, path: str) -> str:
        return f"modelscope://acme/models/{path}"

    def put(self, path: str, content: bytes) -> None:
        if not path.endswith("/"):
            self._scope.files["master"][path] = content

    def remove(self, path: str) -> None:
        del self._scope.files["master"][path]


class TestModelScope(PrefixStorageContract, RemoteStorageContract):
    @pytest.fixture
    def provider(self, scope: Scope) -> StorageProvider:
        return make_provider(scope)

    @pytest.fixture
    def source(self, scope: Scope) -> Source:
        return Model(scope)

    def unreachable(self, port: int, monkeypatch: pytest.MonkeyPatch) -> tuple[StorageProvider, str]:
        return make_provider(Scope(url=f"http://127.0.0.1:{port}")), "modelscope://acme/models"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("modelscope://acme/m", HubPlace(repository="acme/m", revision="master")),
        ("modelscope://acme/m:v1.0/", HubPlace(repository="acme/m", revision="v1.0")),
        ("modelscope://acme/m@feature%2Fx/a/b%20c", HubPlace(repository="acme/m", revision="feature/x", path="a/b c")),
    ],
)
def test_uri_names_a_model_a_revision_and_a_path(text: str, place: HubPlace) -> None:
    assert HUB.place_of(StorageUri.parse(text)) == place


@pytest.mark.parametrize("text", ["modelscope://m", "modelscope:///m", "modelscope://../m", "modelscope://a/b?c"])
def test_uri_that_names_no_model_is_refused_with_the_form_of_one(text: str) -> None:
    with pytest.raises(Permanent, match=r"not of the form modelscope://<owner>/<model>\[:<revision> or"):
        HUB.place_of(StorageUri.parse(text))


def test_revision_is_read(scope: Scope) -> None:
    scope.files["feature/x"] = {"a b&c#.bin": b"old"}
    (entry,) = listed(make_provider(scope), "modelscope://acme/models:feature%2Fx")
    assert fetched(make_provider(scope), entry) == b"old"


def test_tree_that_is_cut_short_is_walked_by_folder(scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "MAX_LISTED", 4)
    scope.most = 4
    scope.files["master"] = dict.fromkeys(("a", "x/a", "x/b", "x/y/a", "x/y/b", "z/a"), b"")
    assert [entry.path for entry in listed(make_provider(scope), "modelscope://acme/models")] == sorted(
        scope.files["master"]
    )
    scope.files["master"] = {str(number): b"" for number in range(5)}
    with pytest.raises(
        Permanent, match="modelscope://acme/models: / has 4 files or more, and ModelScope lists no more"
    ):
        listed(make_provider(scope), "modelscope://acme/models")


def test_token_opens_a_private_model(scope: Scope) -> None:
    scope.token = "secret"
    scope.files["master"]["a"] = b"1"
    (entry,) = listed(make_provider(scope, MODELSCOPE_API_TOKEN="secret"), "modelscope://acme/models")
    assert fetched(make_provider(scope, MODELSCOPE_API_TOKEN="secret"), entry) == b"1"
    for environment, said in (
        ({}, "a private model needs a token: set MODELSCOPE_API_TOKEN"),
        ({"MODELSCOPE_API_TOKEN": "old"}, r"the token that was sent \(MODELSCOPE_API_TOKEN\) may not read it"),
    ):
        with pytest.raises(Permanent, match=f"403 .*access denied; {said}"):
            listed(make_provider(scope, **environment), "modelscope://acme/models")
        with pytest.raises(Permanent, match=f"403 .*; {said}"):
            fetched(make_provider(scope, **environment), entry)


@pytest.mark.parametrize(("status", "kind"), [(429, Transient), (500, Transient), (400, Permanent)])
def test_refusal_is_transient_where_it_may_pass(scope: Scope, status: int, kind: type[ServeryError]) -> None:
    scope.refusals.append(status)
    with pytest.raises(kind, match=f"modelscope://acme/models: .*{status} .*not now") as refused:
        listed(make_provider(scope), "modelscope://acme/models")
    assert getattr(refused.value, "retry_after_seconds", 7.0) == 7.0


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, ENDPOINT),
        ({"MODELSCOPE_DOMAIN": "www.modelscope.ai"}, "https://www.modelscope.ai"),
        ({"MODELSCOPE_ENDPOINT": "http://mirror/", "MODELSCOPE_DOMAIN": "www.modelscope.ai"}, "http://mirror"),
    ],
)
def test_endpoint_is_read_as_the_sdk_reads_it(environment: dict[str, str], url: str) -> None:
    assert ModelScopeProvider(environment)._endpoint() == url
