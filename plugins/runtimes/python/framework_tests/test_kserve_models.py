"""The same files, served by KServe's own server and by ours, answer alike."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
import pytest
from ports import free_ports
from servery_sdk.protocol import Datatype, InferRequest, Tensor, v2
from servery_sdk.protocol import grpc as codec
from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

MODELS = Path(__file__).parent / "kserve_models"
PATIENCE_SECONDS = 90
JSON = {"content-type": "application/json"}
Program = Callable[[Path, str, int, int], list[str]]

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]


def kserves(file: Path, name: str, http: int, rpc: int) -> list[str]:
    return [str(file), f"--model_name={name}", f"--http_port={http}", f"--grpc_port={rpc}"]


def ours(file: Path, name: str, http: int, rpc: int) -> list[str]:
    flags = ("--runtime=python", f"--model_dir={file.parent}", "--host=127.0.0.1")
    return ["-m", "servery_predictor.cli", *flags, *kserves(file, name, http, rpc)[1:]]


@dataclass
class Server:
    """One process."""

    process: subprocess.Popen[bytes]
    http: int
    rpc: int
    rest: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        # KServe's server closes a connection after an error of a model's, and does not say so before.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.rest = httpx.Client(base_url=f"http://127.0.0.1:{self.http}", trust_env=False, timeout=60, limits=limits)

    def until_ready(self) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            with contextlib.suppress(httpx.TransportError):
                if self.rest.get("/v2/health/ready").status_code == 200:
                    return
            assert self.process.poll() is None, f"ended with {self.process.returncode}"
            assert time.monotonic() < until, "is not ready in time"
            time.sleep(0.05)  # another process's port has no event

    def infer(self, request: InferRequest, *, raw: bool = True, **metadata: str) -> tuple[str, Any]:
        with grpc.insecure_channel(f"127.0.0.1:{self.rpc}", [("grpc.enable_http_proxy", 0)]) as channel:
            stub = GRPCInferenceServiceStub(channel)
            try:
                asked = codec.encode_request(request, raw=raw)
                answer = stub.ModelInfer(asked, metadata=tuple(metadata.items()), timeout=30)
            except grpc.RpcError as failure:
                return failure.code().name, failure.details()
        found = codec.decode_response(answer)
        return "OK", (
            found.id,
            [(t.name, t.datatype, t.data.tolist()) for t in found.outputs],
            bool(answer.raw_output_contents),
        )


@contextlib.contextmanager
def running(program: Program, file: Path, name: str, *flags: str) -> Iterator[Server]:
    http, rpc = free_ports(2)
    command = [sys.executable, *program(file, name, http, rpc), *flags]
    environment = {**os.environ, "no_proxy": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"}
    # KServe's server is run as its users run it: in the folder of its file.
    process = subprocess.Popen(
        command, cwd=file.parent, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    server = Server(process, http, rpc)
    try:
        yield server
    finally:
        server.rest.close()
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@dataclass(frozen=True)
class Both:
    """KServe's server and ours, with one file."""

    theirs: Server
    ours: Server


@contextlib.contextmanager
def both(file: Path, name: str, *flags: str) -> Iterator[Both]:
    with running(kserves, file, name, *flags) as theirs, running(ours, file, name, *flags) as here:
        theirs.until_ready()
        here.until_ready()
        yield Both(theirs, here)


@pytest.fixture(scope="module")
def everything() -> Iterator[Both]:
    with both(MODELS / "everything" / "custom.py", "plain", "--by=3") as servers:
        yield servers


def said(answer: httpx.Response) -> tuple[int, Any, Mapping[str, str]]:
    """Return what must be alike: an answer without what it leaves open, and the headers that models write."""
    headers = {name: value for name, value in answer.headers.items() if name.startswith(("x-", "ce-", "inference-"))}
    kind = answer.headers.get("content-type", "").partition(";")[0]
    body = without_nulls(answer.json()) if kind.endswith("json") else answer.content
    return answer.status_code, body, headers


def without_nulls(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: without_nulls(value) for name, value in found.items() if value is not None}
    return [without_nulls(value) for value in found] if isinstance(found, list) else found


TENSOR = {"name": "x", "shape": [2, 2], "datatype": "FP64", "data": [[1, 2], [3, 4.5]]}
RAISED = ("InvalidInput", "InferenceError", "ModelNotFound", "ModelNotReady", "ServerNotReady", "ServerNotLive",
          "UnsupportedProtocol", "NotImplementedError", "HTTPException", "ZeroDivisionError")  # fmt: skip
BINARY = v2.encode_request(
    InferRequest(model="plain", inputs=(Tensor(name="x", data=np.ones((2, 2)), datatype=Datatype.FP64),)), binary=True
)
EVENT = {"specversion": "1.0", "id": "1", "source": "here", "type": "ask", "time": "2024-01-01T00:00:00Z"}

CASES: Mapping[str, tuple[str, Any, Mapping[str, str]]] = {
    "v1": ("/v1/models/plain:predict", {"instances": [1, 2]}, JSON),
    "v1, what no tensor holds": (
        "/v1/models/plain:predict",
        {"instances": ["a", [1, "b"], 2.5], "more": {"x": None}},
        JSON,
    ),
    "v1, JSON with a charset is bytes": (
        "/v1/models/plain:predict",
        b"abc",
        {"content-type": "application/json; charset=utf-8"},
    ),
    "v1, bytes": ("/v1/models/plain:predict", b"\x00\xff\x01", {"content-type": "image/png"}),
    "v1, no JSON": ("/v1/models/plain:predict", b'{"instances', JSON),
    "v1, no instances": ("/v1/models/plain:predict", {}, JSON),
    "v1, instances are no list": ("/v1/models/plain:predict", {"instances": 3}, JSON),
    "v1, explained": ("/v1/models/plain:explain", {"instances": [1, 2]}, JSON),
    "v1, not explained": ("/v1/models/waiting:explain", {"instances": [1, 2]}, JSON),
    "v1, headers both ways": ("/v1/models/waiting:predict", {}, {**JSON, "Authorization": "Bearer me"}),
    "v1, a call of its own": ("/v1/models/odd:predict", {"instances": [1]}, JSON),
    "v1, text": ("/v1/models/odd:predict", {"instances": "a text"}, JSON),
    "v1, streamed": ("/v1/models/streaming:predict", {"instances": ["a", "bc"]}, JSON),
    "v1, an event around it": (
        "/v1/models/plain:predict",
        {**EVENT, "data": {"instances": [1]}},
        {"content-type": "application/json"},
    ),
    "v2": ("/v2/models/plain/infer", {"id": "5", "inputs": [TENSOR]}, JSON),
    "v2, outputs named": ("/v2/models/plain/infer", {"inputs": [TENSOR], "outputs": [{"name": "y"}]}, JSON),
    "v2, an output that is not there": ("/v2/models/plain/infer", {"inputs": [TENSOR], "outputs": [{"name": "z"}]}, JSON),
    "v2, as bytes": (
        "/v2/models/plain/infer",
        BINARY.body,
        {"content-type": "application/octet-stream", "inference-header-content-length": str(BINARY.json_length)},
    ),
    "v2, a shape that does not fit": ("/v2/models/plain/infer", {"inputs": [{**TENSOR, "shape": [3]}]}, JSON),
    "v2, FP16 as JSON": ("/v2/models/plain/infer", {"inputs": [{**TENSOR, "datatype": "FP16"}]}, JSON),
    "unknown model is unknown": ("/v1/models/unready:predict", {"instances": [1]}, JSON),
    **{f"v1, {name}": ("/v1/models/plain:predict", {"raise": name}, JSON) for name in RAISED},
    **{
        f"v2, {name}": ("/v2/models/plain/infer", {"inputs": [TENSOR], "parameters": {"raise": name}}, JSON)
        for name in RAISED
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rest_answers_as_kserve_does(everything: Both, case: str) -> None:
    path, body, headers = CASES[case]
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    theirs, here = (
        said(s.rest.post(path, content=content, headers=headers)) for s in (everything.theirs, everything.ours)
    )
    if theirs[0] == 404:
        # Ours say what there is as well.
        assert here[0] == 404
        assert here[1]["error"].startswith(theirs[1]["error"].removesuffix("."))
    elif case == "v2, FP16 as JSON":
        # KServe has two readers of a request, with words of their own.
        assert (here[0], here[1]["error"].partition(" ")[2]) == (theirs[0], theirs[1]["error"].partition(" ")[2])
    else:
        assert here == theirs


@pytest.mark.parametrize("kind", ["binary", "structured"])
def test_an_event_is_answered_with_an_event(everything: Both, kind: str) -> None:
    if kind == "binary":
        headers = {**JSON, **{f"ce-{name}": value for name, value in EVENT.items()}}
        content = b'{"instances": [1]}'
    else:
        headers = {"content-type": "application/cloudevents+json"}
        content = orjson.dumps({**EVENT, "data": {"instances": [1]}})
    found = []
    for server in (everything.theirs, everything.ours):
        status, body, more = said(server.rest.post("/v1/models/plain:predict", content=content, headers=headers))
        # Each event has its own.
        of_its_own = {"id", "time", "ce-id", "ce-time"}
        found.append((status, {k: v for k, v in body.items() if k not in of_its_own}, {k: v for k, v in more.items() if k not in of_its_own}))  # fmt: skip
    assert found[0] == found[1]
    assert found[0][0] == 200


def rows(**parameters: str) -> InferRequest:
    data = np.array([[1.0, 2.0]])
    return InferRequest(
        model="plain", id="9", inputs=(Tensor(name="x", data=data, datatype=Datatype.FP64),), parameters=parameters
    )


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_grpc_answers_as_kserve_does(everything: Both, raw: bool) -> None:
    theirs, here = (server.infer(rows(), raw=raw) for server in (everything.theirs, everything.ours))
    assert here == theirs
    assert here[0] == "OK"


# KServe looks for words that these errors do not have, and answers UNKNOWN by accident.
BY_ACCIDENT = {"NotImplementedError": "UNIMPLEMENTED", "ModelNotReady": "UNAVAILABLE", "ServerNotReady": "UNAVAILABLE", "ServerNotLive": "UNAVAILABLE"}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in RAISED if name != "HTTPException"])
def test_grpc_refuses_as_kserve_does(everything: Both, name: str) -> None:
    theirs, here = (server.infer(rows(**{"raise": name})) for server in (everything.theirs, everything.ours))
    assert here[0] == BY_ACCIDENT.get(name, theirs[0])
    if name in BY_ACCIDENT:
        assert theirs[0] == "UNKNOWN"
    elif theirs[0] != "INTERNAL":
        assert here == theirs


@pytest.mark.parametrize(
    "path", ["/v1/models/plain", "/v2/models/plain/ready", "/v1/models/unready", "/v2/models/unready/ready"]
)
def test_readiness_is_told_as_kserve_does(everything: Both, path: str) -> None:
    theirs, here = (server.rest.get(path) for server in (everything.theirs, everything.ours))
    assert here.status_code == theirs.status_code
    if theirs.status_code == 200:
        assert here.json() == theirs.json()


def test_metadata_is_what_the_model_says(everything: Both) -> None:
    theirs, here = (server.rest.get("/v2/models/plain").json() for server in (everything.theirs, everything.ours))
    for member in ("name", "platform", "inputs", "outputs"):
        assert here[member] == theirs[member]
    assert here["outputs"] == [{"name": "y", "datatype": "FP64", "shape": [-1, 2]}]


def test_models_are_listed_as_kserve_lists_them(everything: Both) -> None:
    theirs, here = (
        set(server.rest.get("/v1/models").json()["models"]) for server in (everything.theirs, everything.ours)
    )
    assert here == theirs == {"plain", "waiting", "streaming", "odd", "moody"}


def test_a_model_that_says_so_is_not_ready(everything: Both) -> None:
    for server in (everything.theirs, everything.ours):
        answers = [server.rest.post("/v1/models/moody:predict", json={}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 503]
        assert answers[1].json() == {"error": "Model with name moody is not ready."}
        assert server.rest.get("/v1/models/moody").status_code == 503


def test_coroutines_run_side_by_side(everything: Both) -> None:
    def ask(_: int) -> int:
        answer = everything.ours.rest.post("/v1/models/waiting:predict", json={"wait": True})
        return int(answer.json()["predictions"][0])

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(ask, range(16))) >= 4


def test_a_model_that_exits_ends_no_server(everything: Both) -> None:
    answer = everything.ours.rest.post("/v1/models/odd:predict", json={"exit": True})
    assert (answer.status_code, answer.json()) == (500, {"error": "SystemExit : 3"})
    assert everything.ours.rest.get("/v2/health/ready").status_code == 200


def test_a_model_is_made_anew_when_it_is_loaded_again(everything: Both) -> None:
    rest = everything.ours.rest
    for verb in ("unload", "load"):
        assert rest.post(f"/v2/repository/models/streaming/{verb}").status_code == 200
    answer = rest.post("/v1/models/streaming:predict", json={"instances": ["a"]})
    assert (answer.status_code, answer.text) == (200, "a")


def test_kserves_histograms_and_ours_are_in_one_page(everything: Both) -> None:
    everything.ours.rest.post("/v1/models/plain:predict", json={"instances": [1]})
    lines = everything.ours.rest.get("/metrics").text.splitlines()
    types = [line for line in lines if line.startswith("# TYPE request_predict_seconds ")]
    assert len(types) == 1
    assert any(line.startswith('request_preprocess_seconds_count{model_name="plain"}') for line in lines)


@pytest.fixture(scope="module")
def bare() -> Iterator[Server]:
    with running(ours, MODELS / "bare" / "model.py", "anything", "--workers=2") as server:
        server.until_ready()
        yield server


def test_a_class_that_nothing_starts_is_served_by_the_servers_name(bare: Server) -> None:
    answer = bare.rest.post("/v1/models/anything:predict", json={"instances": [2]})
    assert answer.json() == {"predictions": [42]}


@pytest.fixture(scope="module", params=["v1", "v2", "grpc-v2"])
def transformer(request: pytest.FixtureRequest, everything: Both) -> Iterator[Both]:
    predictor = everything.ours
    host = f"127.0.0.1:{predictor.rpc if request.param == 'grpc-v2' else predictor.http}"
    flags = (f"--predictor_host={host}", f"--predictor_protocol={request.param}")
    with both(MODELS / "transformer" / "transformer.py", "plain", *flags) as servers:
        yield servers


def test_a_transformer_asks_its_predictor_as_kserves_does(transformer: Both) -> None:
    v1, v2_ = {"instances": [1, 2]}, {"id": "1", "inputs": [{**TENSOR, "shape": [2], "data": [1, 2]}]}
    for path, body in (("/v1/models/plain:predict", v1), ("/v2/models/plain/infer", v2_)):
        theirs, here = (server.rest.post(path, json=body) for server in (transformer.theirs, transformer.ours))
        if path.startswith("/v1"):
            assert (here.status_code, here.json()) == (theirs.status_code, theirs.json())
        # KServe refuses a v2 answer that is no v2 response; ours goes as the model made it.
        assert here.json()["predictions"] == [6, 9]


def test_what_a_predictor_refuses_keeps_its_status(transformer: Both) -> None:
    body = {"instances": [1], "raise": "InvalidInput"}
    theirs, here = (
        server.rest.post("/v1/models/plain:predict", json=body) for server in (transformer.theirs, transformer.ours)
    )
    assert theirs.status_code == 500
    assert here.status_code == 400
    assert "wrong input" in here.json()["error"]


def test_a_predictor_that_is_not_there_is_unavailable() -> None:
    flags = ("--predictor_host=127.0.0.1:9", "--predictor_protocol=v1")
    with running(ours, MODELS / "transformer" / "transformer.py", "plain", *flags) as server:
        server.until_ready()
        assert server.rest.post("/v1/models/plain:predict", json={"instances": [1]}).status_code == 503
