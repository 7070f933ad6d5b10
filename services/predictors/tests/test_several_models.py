"""An artifact that brings several models: a Triton repository, asked by Triton's own clients."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor, data_plane
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.serving import LoadError
from tritonclient.utils import InferenceServerException

CODE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        if len(requests) > 1:
            self.most = max(getattr(self, "most", 1), len(requests))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", r.inputs()[0].as_numpy() * FACTOR)]) for r in requests]
"""
CONFIG = """
backend: "python" max_batch_size: 8 dynamic_batching { }
input { name: "IN" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ 2 ] }
"""
ENSEMBLE = """
max_batch_size: 8
input { name: "X" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "Y" data_type: TYPE_FP32 dims: [ 2 ] }
ensemble_scheduling {
  step { model_name: "three" model_version: -1 input_map { key: "IN" value: "X" } output_map { key: "OUT" value: "T" } }
  step { model_name: "five" model_version: -1 input_map { key: "IN" value: "T" } output_map { key: "OUT" value: "Y" } }
}
"""
ROWS = np.array([[1, 2], [3, 4]], np.float32)

Start = Callable[..., Awaitable[Predictor]]


def add(repository: Path, name: str, factor: int, version: int = 1) -> None:
    files = repository / name / str(version)
    files.mkdir(parents=True)
    (files / "model.py").write_text(CODE.replace("FACTOR", str(factor)))
    (files.parent / "config.pbtxt").write_text(CONFIG)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    add(repository, "three", 3)
    add(repository, "five", 5)
    (repository / "all").mkdir()
    (repository / "all" / "config.pbtxt").write_text(ENSEMBLE)
    return repository


@pytest.fixture
async def several(start: Start, models: Path) -> Predictor:
    return await start(models, runtime="triton", name="service")


@pytest.fixture
async def http(several: Predictor):  # type: ignore[no-untyped-def]
    async with httpx.AsyncClient(base_url=several.http.url) as client:
        yield client


def inputs(client: Any, name: str = "IN", data: np.ndarray = ROWS) -> list[Any]:
    tensor = client.InferInput(name, list(data.shape), "FP32")
    tensor.set_data_from_numpy(data)
    return [tensor]


async def test_tritons_http_client_finds_and_asks_every_model(several: Predictor) -> None:
    async with triton_http.InferenceServerClient(several.http.url.removeprefix("http://")) as client:
        assert await client.is_server_ready()
        index = [
            (model["name"], model["version"], model["state"]) for model in await client.get_model_repository_index()
        ]
        assert index == [("all", "1", "READY"), ("five", "1", "READY"), ("three", "1", "READY")]
        config = await client.get_model_config("three")
        assert (config["max_batch_size"], config["input"][0]["dims"]) == (8, [2])
        assert (await client.get_model_metadata("all"))["platform"] == "ensemble"
        answer = await client.infer("three", inputs(triton_http))
        assert answer.as_numpy("OUT").tolist() == (ROWS * 3).tolist()
        assert answer.get_response()["model_version"] == "1"
        answer = await client.infer("all", inputs(triton_http, "X"), model_version="1")
        assert answer.as_numpy("Y").tolist() == (ROWS * 15).tolist()


async def test_tritons_grpc_client_finds_and_asks_every_model(several: Predictor) -> None:
    assert several.grpc is not None
    async with triton_grpc.InferenceServerClient(f"127.0.0.1:{several.grpc.port}") as client:
        index = await client.get_model_repository_index()
        assert [(model.name, model.version) for model in index.models] == [("all", "1"), ("five", "1"), ("three", "1")]
        config = (await client.get_model_config("all")).config
        assert config.ensemble_scheduling.step[1].model_name == "five"
        answer = await client.infer("all", inputs(triton_grpc, "X"))
        assert answer.as_numpy("Y").tolist() == (ROWS * 15).tolist()
        with pytest.raises(InferenceServerException, match="model 'three' takes 8 \\(max_batch_size\\)"):
            await client.infer("three", inputs(triton_grpc, data=np.zeros((9, 2), np.float32)))


async def test_requests_that_come_together_are_given_together(several: Predictor, http: httpx.AsyncClient) -> None:
    tensor = {"name": "IN", "datatype": "FP32", "shape": [1, 2]}
    bodies = [{"id": str(n), "inputs": [{**tensor, "data": [n, n]}]} for n in range(40)]
    answers = await asyncio.gather(*(http.post("/v2/models/three/infer", json=body) for body in bodies))
    found = [(answer.json()["id"], answer.json()["outputs"][0]["data"]) for answer in answers]
    assert found == [(str(n), [3 * n, 3 * n]) for n in range(40)]
    calls = several.plane.metrics.registry.get_sample_value("servery_predictor_batch_rows_count", {"model": "three"})
    assert calls is not None
    assert calls < 40


async def test_one_model_is_unloaded_and_the_others_go_on(http: httpx.AsyncClient) -> None:
    await http.post("/v2/repository/models/five/unload", json={})
    assert (await http.get("/v2/health/ready")).status_code == 200
    states = {model["name"]: model["state"] for model in (await http.post("/v2/repository/index")).json()}
    assert states == {"all": "READY", "five": "UNAVAILABLE", "three": "READY"}
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]}]}
    refused = await http.post("/v2/models/all/infer", json=body)
    assert (refused.status_code, refused.json()) == (
        503,
        {"error": "model 'five' is not loaded; loaded are: all, three"},
    )
    await http.post("/v2/repository/models/five/load")
    assert (await http.post("/v2/models/all/infer", json=body)).json()["outputs"][0]["data"] == [15, 15]


async def test_a_model_that_comes_later_is_loaded_by_name_and_called_by_others(
    http: httpx.AsyncClient, models: Path
) -> None:
    assert (await http.post("/v2/repository/models/seven/load")).status_code == 404
    add(models, "seven", 7)
    assert (await http.post("/v2/repository/models/seven/load")).status_code == 200
    body = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]}]}
    assert (await http.post("/v2/models/seven/infer", json=body)).json()["outputs"][0]["data"] == [7, 7]


async def test_loading_again_brings_the_new_version(http: httpx.AsyncClient, models: Path) -> None:
    add_version = models / "three" / "2"
    shutil.copytree(models / "five" / "1", add_version, ignore=shutil.ignore_patterns("__pycache__"))
    await http.post("/v2/repository/models/three/load")
    body = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]}]}
    answer = (await http.post("/v2/models/three/infer", json=body)).json()
    assert (answer["model_version"], answer["outputs"][0]["data"]) == ("2", [5, 5])
    gone = await http.post("/v2/models/three/versions/1/infer", json=body)
    assert (gone.status_code, gone.json()) == (
        404,
        {"error": "model 'three' has no version '1'; leave the version out"},
    )


async def test_an_only_model_answers_to_the_services_name_too(start: Start, tmp_path: Path, client: Any) -> None:
    add(tmp_path / "one", "three", 3)
    predictor = await start(tmp_path / "one", runtime="triton", name="service")
    body = b'{"inputs": [{"name": "IN", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]}]}'
    for name in ("three", "service"):
        answer = await client.request("POST", f"{predictor.http.url}/v2/models/{name}/infer", body=body)
        assert answer.status == 200
    assert [entry.name for entry in predictor.repository.entries()] == ["three"]


async def test_every_model_that_does_not_load_is_named(models: Path) -> None:
    for name in ("three", "five"):
        (models / name / "1" / "model.py").write_text("import nowhere\n")
    settings = Settings(runtime="triton", model_name="service", model_dir=models)
    plane = data_plane(settings, plugins.load().runtimes["servery-triton"], Metrics(CollectorRegistry()))
    with pytest.raises(LoadError) as failed:
        await plane.repository.load_all()
    await plane.repository.close()
    assert str(failed.value).count("No module named 'nowhere'") == 2


async def test_a_model_without_a_configuration_says_so(predictor: Predictor, client: Any) -> None:
    answer = await client.request("GET", f"{predictor.http.url}/v2/models/iris/config")
    assert (answer.status, json.loads(answer.body)) == (404, {"error": "model 'iris' has no configuration"})
