"""A real server, a real model, and other people's clients."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from servery_predictor.server import Predictor

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
V2 = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP64", "data": ROWS}]}


@pytest.fixture
async def http(predictor: Predictor):  # type: ignore[no-untyped-def]
    async with httpx.AsyncClient(base_url=predictor.http.url) as client:
        yield client


async def test_v1_predicts_whatever_the_content_type(http: httpx.AsyncClient) -> None:
    for content_type in ("application/json", "application/x-www-form-urlencoded"):
        answer = await http.post(
            "/v1/models/iris:predict", content=json.dumps({"instances": ROWS}), headers={"content-type": content_type}
        )
        assert (answer.status_code, answer.text) == (200, '{"predictions":[1,1]}')


async def test_v2_predicts(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v2/models/iris/infer", json={**V2, "id": "7"})
    output = {"name": "output-0", "datatype": "INT64", "shape": [2], "data": [1, 1]}
    assert answer.json() == {"model_name": "iris", "id": "7", "outputs": [output]}


async def test_metadata_comes_from_the_fitted_model(http: httpx.AsyncClient) -> None:
    found = (await http.get("/v2/models/iris")).json()
    assert found["inputs"] == [{"name": "input-0", "datatype": "FP64", "shape": [-1, 4]}]
    assert found["platform"].startswith("sklearn-")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", {"status": "alive"}),
        ("/v1/models", {"models": ["iris"]}),
        ("/v1/models/iris", {"name": "iris", "ready": True}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/iris/ready", {"name": "iris", "ready": True}),
    ],
)
async def test_probe_answers(http: httpx.AsyncClient, path: str, expected: object) -> None:
    answer = await http.get(path)
    assert (answer.status_code, answer.json()) == (200, expected)


async def test_unloaded_model_is_not_ready_and_loads_again(http: httpx.AsyncClient) -> None:
    await http.post("/v2/repository/models/iris/unload")
    assert (await http.get("/v2/health/ready")).status_code == 503
    refused = await http.post("/v1/models/iris:predict", json={"instances": ROWS})
    assert (refused.status_code, refused.json()) == (503, {"error": "Model with name iris is not ready, but Pending"})
    await http.post("/v2/repository/models/iris/load")
    assert (await http.post("/v2/repository/index")).json() == [{"name": "iris", "state": "READY", "reason": ""}]
    assert (await http.post("/v1/models/iris:predict", json={"instances": ROWS})).status_code == 200


async def test_metrics_count_by_protocol_and_code(http: httpx.AsyncClient) -> None:
    await http.post("/v1/models/iris:predict", json={"instances": ROWS})
    await http.post("/v1/models/iris:predict", json={"instances": [[1.0]]})
    text = (await http.get("/metrics")).text
    assert 'servery_predictor_requests_total{code="OK",model="iris",protocol="v1"} 1.0' in text
    assert 'servery_predictor_requests_total{code="INVALID_ARGUMENT",model="iris",protocol="v1"} 1.0' in text


async def test_documentation_shows_the_inference_routes(http: httpx.AsyncClient) -> None:
    assert "/v1/models/{model}:predict" in (await http.get("/openapi.json")).json()["paths"]
    assert (await http.get("/docs")).status_code == 200


BAD = [
    pytest.param("/v1/models/iris:predict", b"{", 400, "not JSON", id="broken-json"),
    pytest.param("/v1/models/iris:predict", b"{}", 400, '"instances" or "inputs"', id="no-instances"),
    pytest.param("/v1/models/iris:predict", b'{"instances":[[1,2]]}', 400, "[rows, 4]", id="wrong-shape"),
    pytest.param("/v1/models/iris:predict", b'{"instances":[[NaN,1,1,1]]}', 400, "not JSON", id="nan"),
    pytest.param("/v1/models/iris:predict", b'{"instances":[[1,2,3,4],[1]]}', 400, "differ in shape", id="ragged"),
    pytest.param("/v1/models/iris:predict", b'{"instances":[[null,1,1,1]]}', 400, "numbers or strings", id="null"),
    pytest.param("/v1/models/other:predict", b'{"instances":[[1]]}', 404, "does not exist", id="unknown-model"),
    pytest.param("/v2/models/iris/versions/9/infer", json.dumps(V2).encode(), 404, "no version", id="unknown-version"),
    pytest.param(
        "/v2/models/iris/infer",
        json.dumps({"inputs": [{**V2["inputs"][0], "datatype": "FP8"}]}).encode(),
        400,
        "unknown datatype 'FP8'",
        id="wrong-datatype",
    ),
    pytest.param(
        "/v2/models/iris/infer",
        json.dumps({"inputs": [{**V2["inputs"][0], "shape": [3, 4]}]}).encode(),
        400,
        "needs 12 elements, data has 8",
        id="shape-contradicts-data",
    ),
    pytest.param("/v1/models/iris:predict", b" " * 1_000_001, 413, "limit is 1000000", id="huge-body"),
]


@pytest.mark.parametrize(("path", "body", "status", "words"), BAD)
async def test_bad_request_is_told_why_and_the_server_lives_on(
    http: httpx.AsyncClient, path: str, body: bytes, status: int, words: str
) -> None:
    answer = await http.post(path, content=body)
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert (await http.post("/v1/models/iris:predict", json={"instances": ROWS})).status_code == 200


TRITON = """
import sys, numpy as np
import tritonclient.{kind} as client
c = client.InferenceServerClient(sys.argv[1])
assert c.is_server_live() and c.is_server_ready() and c.is_model_ready("iris")
x = client.InferInput("x", [2, 4], "FP64")
x.set_data_from_numpy(np.array({rows}))
assert c.infer("iris", [x]).as_numpy("output-0").tolist() == [1, 1]
assert {metadata} == "iris"
"""

KSERVE = """
import asyncio, sys
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
x = InferInput("x", [2, 4], "FP64", data=sum({rows}, []))
async def main():
    rest = InferenceRESTClient(RESTConfig(protocol="v2"))
    answer = await rest.infer("http://" + sys.argv[1], InferRequest("iris", [x]), model_name="iris")
    assert answer.outputs[0].data == [1, 1], answer.outputs[0].data
    rpc = InferenceGRPCClient(sys.argv[2])
    assert await rpc.is_model_ready("iris")
    answer = await rpc.infer(InferRequest("iris", [x]))
    assert list(answer.outputs[0].as_numpy()) == [1, 1]
    await rpc.close()
asyncio.run(main())
"""


async def run_client(program: str, *addresses: str) -> None:
    # Apart: two of them in one process fight over protobuf's global names.
    client = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", program, *addresses, stderr=subprocess.PIPE
    )
    _, errors = await client.communicate()
    assert client.returncode == 0, errors.decode()


@pytest.mark.parametrize(
    ("kind", "metadata"),
    [("http", 'c.get_model_metadata("iris")["name"]'), ("grpc", 'c.get_model_metadata("iris").name')],
)
async def test_triton_client_is_served(predictor: Predictor, kind: str, metadata: str) -> None:
    assert predictor.grpc is not None
    port = predictor.http.port if kind == "http" else predictor.grpc.port
    await run_client(TRITON.format(kind=kind, rows=ROWS, metadata=metadata), f"127.0.0.1:{port}")


async def test_kserve_client_is_served(predictor: Predictor) -> None:
    assert predictor.grpc is not None
    addresses = (f"127.0.0.1:{predictor.http.port}", f"127.0.0.1:{predictor.grpc.port}")
    await run_client(KSERVE.format(rows=ROWS), *addresses)


async def test_grpc_tells_health_and_errors(predictor: Predictor) -> None:
    from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
    from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

    assert predictor.grpc is not None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{predictor.grpc.port}") as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        stub = GRPCInferenceServiceStub(channel)
        tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=[1, 2])
        wrong = pb.ModelInferRequest(model_name="iris", inputs=[tensor], raw_input_contents=[np.zeros(2).tobytes()])
        with pytest.raises(grpc.aio.AioRpcError, match="takes \\[rows, 4\\]") as refused:
            await stub.ModelInfer(wrong)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        index = await stub.RepositoryIndex(pb.RepositoryIndexRequest())
        assert [model.name for model in index.models] == ["iris"]
        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await stub.ModelMetadata(pb.ModelMetadataRequest(name="nope"))
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param({}, "holds exactly one file of .joblib, .pkl, .pickle, .skops; found 0", id="missing-file"),
        pytest.param({"a.pkl": b"", "b.pkl": b""}, "found 2 of them among: a.pkl, b.pkl", id="two-files"),
        pytest.param({"model.pkl": b"\x80\x04garbage"}, "model.pkl: cannot be unpickled", id="corrupt-file"),
        pytest.param({"model.pkl": b"\x80\x09."}, "unsupported pickle protocol: 9", id="wrong-pickle-version"),
        pytest.param({"model.pkl": b"\x80\x04K\x01."}, "holds a int, which has no predict()", id="no-estimator"),
    ],
)
def test_model_that_does_not_load_leaves_its_reason(tmp_path: Path, files: dict[str, bytes], words: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    log = tmp_path / "termination-log"
    log.touch()
    arguments = ["--runtime=sklearn", f"--model_dir={folder}", "--http_port=0", "--grpc_port=0", "--host=127.0.0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "servery_predictor.cli", *arguments, f"--termination-log={log}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert words in log.read_text()
    assert words in done.stderr.splitlines()[-1]


def test_unknown_flag_is_a_usage_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "servery_predictor.cli", "--runtime=sklearn", "--modle_dir=x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "unrecognized arguments: --modle_dir=x" in done.stderr
