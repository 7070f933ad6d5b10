"""TorchServe's gRPC API over real handlers, in the words of its published protos."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from ports import free_port
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.protos.torchserve import inference_pb2 as ask
from servery_sdk.protos.torchserve import inference_pb2_grpc as ask_stubs
from servery_sdk.protos.torchserve import management_pb2 as manage
from servery_sdk.protos.torchserve import management_pb2_grpc as manage_stubs

EXAMPLE = Path(__file__).parents[4] / "examples" / "torchserve-mnist"
REQUEST = (EXAMPLE / "request.json").read_bytes()
TWO = base64.b64decode(json.loads(REQUEST)["instances"][0]["data"])

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def predictor(tmp_path: Path) -> AsyncIterator[Predictor]:
    """The example's store, gRPC at ports of its configuration, and models that may be registered."""
    shutil.copytree(EXAMPLE / "store", tmp_path / "store")
    config = tmp_path / "store" / "config" / "config.properties"
    lines = [line for line in config.read_text().splitlines() if "_address" not in line]
    more = (f"grpc_inference_port={free_port()}", f"grpc_management_port={free_port()}", "enable_model_api=true")
    config.write_text("\n".join((*lines, *more)))
    settings = Settings(
        runtime="torch", model_name="a", model_dir=tmp_path / "store", host="127.0.0.1", http_port=0, grpc_port=0
    )
    predictor = Predictor(settings, plugins.load().runtimes["servery-torch"], Metrics(CollectorRegistry()))
    await predictor.start()
    yield predictor
    await predictor.stop()


@pytest.fixture(params=["its own port", "ours"])
async def inference(request: pytest.FixtureRequest, predictor: Predictor) -> AsyncIterator[Any]:
    assert predictor.grpc is not None
    port = predictor.rpc_doors[0].port if request.param == "its own port" else predictor.grpc.port
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield ask_stubs.InferenceAPIsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated


@pytest.fixture
async def management(predictor: Predictor) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{predictor.rpc_doors[1].port}") as channel:
        yield manage_stubs.ManagementAPIsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated


def of(data: bytes = TWO, **more: str) -> ask.PredictionsRequest:
    return ask.PredictionsRequest(model_name="mnist", input={"data": data}, **more)


async def test_images_are_predicted(inference: Any) -> None:
    assert json.loads((await inference.Ping(ask.Nothing())).health) == {"status": "Healthy"}
    assert (await inference.Predictions(of())).prediction.strip() == b"2"
    assert (await inference.Predictions(of(model_version="1.0"))).prediction.strip() == b"2"
    assert [answer.prediction.strip() async for answer in inference.StreamPredictions(of())] == [b"2"]
    # The store's envelope is kserve.
    assert json.loads((await inference.Predictions(of(REQUEST))).prediction) == {"predictions": [2]}


async def test_a_sequence_goes_on_behind_what_fails(inference: Any) -> None:
    sent = [of(sequence_id="7"), of(b"no image", sequence_id="7"), of(), of(sequence_id="7")]
    found = [answer async for answer in inference.StreamPredictions2(iter(sent))]
    assert [(answer.prediction.strip(), answer.status.code) for answer in found] == [
        (b"2", 0),
        (b"", grpc.StatusCode.INVALID_ARGUMENT.value[0]),
        (b"", grpc.StatusCode.INVALID_ARGUMENT.value[0]),
        (b"2", 0),
    ]
    assert "sequence_id is required" in found[2].status.message
    assert found[3].sequence_id == "7"


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        pytest.param(of(b"no image"), grpc.StatusCode.INVALID_ARGUMENT, id="no-image"),
        pytest.param(of(model_version="9"), grpc.StatusCode.NOT_FOUND, id="no-version"),
        pytest.param(ask.PredictionsRequest(model_name="gone"), grpc.StatusCode.NOT_FOUND, id="no-model"),
        pytest.param(ask.PredictionsRequest(), grpc.StatusCode.INVALID_ARGUMENT, id="no-name"),
    ],
)
async def test_what_cannot_be_answered_has_grpcs_status(
    inference: Any, asked: ask.PredictionsRequest, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await inference.Predictions(asked)
    assert refused.value.code() is code


async def test_models_are_managed(predictor: Predictor, management: Any) -> None:
    listed = json.loads((await management.ListModels(manage.ListModelsRequest(limit=5))).msg)
    assert listed == {"models": [{"modelName": "mnist", "modelUrl": "mnist.mar"}]}
    (one,) = json.loads((await management.DescribeModel(manage.DescribeModelRequest(model_name="mnist"))).msg)
    assert (one["modelVersion"], one["minWorkers"]) == ("1.0", 1)
    chosen = manage.SetDefaultRequest(model_name="mnist", model_version="1.0")
    assert (await management.SetDefault(chosen)).msg.startswith("Default version successfully updated")
    gone = await management.UnregisterModel(manage.UnregisterModelRequest(model_name="mnist"))
    assert gone.msg == 'Model "mnist" unregistered'
    async with httpx.AsyncClient(base_url=predictor.http.url, timeout=60) as http:
        assert (await http.put("/predictions/mnist", content=TWO)).status_code == 503
        scaled = await management.ScaleWorker(manage.ScaleWorkerRequest(model_name="mnist", min_worker=2))
        assert scaled.msg == "Workers scaled to 1 for model: mnist"
        assert (await http.put("/predictions/mnist", content=TWO)).json() == 2
        assert np.array((await http.put("/explanations/mnist", content=TWO)).json()).shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("method", "asked", "code"),
    [
        ("DescribeModel", manage.DescribeModelRequest(model_name="gone"), grpc.StatusCode.NOT_FOUND),
        ("SetDefault", manage.SetDefaultRequest(model_name="mnist"), grpc.StatusCode.NOT_FOUND),
        ("RegisterModel", manage.RegisterModelRequest(url="gone.mar"), grpc.StatusCode.NOT_FOUND),
        ("RegisterModel", manage.RegisterModelRequest(url="all.war"), grpc.StatusCode.UNIMPLEMENTED),
        ("RegisterModel", manage.RegisterModelRequest(url="http://x/m.mar"), grpc.StatusCode.INVALID_ARGUMENT),
        ("ListModels", manage.ListModelsRequest(limit=-1), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_what_cannot_be_managed_has_grpcs_status(
    management: Any, method: str, asked: Any, code: grpc.StatusCode
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(management, method)(asked)
    assert refused.value.code() is code
