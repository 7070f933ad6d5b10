"""The example of KServe's batcher: an agent beside the model server answers v1, v2 and gRPC, many of them by one call."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from servery_http.client import Client
from servery_sdk.protocol import Datatype, InferRequest, Tensor
from servery_sdk.protocol import grpc as codec
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb

if TYPE_CHECKING:
    from conftest import Local

pytestmark = [pytest.mark.local, pytest.mark.timeout(300)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "sklearn-batcher"
NAME, COUNT = "sklearn-batcher", 48
PATHS = {"request.json": f"/v1/models/{NAME}:predict", "request-v2.json": f"/v2/models/{NAME}/infer"}


@pytest.fixture(scope="module")
def batched(local: Local) -> Local:
    local.up(EXAMPLE / "service.yaml", seconds=200)
    return local


async def _asked(url: str, host: str, body: bytes, count: int) -> list[Any]:
    headers = [(b"host", host.encode()), (b"content-type", b"application/json")]
    async with Client() as client:
        answers = await asyncio.gather(*[client.request("POST", url, headers=headers, body=body) for _ in range(count)])
    assert {answer.status for answer in answers} == {200}
    return [json.loads(answer.body) for answer in answers]


async def _batches(local: Local) -> tuple[float, float]:
    pod = local.pods(NAME)[0]["status"]["podIP"]
    async with Client() as client:
        text = (await client.request("GET", f"http://{pod}:9082/metrics")).body.decode()
    found = [re.search(rf"(?m)^servery_agent_batch_requests_{what} (.+)$", text) for what in ("count", "sum")]
    count, total = (float(one[1]) if one else 0.0 for one in found)
    return count, total


@pytest.mark.parametrize("file", PATHS)
async def test_many_at_once_go_as_few_and_each_has_its_answer(batched: Local, file: str) -> None:
    body = (EXAMPLE / file).read_bytes()
    count, total = await _batches(batched)
    answers = await _asked(batched.url + PATHS[file], f"{NAME}.default.localhost", body, COUNT)
    if file == "request.json":
        assert all(answer["predictions"] == [1, 1] and answer["message"] == "" for answer in answers)
        assert 1 <= len({answer["batchId"] for answer in answers}) < COUNT
    else:
        assert {answer["id"] for answer in answers} == {"one"}
        assert all(answer["outputs"][0]["data"] == [1, 1] for answer in answers)
    more, within = await _batches(batched)
    assert within - total == COUNT
    assert more - count < COUNT


async def test_grpc_comes_to_the_same_port(batched: Local) -> None:
    pod = batched.pods(NAME)[0]["status"]["podIP"]
    rows = np.array([[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]])
    tensor = Tensor(name="input-0", data=rows, datatype=Datatype.FP64)
    message = codec.encode_request(InferRequest(model=NAME, inputs=(tensor,)))
    async with grpc.aio.insecure_channel(f"{pod}:9081") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        answers = await asyncio.gather(*[call(message) for _ in range(COUNT)])
    assert {tuple(codec.decode_response(answer).outputs[0].data.tolist()) for answer in answers} == {(1, 1)}
