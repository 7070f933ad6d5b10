from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import joblib
import orjson
import pytest
from batches import HeldExecutor
from prometheus_client import CollectorRegistry
from servery_http.client import Client
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from waiting import until


@pytest.fixture
def executor() -> HeldExecutor:
    return HeldExecutor()


@pytest.fixture(scope="session")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iris")
    features, classes = load_iris(return_X_y=True)
    joblib.dump(LogisticRegression(max_iter=500).fit(features, classes), folder / "model.joblib")
    return folder


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Predictor]]]:
    """Starts predictors on free ports, and stops them."""
    started: list[Predictor] = []

    async def start(model_dir: Path, *, runtime: str = "sklearn", name: str = "iris", **settings: Any) -> Predictor:
        predictor = Predictor(
            Settings(
                **{
                    "runtime": runtime,
                    "model_name": name,
                    "model_dir": model_dir,
                    "host": "127.0.0.1",
                    "http_port": 0,
                    "grpc_port": 0,
                    "max_body_bytes": 1_000_000,
                    **settings,
                }
            ),
            plugins.load().runtimes[f"servery-{runtime}"],
            Metrics(CollectorRegistry()),
        )
        await predictor.start()
        started.append(predictor)
        return predictor

    yield start
    for predictor in started:
        await predictor.stop()


@pytest.fixture
async def predictor(start: Callable[..., Awaitable[Predictor]], iris: Path) -> Predictor:
    return await start(iris)


SIMPLE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(*[tensor.as_numpy() for tensor in request.inputs()]) for request in requests]

    def answer(self, one, other):
        if one.dtype == object:
            found = one, other
        else:
            found = one + other, one - other
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("OUTPUT0", found[0]), pb_utils.Tensor("OUTPUT1", found[1])]
        )
"""
REPEAT = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for number in request.inputs()[0].as_numpy():
                if number < 0:
                    error = pb_utils.TritonError("no negatives", pb_utils.TritonError.INVALID_ARG)
                    sender.send(pb_utils.InferenceResponse(error=error))
                else:
                    sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([number], np.int32))]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
_IO = """
backend: "python" max_batch_size: 8 dynamic_batching {{ }}
input {{ name: "INPUT0" data_type: {0} dims: [ 16 ] }} input {{ name: "INPUT1" data_type: {0} dims: [ 16 ] }}
output {{ name: "OUTPUT0" data_type: {0} dims: [ 16 ] }} output {{ name: "OUTPUT1" data_type: {0} dims: [ 16 ] }}
"""
_REPEAT_IO = """
backend: "python" model_transaction_policy { decoupled: true }
input { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }
output { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }
"""


@pytest.fixture
def triton_models(tmp_path: Path) -> Path:
    """A repository of the models that Triton's published client examples ask, in our words."""
    for name, code, config in (
        ("simple", SIMPLE, _IO.format("TYPE_INT32")),
        ("texts", SIMPLE, _IO.format("TYPE_STRING")),
        ("repeat", REPEAT, _REPEAT_IO),
    ):
        files = tmp_path / "models" / name / "1"
        files.mkdir(parents=True)
        (files / "model.py").write_text(code)
        (files.parent / "config.pbtxt").write_text(config)
    return tmp_path / "models"


class Rest:
    """Asks one predictor; bodies are JSON unless they are bytes."""

    def __init__(self, client: Client, url: str) -> None:
        self._client, self._url = client, url

    async def __call__(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        status, _, answer = await self.raw(path, body, **headers)
        return status, orjson.loads(answer)

    async def raw(self, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        sent = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        named = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
        method = "GET" if body is None else "POST"
        answer = await self._client.request(method, self._url + path, headers=named, body=sent)
        return (
            answer.status,
            {name.decode(): value.decode() for name, value in answer.headers},
            answer.body,
        )


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client() as client:
        yield client


@pytest.fixture
def rest_of() -> type[Rest]:
    return Rest


@pytest.fixture
def rest(client: Client, predictor: Predictor) -> Rest:
    return Rest(client, predictor.http.url)


@pytest.fixture
def run_client() -> Callable[..., Awaitable[str]]:
    """Runs a program, one of ``clients/`` or another, and returns what it printed; apart, for it blocks its thread."""

    async def run(name: str, *arguments: str) -> str:
        program = Path(__file__).parent / "clients" / name
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "ignore", str(program), *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        printed, errors = await client.communicate()
        assert client.returncode == 0, errors.decode()
        return printed.decode()

    return run


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Waits, within bounds, until something holds."""
    return until
