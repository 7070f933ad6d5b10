from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from prometheus_client import CollectorRegistry
from servery_http.client import Client
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
PREDICT = "/v1/models/iris:predict"
INFER = "/v2/models/iris/infer"
TENSOR = {"name": "x", "shape": [2, 4], "datatype": "FP64", "data": ROWS}

Rest = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.mark.parametrize("data", [ROWS, [number for row in ROWS for number in row]], ids=["nested", "flat"])
async def test_v2_answers_json(rest: Rest, data: list[Any]) -> None:
    status, answer = await rest(INFER, {"id": "7", "inputs": [{**TENSOR, "data": data}]})
    assert status == 200
    assert (answer["model_name"], answer["id"]) == ("iris", "7")
    assert answer["outputs"] == [{"name": "output-0", "datatype": "INT64", "shape": [2], "data": [1, 1]}]


async def test_v2_answers_binary_tensors_with_binary_tensors(rest: Any) -> None:
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP64", "parameters": {"binary_data_size": 64}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    status, headers, body = await rest.raw(
        INFER, head + np.array(ROWS).tobytes(), inference_header_content_length=str(len(head))
    )
    assert status == 200
    assert headers["content-type"] == "application/octet-stream"
    length = int(headers["inference-header-content-length"])
    assert orjson.loads(body[:length])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert struct.unpack("<2q", body[length:]) == (1, 1)


async def test_only_the_outputs_asked_for_are_answered(rest: Rest) -> None:
    status, answer = await rest(INFER, {"inputs": [TENSOR], "outputs": [{"name": "nope"}]})
    assert (status, answer) == (400, {"error": "model 'iris' has no output nope; it has: output-0"})


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/models/other", None, 404, "this server has: iris"),
        ("/v1/models/other:predict", {"instances": ROWS}, 404, "this server has: iris"),
        ("/v2/models/iris/versions/3", None, 404, "no version '3'"),
        ("/v2/models/iris/versions/3/infer", {"inputs": [TENSOR]}, 404, "no version '3'"),
        ("/nowhere", None, 404, "Not Found"),
        ("/v2/models/iris", {}, 405, "Method Not Allowed"),
        ("/v2/repository/models/other/load", {}, 404, "this server has: iris"),
    ],
)
async def test_an_unknown_thing_is_named(rest: Rest, path: str, body: Any, status: int, words: str) -> None:
    found, answer = await rest(path, body)
    assert found == status
    assert words in answer["error"]


async def test_requests_are_counted_by_model_protocol_and_code(rest: Any) -> None:
    await rest(PREDICT, {"instances": ROWS})
    await rest(INFER, {"inputs": [TENSOR]})
    await rest("/v1/models/an-invention:predict", {"instances": ROWS})
    _, _, text = await rest.raw("/metrics")
    lines = text.decode().splitlines()
    assert 'servery_predictor_requests_total{code="OK",model="iris",protocol="v1"} 1.0' in lines
    assert 'servery_predictor_requests_total{code="OK",model="iris",protocol="v2"} 1.0' in lines
    assert 'servery_predictor_requests_total{code="NOT_FOUND",model="",protocol="v1"} 1.0' in lines
    assert "an-invention" not in text.decode()


async def test_many_at_once_get_what_each_would_get_alone(rest: Rest) -> None:
    rng = np.random.default_rng(0)
    instances = [rng.uniform(0, 8, size=(1 + index % 3, 4)).tolist() for index in range(60)]
    alone = [await rest(PREDICT, {"instances": rows}) for rows in instances]
    together = await asyncio.gather(*(rest(PREDICT, {"instances": rows}) for rows in instances))
    assert list(together) == alone


SLOW = """
import threading

class Model:
    gate = threading.Event()
    entered = threading.Event()

    def predict(self, inputs):
        self.entered.set()
        assert self.gate.wait(20)
        return inputs["input-0"]
"""


@pytest.fixture
async def slow(start: Any, tmp_path: Path) -> Predictor:
    """A model that answers when ``gate`` of its class is set."""
    (tmp_path / "model.py").write_text(SLOW)
    return await start(tmp_path, runtime="python", name="slow", max_queue_requests=2, request_timeout_seconds=60)


def gates(predictor: Predictor) -> Any:
    return predictor.repository.entry("slow").model._model  # type: ignore[union-attr]


async def test_a_full_queue_answers_429_and_when_to_come_back(
    slow: Predictor, client: Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    url = f"{slow.http.url}/v1/models/slow:predict"
    body = b'{"instances": [1]}'
    running = asyncio.create_task(client.request("POST", url, body=body))
    await eventually(gates(slow).entered.is_set)
    batcher = slow.repository.batcher("slow", None)
    waiting = [asyncio.create_task(client.request("POST", url, body=body)) for _ in range(2)]
    await eventually(lambda: len(batcher._queue) == 2)
    refused = await client.request("POST", url, body=body)
    assert refused.status == 429
    assert int(dict(refused.headers)[b"retry-after"]) >= 1
    gates(slow).gate.set()
    assert [(await task).status for task in (running, *waiting)] == [200, 200, 200]


async def test_a_drain_answers_what_is_in_flight(
    slow: Predictor, client: Client, eventually: Callable[..., Awaitable[None]]
) -> None:
    url = f"{slow.http.url}/v1/models/slow:predict"
    flying = asyncio.create_task(client.request("POST", url, body=b'{"instances": [5]}'))
    await eventually(gates(slow).entered.is_set)
    stopping = asyncio.create_task(slow.stop())
    await eventually(lambda: slow.plane.draining)
    assert not slow.plane.ready
    gates(slow).gate.set()
    assert (await flying).body == b'{"predictions":[5]}'
    await stopping


async def test_a_model_that_takes_too_long_is_a_504(start: Any, tmp_path: Path, client: Client) -> None:
    (tmp_path / "model.py").write_text(SLOW)
    late = await start(tmp_path, runtime="python", name="slow", request_timeout_seconds=0.05)
    answer = await client.request("POST", f"{late.http.url}/v1/models/slow:predict", body=b'{"instances": [1]}')
    gates(late).gate.set()
    assert answer.status == 504
    assert orjson.loads(answer.body) == {"error": "model 'slow' did not answer in 0.05 s"}


async def test_a_model_that_exits_answers_500_and_then_the_next_request(
    start: Any, tmp_path: Path, client: Client
) -> None:
    (tmp_path / "model.py").write_text(
        "import sys\n\n\nclass Model:\n    def predict(self, inputs):\n"
        "        return inputs['input-0'] if inputs['input-0'][0] else sys.exit('no zero')\n"
    )
    quits = await start(tmp_path, runtime="python", name="quits")
    url = f"{quits.http.url}/v1/models/quits:predict"
    answers = [await client.request("POST", url, body=b'{"instances": [%d]}' % number) for number in (0, 5)]
    assert [answer.status for answer in answers] == [500, 200]
    assert orjson.loads(answers[0].body) == {"error": "model 'quits' failed: SystemExit: no zero"}


async def test_metadata_says_how_requests_are_batched(rest: Rest, start: Any, tmp_path: Path, client: Client) -> None:
    _, answer = await rest("/v2/models/iris")
    assert answer["parameters"] == {
        "batching": {"mode": "natural", "max_batch_rows": 1024, "max_latency_seconds": 0, "max_queue_requests": 1000}
    }
    (tmp_path / "model.py").write_text(
        "class Model:\n    batchable = False\n\n    def predict(self, inputs):\n        return inputs['input-0']\n"
    )
    alone = await start(tmp_path, runtime="python", name="alone")
    answer = orjson.loads((await client.request("GET", f"{alone.http.url}/v2/models/alone")).body)
    assert answer["parameters"]["batching"]["mode"] == "none"


async def test_a_model_that_does_not_explain_says_so(rest: Rest) -> None:
    status, answer = await rest("/v1/models/iris:explain", {"instances": ROWS})
    assert (status, answer) == (501, {"error": "model 'iris' does not explain its answers"})


@pytest.mark.parametrize("path", ["/v2/models/iris/explain", "/v2/models/iris:explain"])
async def test_explanations_are_asked_for_in_v2(rest: Rest, path: str) -> None:
    asked = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": ROWS[0]}]}
    assert await rest(path, asked) == (501, {"error": "model 'iris' does not explain its answers"})
    assert (await rest(path, {"inputs": []}))[0] == 400
    assert (await rest("/v2/models/iris/versions/9/explain", asked))[0] == 404


class Halves:
    """A store of two models, which answer with a number of theirs and explain by halves."""

    def __init__(self, answer: int) -> None:
        self._answer = answer
        self.called_from: set[str] = set()

    @classmethod
    def stored(cls, artifact: Path) -> dict[str, Callable[[], Any]]:
        return {path.name: partial(cls, int(path.read_text())) for path in artifact.iterdir()}

    def load(self, artifact: Path) -> None:
        assert artifact.is_dir()

    def predict(self, request: InferRequest) -> InferResponse:
        answer = [b'{"is":%d}' % self._answer for _ in request.inputs[0].data]
        data = np.array(answer, dtype=object)
        output = Tensor(name="y", data=data, datatype=Datatype.BYTES, parameters={"content_type": "json"})
        return InferResponse(model=request.model, outputs=(output,))

    def explain(self, request: InferRequest) -> InferResponse:
        self.called_from.add(threading.current_thread().name)
        if len(request.inputs[0].data) > 1:
            raise InputError("one at a time")
        output = Tensor(name="y", data=request.inputs[0].data / 2, datatype=Datatype.FP64)
        return InferResponse(model=request.model, outputs=(output,))


@pytest.fixture
async def halves(tmp_path: Path) -> AsyncIterator[Predictor]:
    (tmp_path / "seven").write_text("7")
    (tmp_path / "eight").write_text("8")
    runtime = replace(plugins.load().runtimes["servery-python"], model_class=f"{__name__}:Halves")
    settings = Settings(runtime="python", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False)
    predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
    await predictor.start()
    yield predictor
    await predictor.stop()


async def test_a_store_of_models_serves_each_under_its_own_name(halves: Predictor, client: Client) -> None:
    url = halves.http.url
    listed = await client.request("GET", f"{url}/v1/models")
    assert orjson.loads(listed.body) == {"models": ["eight", "seven"]}
    answer = await client.request("POST", f"{url}/v1/models/seven:predict", body=b'{"instances": [1, 2]}')
    assert orjson.loads(answer.body) == {"predictions": [{"is": 7}, {"is": 7}]}


async def test_explanations_are_asked_one_request_at_a_time_and_off_the_event_loop(
    halves: Predictor, client: Client
) -> None:
    url = f"{halves.http.url}/v1/models/eight"
    # Enough for a quick model to answer on the loop.
    for _ in range(20):
        await client.request("POST", f"{url}:predict", body=b'{"instances": [1]}')
    answers = await asyncio.gather(
        *(client.request("POST", f"{url}:explain", body=b'{"instances": [%d]}' % number) for number in range(8))
    )
    assert [orjson.loads(answer.body) for answer in answers] == [{"explanations": [number / 2]} for number in range(8)]
    asked = b'{"id": "3", "inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [3]}]}'
    answer = await client.request("POST", f"{halves.http.url}/v2/models/eight/explain", body=asked)
    told = orjson.loads(answer.body)
    assert (told["id"], told["outputs"][0]["data"]) == ("3", [1.5])
    model: Any = halves.repository.entry("eight").model
    assert {name.rpartition("_")[0] for name in model.called_from} == {"model-eight"}
