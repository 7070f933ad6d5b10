"""What a transformer's and an explainer's predictor sees of their client's headers: KServe's list, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from answering import Answering, answering
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins

pytestmark = [
    pytest.mark.timeout(120),
    # KServe's client says it so to httpx.
    pytest.mark.filterwarnings("ignore:`verify=<str>` is deprecated:DeprecationWarning"),
]

PROGRAM = """
import argparse
from kserve import Model, ModelServer, model_server
from kserve.model import PredictorConfig

class Beside(Model):
    def __init__(self, flags):
        config = PredictorConfig(flags.predictor_host, flags.predictor_protocol)
        super().__init__(flags.model_name, config)
        self.ready = True

    async def explain(self, payload, headers=None):
        answer = await self.predict(payload, headers)
        return {"explanations": answer["predictions"]}

flags, _ = argparse.ArgumentParser(parents=[model_server.parser]).parse_known_args()
ModelServer().start([Beside(flags)])
"""
SENT = {
    "Authorization": "Bearer me",
    "X-Request-Id": "7",
    "X-B3-TraceId": "80f198ee56343ba8",
    "Cookie": "secret",
    "X-Mine": "no",
}
ROWS = [[1.0, 2.0]]
TENSOR = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}


def answer(body: Any) -> tuple[int, Any]:
    if "instances" in body:
        return 200, {"predictions": body["instances"]}
    return 200, {"model_name": "beside", "id": "1", "outputs": body["inputs"]}


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[[str, str], Any]]:
    """Makes a component that asks a predictor at a host, in a protocol."""
    made: list[Predictor] = []
    (tmp_path / "model.py").write_text(PROGRAM)

    async def make(host: str, protocol: str) -> httpx.AsyncClient:
        settings = Settings(
            runtime="python", model_name="beside", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
        )
        flags = (f"--predictor_host={host}", f"--predictor_protocol={protocol}", "--model_name=beside")
        runtime = plugins.load().runtimes["servery-python"]
        predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()), options={"arguments": flags})
        await predictor.start()
        made.append(predictor)
        return httpx.AsyncClient(base_url=predictor.http.url, timeout=30)

    yield make
    for predictor in made:
        await predictor.stop()


def seen(predictor: Answering) -> dict[str, str]:
    (_, headers, _) = predictor.asked[-1]
    return {name: headers.get(name.lower(), "") for name in SENT}


PASSED = {**SENT, "Cookie": "", "X-Mine": ""}


@pytest.mark.parametrize(
    ("protocol", "path", "body"),
    [
        ("v1", "/v1/models/beside:predict", {"instances": ROWS}),
        ("v1", "/v1/models/beside:explain", {"instances": ROWS}),
        ("v2", "/v2/models/beside/infer", {"inputs": [TENSOR]}),
    ],
    ids=["predict", "explain", "v2"],
)
async def test_a_predictor_sees_who_asks_and_which_request_it_is(
    make: Callable[[str, str], Any], protocol: str, path: str, body: Any
) -> None:
    with answering(answer) as predictor:
        async with await make(predictor.host, protocol) as http:
            answered = await http.post(path, json=body, headers=SENT)
            assert answered.status_code == 200, answered.text
            assert answered.headers["x-request-id"] == "7"
            assert "cookie" not in answered.headers
        assert seen(predictor) == PASSED
