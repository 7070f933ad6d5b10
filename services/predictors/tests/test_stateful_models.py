"""Sequences, and models that a client loads with files of its own, by Triton's own clients."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_grpc
import tritonclient.http.aio as triton_http
from servery_predictor import overriding
from servery_predictor.server import Predictor
from servery_sdk.protocol import RequestError
from tritonclient.utils import InferenceServerException

Start = Callable[..., Awaitable[Predictor]]

TOTAL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.totals = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = {tensor.name(): int(tensor.as_numpy()[0, 0]) for tensor in request.inputs()}
        name = request.correlation_id()
        self.totals[name] = given["IN"] + (0 if given["START"] else self.totals.get(name, 0))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([[self.totals[name]]], np.int32))])
"""
CONFIG = """
backend: "python" max_batch_size: 4
input { name: "IN" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }
sequence_batching {
  oldest { }
  max_sequence_idle_microseconds: 60000000
  control_input { name: "START" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } }
}
"""


@pytest.fixture
def models(tmp_path: Path) -> Path:
    files = tmp_path / "models" / "total" / "1"
    files.mkdir(parents=True)
    (files / "model.py").write_text(TOTAL)
    (files.parent / "config.pbtxt").write_text(CONFIG)
    return tmp_path / "models"


@pytest.fixture(params=["http", "grpc", "grpcio"])
async def client(request: pytest.FixtureRequest, start: Start, models: Path) -> AsyncIterator[tuple[Any, Any]]:
    """Triton's client of either protocol, and its module; the server takes files from clients."""
    front = "grpcio" if request.param == "grpcio" else "fast"
    predictor = await start(models, runtime="triton", allow_load_overrides=True, grpc_front=front)
    module = triton_http if request.param == "http" else triton_grpc
    assert predictor.grpc is not None
    address = (
        predictor.http.url.removeprefix("http://") if module is triton_http else f"127.0.0.1:{predictor.grpc.port}"
    )
    async with module.InferenceServerClient(address) as made:
        if module is triton_http:
            # Triton's own leaves the answer to a load unread, and its connection open: a warning at any later time.
            made.load_model = partial(posted_load, predictor.http.url)
        yield made, module


async def posted_load(url: str, name: str, *, config: str | None = None, files: Any = None) -> None:
    """Do what ``tritonclient.http``'s ``load_model`` does."""
    parameters = {path: base64.b64encode(content).decode() for path, content in (files or {}).items()}
    async with httpx.AsyncClient(base_url=url) as client:
        sent = {"parameters": {**parameters, **({} if config is None else {"config": config})}}
        answer = await client.post(f"/v2/repository/models/{name}/load", json=sent)
    if answer.status_code != 200:
        raise InferenceServerException(answer.json()["error"])


def inputs(module: Any, value: int) -> list[Any]:
    tensor = module.InferInput("IN", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[value]], np.int32))
    return [tensor]


async def test_requests_of_sequences_meet_their_state(client: tuple[Any, Any]) -> None:
    asked, module = client

    async def told(sequence: int | str, value: int, *, start: bool = False, end: bool = False) -> int:
        answer = await asked.infer(
            "total", inputs(module, value), sequence_id=sequence, sequence_start=start, sequence_end=end
        )
        return int(answer.as_numpy("OUT")[0, 0])

    assert await asyncio.gather(told(1, 10, start=True), told("two", 20, start=True)) == [10, 20]
    assert await asyncio.gather(told("two", 2), told(1, 1)) == [22, 11]
    assert await told(1, 5, end=True) == 16
    with pytest.raises(InferenceServerException, match="must specify the START flag"):
        await told(1, 5)
    with pytest.raises(InferenceServerException, match="non-zero or non-empty correlation ID"):
        await asked.infer("total", inputs(module, 1))
    assert await told("two", 3, end=True) == 25


async def test_a_stream_may_send_a_whole_sequence_without_waiting(start: Start, models: Path) -> None:
    predictor = await start(models, runtime="triton")
    assert predictor.grpc is not None

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for step in range(1, 21):
            for sequence in (1, 2):
                yield {
                    "model_name": "total",
                    "inputs": inputs(triton_grpc, step * sequence),
                    "sequence_id": sequence,
                    "sequence_start": step == 1,
                    "sequence_end": step == 20,
                }

    async with triton_grpc.InferenceServerClient(f"127.0.0.1:{predictor.grpc.port}") as client:
        found = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            found.append(int(result.as_numpy("OUT")[0, 0]))
    sums = [step * (step + 1) // 2 for step in range(1, 21)]
    assert found == [total * sequence for total in sums for sequence in (1, 2)]


async def test_a_model_is_loaded_with_a_configuration_and_files_and_then_with_its_own_again(
    client: tuple[Any, Any],
) -> None:
    asked, module = client

    async def answer() -> int:
        found = await asked.infer("total", inputs(module, 7), sequence_id=1, sequence_start=True, sequence_end=True)
        return int(found.as_numpy("OUT")[0, 0])

    config = await asked.get_model_config("total", **({"as_json": True} if module is triton_grpc else {}))
    config = config.get("config", config)
    await asked.load_model("total", config=json.dumps({**config, "max_batch_size": 3}))
    assert await answer() == 7
    told = await asked.get_model_config("total", **({"as_json": True} if module is triton_grpc else {}))
    assert told.get("config", told)["max_batch_size"] == 3

    files = {"file:1/model.py": TOTAL.replace('given["IN"] +', '1000 + given["IN"] +').encode()}
    await asked.load_model("total", config=json.dumps(config), files=files)
    assert await answer() == 1007

    with pytest.raises(InferenceServerException, match=r"model\.py: SyntaxError"):
        await asked.load_model("total", config=json.dumps(config), files={"file:1/model.py": b"def"})
    with pytest.raises(InferenceServerException, match="the configuration that it is loaded with"):
        await asked.load_model("total", config='{"max_rows": 3}')
    with pytest.raises(InferenceServerException, match="must be below the model's directory"):
        await asked.load_model("total", config=json.dumps(config), files={"file:../evil/1/model.py": b""})
    assert await answer() == 1007

    await asked.load_model("total")
    assert await answer() == 7


async def test_files_of_clients_are_refused_unless_the_server_was_started_for_them(start: Start, models: Path) -> None:
    predictor = await start(models, runtime="triton")
    with pytest.raises(InferenceServerException, match="--allow-load-overrides"):
        await posted_load(predictor.http.url, "total", config="{}")
    await posted_load(predictor.http.url, "total")


async def test_a_runtime_that_loads_artifacts_alone_says_so(start: Start, iris: Path) -> None:
    predictor = await start(iris, allow_load_overrides=True)
    with pytest.raises(InferenceServerException, match="is loaded from its artifact, and from nothing else"):
        await posted_load(predictor.http.url, "iris", config="{}")
    async with triton_http.InferenceServerClient(predictor.http.url.removeprefix("http://")) as client:
        assert await client.is_model_ready("iris")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "no JSON object"),
        (b"{", "no JSON object"),
        (b'{"parameters": 3}', '"parameters" must be an object, found int'),
        (b'{"parameters": {"settings": "{}"}}', "unknown parameters settings; known are 'config' and 'file:<path>'"),
        (b'{"parameters": {"config": {}}}', "'config' must be a text of JSON, found dict"),
        (b'{"parameters": {"file:1/model.py": "eA=="}}', "send the parameter 'config' with them"),
        (b'{"parameters": {"config": "{}", "file:1/model.py": "?"}}', "'file:1/model.py' must be base64"),
        (b'{"parameters": {"config": "{}", "file:/etc/x": "eA=="}}', "must be below the model's directory"),
        (b'{"parameters": {"config": "{}", "file:": "eA=="}}', "must be below the model's directory"),
    ],
)
def test_what_cannot_be_an_override_says_why(body: bytes, words: str) -> None:
    with pytest.raises(RequestError) as refused:
        overriding.from_body(body)
    assert words in str(refused.value)


@pytest.mark.parametrize("body", [b"", b"  ", b"{}", b'{"parameters": {}}'])
def test_a_load_without_parameters_overrides_nothing(body: bytes) -> None:
    assert overriding.from_body(body) is None


async def test_the_example_adds_two_sequences(start: Start, run_client: Callable[..., Awaitable[str]]) -> None:
    example = Path(__file__).parents[3] / "examples" / "triton-sequences"
    predictor = await start(example / "models", runtime="triton")
    address = predictor.http.url.removeprefix("http://")
    assert await run_client(str(example / "client.py"), address) == "7: 6 8: 60\n"
