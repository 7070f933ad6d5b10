"""TorchServe's REST API over a host of ours: what needs no PyTorch."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servery_runtime_torch import listening, multipart, rows, store
from servery_runtime_torch.inference import decoded
from servery_runtime_torch.management import NotHere
from servery_sdk.model import ModelState
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.routes import Asked, CrossOrigin, Listener, ServedModel
from servery_sdk.serving import InputError, LoadError

PNG = b"\x89PNG\r\n\x1a\n--not a boundary\r\n\xff"


class Loaded:
    def __init__(self, default_version: str) -> None:
        self.default_version = default_version


class MemoryHost:
    """Knows what has been loaded, and answers each row with what a handler would have been given."""

    def __init__(self, *loaded: str) -> None:
        self.is_alone = True
        self.known: dict[str, Loaded | None] = {name: Loaded("1.0") for name in loaded}
        self.asked: list[tuple[InferRequest, bool]] = []
        self.answer: Callable[[list[Any]], list[Any]] = lambda items: [str(item) for item in items]

    @property
    def is_ready(self) -> bool:
        return any(self.known.values())

    def models(self) -> tuple[ServedModel, ...]:
        return tuple(map(self.model, sorted(self.known)))

    def model(self, name: str, version: str | None = None) -> ServedModel:
        if name not in self.known:
            raise NotHere(f"Model with name {name} does not exist")
        loaded = self.known[name]
        state = ModelState.PENDING if loaded is None else ModelState.LOADED
        return ServedModel(name=name, state=state, reason="", loaded=loaded)

    async def infer(self, request: InferRequest, *, protocol: str, explain: bool = False) -> InferResponse:
        assert protocol == "torchserve"
        self.asked.append((request, explain))
        answers = self.answer(rows.of_instances(request))
        return InferResponse(model=request.model, outputs=(rows.tensor("predict", answers),))

    async def load(self, name: str) -> None:
        self.known[name] = Loaded("1.0")

    async def unload(self, name: str) -> None:
        self.known[name] = None


def archived(folder: Path, file: str, name: str, version: str = "1.0") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / file, "w") as packed:
        described = {"modelName": name, "modelVersion": version, "handler": "h.py"}
        packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": described}))


CONFIG = """
inference_address=http://0.0.0.0:8085
management_address=http://127.0.0.1:8086
metrics_address=http://0.0.0.0:8082
load_models=mnist.mar, mnist2.mar
"""


@pytest.fixture
def make_listeners(tmp_path: Path) -> Callable[..., tuple[MemoryHost, list[Listener]]]:
    for file, name, version in (
        ("mnist.mar", "mnist", "1.0"),
        ("mnist2.mar", "mnist", "2.0"),
        ("noop.mar", "noop", "1"),
    ):
        archived(tmp_path / "model-store", file, name, version)

    def make(config: str = CONFIG, environment: Mapping[str, str] | None = None) -> tuple[MemoryHost, list[Listener]]:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "config.properties").write_text(config)
        host = MemoryHost("mnist")
        found = store.read(tmp_path, environment or {})
        return host, list(listening.listeners(tmp_path, found, host, environment or {}))

    return make


Call = Callable[..., tuple[int, Any]]


@pytest.fixture
def make_call(make_listeners: Any) -> Callable[..., tuple[MemoryHost, Call]]:
    """Makes a host, and what asks it: method, URL, body and headers in; status and body out, JSON where it is JSON."""

    def make(config: str = CONFIG) -> tuple[MemoryHost, Call]:
        host, listeners = make_listeners(config)
        routes = [route for listener in listeners for route in listener.routes]

        def call(method: str, url: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
            path, _, query = url.partition("?")
            pairs = dict(pair.split("=") for pair in query.split("&") if pair)
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            for route in routes:
                pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(route.path))
                if route.method == method and (found := re.fullmatch(pattern, path)):
                    answer = asyncio.run(
                        route.handle(Asked(path=found.groupdict(), query=pairs, headers=sent, body=body))
                    )
                    assert ("x-request-id" in answer.headers) == ("x-request-id" not in sent)
                    is_json = answer.content_type == "application/json"
                    return answer.status, json.loads(answer.body) if is_json else answer.body
            raise AssertionError(f"no route for {method} {path}")

        return host, call

    return make


def form(*fields: tuple[str, str, bytes]) -> tuple[bytes, str]:
    """What ``curl -F`` sends: fields of name, content type and data."""
    lines = b""
    for name, kind, data in fields:
        lines += b'--XX\r\nContent-Disposition: form-data; name="%b"; filename="f"\r\n' % name.encode()
        lines += (f"Content-Type: {kind}\r\n" if kind else "").encode() + b"\r\n" + data + b"\r\n"
    return lines + b"--XX--\r\n", "multipart/form-data; boundary=XX"


@pytest.mark.parametrize(
    ("sent", "content_type", "query", "item"),
    [
        pytest.param(PNG, "", "", {"body": bytearray(PNG)}, id="-T 0.png"),
        pytest.param(b"words", "", "", {"body": bytearray(b"words")}, id="-T words.txt"),
        pytest.param(b"words", "text/plain; charset=utf-8", "", {"body": "words"}, id="a text"),
        pytest.param(b'{"a": [1]}', "application/json", "", {"body": {"a": [1]}}, id="JSON"),
        pytest.param(*form(("data", "image/png", PNG)), "", {"data": bytearray(PNG)}, id="-F data=@0.png"),
        pytest.param(
            *form(("data", "", PNG), ("data", "", b"b")), "", {"data": [bytearray(PNG), bytearray(b"b")]}, id="-F -F"
        ),
        pytest.param(
            *form(("data", "application/json", b"[1]"), ("target", "text/plain", b"0")),
            "?k=v",
            {"k": "v", "data": [1], "target": "0"},
            id="several fields",
        ),
        pytest.param(b"", "", "?k=v", {"k": "v"}, id="a query"),
    ],
)
@pytest.mark.parametrize("verb", ["predictions", "explanations"])
def test_a_handler_is_given_what_torchserve_gives_it(
    make_call: Any, verb: str, sent: bytes, content_type: str, query: str, item: Any
) -> None:
    host, call = make_call()
    status, answer = call("PUT", f"/{verb}/mnist/2.0{query}", sent, content_type=content_type)
    assert (status, answer.decode()) == (200, str(item))
    ((request, explain),) = host.asked
    assert (request.model, request.version, explain) == ("mnist", "2.0", verb == "explanations")


@pytest.mark.parametrize(
    ("answered", "body"),
    [
        (2, 2),
        ({"class": "cat", "probability": 0.5}, {"class": "cat", "probability": 0.5}),
        ([[1.5, 2.5]], [[1.5, 2.5]]),
        ("words", b"words"),
        (PNG, PNG),
        (np.float32(0.5), 0.5),
    ],
    ids=["number", "object", "list", "text", "bytes", "numpy"],
)
def test_a_handlers_answer_goes_out_as_torchserve_writes_it(make_call: Any, answered: Any, body: Any) -> None:
    host, call = make_call()
    host.answer = lambda items: [answered] * len(items)
    assert call("POST", "/predictions/mnist", PNG) == (200, body)


def test_an_envelope_with_instances_is_answered_in_its_form(make_call: Any) -> None:
    host, call = make_call(CONFIG + "service_envelope=kserve\n")
    host.answer = lambda items: [len(items)] * len(items)
    assert call("POST", "/predictions/mnist", b'{"instances": [{"data": "a"}, {"data": "b"}]}') == (
        200,
        {"predictions": [2, 2]},
    )
    assert call("POST", "/explanations/mnist", b'{"instances": ["a"]}') == (200, {"explanations": [1]})
    assert call("POST", "/predictions/mnist", PNG) == (200, 1)
    assert call("POST", "/predictions/mnist", b"{broken") == (200, 1)
    status, answer = call("POST", "/predictions/mnist", b'{"instances": []}')
    assert (status, answer["type"]) == (400, "BadRequestException")


def test_the_body_envelope_gives_a_handler_the_value_itself(make_call: Any) -> None:
    _, call = make_call(CONFIG + "service_envelope=body\n")
    assert call("POST", "/predictions/mnist", b"[1]", content_type="application/json") == (200, b"[1]")
    body, kind = form(("k", "text/plain", b"no"), ("data", "text/plain", b"yes"))
    assert call("POST", "/predictions/mnist", body, content_type=kind) == (200, b"yes")


@pytest.mark.parametrize(
    ("method", "url", "body", "kind", "status", "type_", "words"),
    [
        ("POST", "/predictions/q", b"", "", 404, "ModelNotFoundException", "Model with name q does not exist"),
        ("POST", "/predictions/mnist", b"{", "application/json", 400, "BadRequestException", "the body is not JSON"),
        ("POST", "/predictions/mnist", b"--XX", "multipart/form-data; boundary=XX", 400, "BadRequestException", "cut"),
        ("GET", "/models/noop", b"", "", 404, "ModelNotFoundException", "Model with name noop does not exist"),
        ("GET", "/models/mnist/9", b"", "", 404, "ModelNotFoundException", "Model version: 9 does not exist"),
        ("GET", "/models?limit=all", b"", "", 400, "BadRequestException", "limit: 'all' is not a number"),
        ("POST", "/models?url=noop.mar", b"", "", 405, "MethodNotAllowedException", "enable_model_api=true"),
        ("DELETE", "/models/mnist", b"", "", 405, "MethodNotAllowedException", "enable_model_api=true"),
        ("PUT", "/models/mnist/9/set-default", b"", "", 404, "ModelNotFoundException", "version: 9"),
    ],
)
def test_what_cannot_be_is_refused_in_torchserves_words(
    make_call: Any, method: str, url: str, body: bytes, kind: str, status: int, type_: str, words: str
) -> None:
    _, call = make_call()
    found, answer = call(method, url, body, content_type=kind)
    assert (found, answer["code"], answer["type"], words in answer["message"]) == (status, status, type_, True), answer


def test_health_is_that_of_the_models(make_call: Any) -> None:
    host, call = make_call()
    assert call("GET", "/ping", x_request_id="7") == (200, {"status": "Healthy"})
    host.known["mnist"] = None
    assert call("GET", "/ping") == (500, {"status": "Unhealthy"})


def test_models_are_listed_by_pages_and_described(make_call: Any) -> None:
    host, call = make_call()
    assert call("GET", "/models") == (200, {"models": [{"modelName": "mnist", "modelUrl": "mnist.mar"}]})
    host.known["noop"] = Loaded("1")
    first = {"nextPageToken": "1", "models": [{"modelName": "mnist", "modelUrl": "mnist.mar"}]}
    assert call("GET", "/models?limit=1") == (200, first)
    last = {"models": [{"modelName": "noop", "modelUrl": "noop.mar"}]}
    assert call("GET", "/models?limit=1&next_page_token=1") == (200, last)
    (one,) = call("GET", "/models/mnist")[1]
    assert (one["modelName"], one["modelVersion"], one["modelUrl"], one["minWorkers"]) == (
        "mnist",
        "1.0",
        "mnist.mar",
        1,
    )
    assert [worker["status"] for worker in one["workers"]] == ["READY"]
    assert [found["modelUrl"] for found in call("GET", "/models/mnist/all")[1]] == ["mnist.mar", "mnist2.mar"]
    assert [found["modelUrl"] for found in call("GET", "/models/mnist/2.0")[1]] == ["mnist2.mar"]


def test_workers_are_loaded_models(make_call: Any) -> None:
    host, call = make_call()
    assert call("PUT", "/models/mnist?min_worker=0") == (200, {"status": "Workers scaled to 0 for model: mnist"})
    assert host.known == {"mnist": None}
    assert call("GET", "/models/mnist")[1][0]["workers"] == []
    scaled = {"status": "Workers scaled to 1 for model: mnist, version: 2.0"}
    assert call("PUT", "/models/mnist/2.0?min_worker=3&synchronous=true") == (200, scaled)
    assert host.known["mnist"] is not None


def test_another_version_answers_who_names_none(make_call: Any) -> None:
    host, call = make_call()
    said = {"status": 'Default version successfully updated for model "mnist" to "2.0"'}
    assert call("PUT", "/models/mnist/2.0/set-default") == (200, said)
    assert host.known["mnist"].default_version == "2.0"
    assert call("GET", "/models/mnist")[1][0]["modelUrl"] == "mnist2.mar"
    host.is_alone = False
    assert call("PUT", "/models/mnist/1.0/set-default")[0] == 501
    host.is_alone, host.known["mnist"] = True, None
    assert call("PUT", "/models/mnist/1.0/set-default")[1]["message"] == "model 'mnist' is not loaded"


def test_archives_of_the_store_are_registered_and_models_deleted(make_call: Any) -> None:
    host, call = make_call(CONFIG + "enable_model_api=true\n")
    said = {"status": 'Model "noop" Version: 1 registered with 1 initial workers'}
    assert call("POST", "/models?url=noop.mar&initial_workers=1&model_name=noop") == (200, said)
    assert [model["modelName"] for model in call("GET", "/models")[1]["models"]] == ["mnist", "noop"]
    assert call("DELETE", "/models/noop/1") == (200, {"status": 'Model "noop" unregistered'})
    assert [model["modelName"] for model in call("GET", "/models")[1]["models"]] == ["mnist"]
    status, answer = call("DELETE", "/models/mnist/2.0")
    assert (status, "its versions are loaded together: 1.0, 2.0" in answer["message"]) == (400, True)
    status, answer = call("POST", "/models?url=gone.mar")
    assert (status, "it holds: mnist.mar, mnist2.mar, noop.mar" in answer["message"]) == (404, True)
    status, answer = call("POST", "/models?url=noop.mar&model_name=other")
    assert (status, "keeps its archive's name, 'noop'" in answer["message"]) == (400, True)
    host.is_alone = False
    assert call("POST", "/models?url=noop.mar")[0] == 501


def places(listeners: list[Listener]) -> list[tuple[int | None, bool, set[str]]]:
    return [
        (one.port, one.is_local, {route.path.split("/")[1] for route in one.routes} or {"metrics"})
        for one in listeners
        if not one.services and not any(route.path == "/api-description" for route in one.routes)
    ]


def rpc_places(listeners: list[Listener]) -> list[tuple[int | None, bool, str]]:
    return [(one.port, one.is_local, service.name) for one in listeners for service in one.services]


ASK, MANAGE = {"ping", "predictions", "explanations"}, {"models", "workflows"}


def test_addresses_of_the_configuration_are_where_it_is_answered(make_listeners: Any) -> None:
    _, listeners = make_listeners()
    assert places(listeners) == [
        (None, False, ASK),
        (8086, True, MANAGE),
        (8085, False, ASK),
        (8082, False, {"metrics"}),
    ]


@pytest.mark.parametrize("address", ["", "management_address=https://0.0.0.0:8443\n", "management_address=http://:x\n"])
def test_without_addresses_for_us_our_own_port_answers(
    make_listeners: Any, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    with caplog.at_level(logging.WARNING):
        _, listeners = make_listeners(address + "enable_metrics_api=false\nmetrics_address=http://0.0.0.0:1\n")
    assert places(listeners) == [(None, False, ASK), (None, False, MANAGE)]
    assert ("address is not listened on" in caplog.messages) == bool(address)


def test_variables_win_where_the_configuration_lets_them(make_listeners: Any) -> None:
    environment = {"TS_INFERENCE_ADDRESS": "http://0.0.0.0:9000", "TS_CORS_ALLOWED_ORIGIN": "https://a.example, *"}
    _, listeners = make_listeners(CONFIG + "enable_envvars_config=true\ncors_allowed_methods=GET\n", environment)
    assert [port for port, _, _ in places(listeners)] == [None, 8086, 9000, 8082]
    pages = CrossOrigin(origins=("https://a.example", "*"), methods=("GET",), headers=())
    assert {one.port: one.cross_origin for one in listeners} == {None: None, 8086: pages, 9000: pages, 8082: None}


def test_each_port_describes_all_that_is_answered_there(make_listeners: Any) -> None:
    _, listeners = make_listeners("inference_address=http://0.0.0.0:8085\nmanagement_address=http://0.0.0.0:8085\n")
    found = {}
    for one in listeners:
        for route in one.routes:
            if (route.method, route.path) in (("GET", "/api-description"), ("OPTIONS", "/")):
                answer = asyncio.run(route.handle(Asked(path={})))
                found[one.port, route.method] = json.loads(answer.body)
    assert found[8085, "GET"] == found[8085, "OPTIONS"]
    assert found[8085, "GET"]["openapi"] == "3.0.1"
    assert {"/ping", "/predictions/{model}", "/models", "/models/{model}/{version}/set-default"} <= set(
        found[8085, "GET"]["paths"]
    )
    assert "/models" not in found[None, "GET"]["paths"]
    predict = found[None, "OPTIONS"]["paths"]["/predictions/{model}/{version}"]["post"]
    assert [(one["name"], one["in"]) for one in predict["parameters"]] == [("model", "path"), ("version", "path")]
    assert "multipart/form-data" in predict["requestBody"]["content"]


@pytest.mark.parametrize("url", ["all.war", "https://models.example/all.war?token"])
def test_workflows_are_refused_with_what_to_do_instead(make_call: Any, url: str) -> None:
    _, call = make_call(CONFIG + "enable_model_api=true\n")
    for method, path in (("POST", f"/models?url={url}"), ("POST", "/workflows?url=all.war"), ("GET", "/workflows/all")):
        status, answer = call(method, path)
        assert (status, answer["type"], "InferenceGraph" in answer["message"]) == (501, "NotImplementedException", True)


def test_a_store_that_is_to_load_a_workflow_says_so(make_listeners: Any) -> None:
    with pytest.raises(LoadError, match="workflow archive, which is not served"):
        make_listeners("load_models=all.war\n")


GRPC = "grpc_inference_port=7070\ngrpc_management_port=7071\n"
ASKED = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGED = "org.pytorch.serve.grpc.management.ManagementAPIsService"


@pytest.mark.parametrize(
    ("config", "places"),
    [
        pytest.param("", [(None, False, ASKED), (None, False, MANAGED)], id="no-ports"),
        pytest.param(CONFIG, [(None, False, ASKED)], id="management-is-for-this-machine"),
        pytest.param(
            GRPC,
            [(None, False, ASKED), (7070, False, ASKED), (7071, True, MANAGED)],
            id="ports",
        ),
        pytest.param(
            GRPC + "grpc_inference_address=127.0.0.1\ngrpc_management_address=0.0.0.0\n",
            [(None, False, ASKED), (7070, True, ASKED), (7071, False, MANAGED)],
            id="addresses",
        ),
        pytest.param("grpc_inference_port=many\n", [(None, False, ASKED), (None, False, MANAGED)], id="no-number"),
    ],
)
def test_grpc_is_answered_at_our_port_and_those_of_the_configuration(
    make_listeners: Any, config: str, places: list[Any]
) -> None:
    _, listeners = make_listeners(config)
    assert rpc_places(listeners) == places


@pytest.mark.parametrize(
    "body",
    [b"", b"--YY--", b"--XX\r\n\r\nno name\r\n--XX--", b'--XX\r\nContent-Disposition: form-data; name="a"\r\n--XX--'],
    ids=["empty", "another", "no name", "no data"],
)
def test_forms_that_are_none_are_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        multipart.parts(body, b"XX")


def test_only_forms_have_boundaries() -> None:
    assert multipart.boundary('multipart/form-data; boundary="a b"') == b"a b"
    assert [multipart.boundary(kind) for kind in ("multipart/mixed; boundary=a", "multipart/form-data", "")] == [
        None
    ] * 3


def test_requests_of_one_kind_are_merged(make_call: Any) -> None:
    from servery_sdk.protocol import batch

    def key(body: bytes, kind: str) -> Any:
        asked = Asked(path={"model": "m"}, headers={"content-type": kind}, body=body)
        return batch.key(decoded(asked, "m", "")[0])

    assert key(b"a", "image/png") == key(b"bcd", "") != key(b"a", "text/plain")
