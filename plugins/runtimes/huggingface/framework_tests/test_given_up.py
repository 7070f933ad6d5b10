"""Clients that hang up before a model that reads has answered."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_runtime_huggingface.model import HuggingFaceModel
from servery_sdk import plugins
from servery_sdk.protocol import InferRequest, InferResponse
from tiny_transformers import write_reader

PATIENCE_SECONDS = 60


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110  # what it looks at has no event
            await asyncio.sleep(0.005)


async def ask(predictor: Predictor, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", predictor.http.port)
    body = json.dumps({"instances": [text]}).encode()
    writer.write(b"POST /v1/models/m:predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    return reader, writer


async def test_what_waits_is_dropped_and_what_is_computed_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reader("sequence", tmp_path)
    settings = Settings(
        runtime="huggingface", model_name="m", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    predictor = Predictor(settings, plugins.load().runtimes["servery-huggingface"], Metrics(CollectorRegistry()))
    await predictor.start()
    model: Any = predictor.plane.repository.entry("m").model
    assert isinstance(model, HuggingFaceModel)
    begun: list[str] = []
    done: list[str] = []
    gate, predict = threading.Event(), model.held.predict  # type: ignore[attr-defined]  # it is a reader

    def held(request: InferRequest) -> InferResponse:
        texts = [text.decode() for text in request.inputs[0].data]
        begun.extend(texts)
        assert gate.wait(PATIENCE_SECONDS)
        answer: InferResponse = predict(request)
        done.extend(texts)
        return answer

    monkeypatch.setattr(model.held, "predict", held)
    count = predictor.plane.metrics.registry.get_sample_value

    def given_up() -> float | None:
        return count("servery_predictor_requests_total", {"model": "m", "protocol": "v1", "code": "CANCELLED"})

    try:
        _, computed = await ask(predictor, "the cat")
        await until(lambda: bool(begun))
        _, waiting = await ask(predictor, "a dog")
        await until(lambda: count("servery_predictor_queue_requests", {"model": "m"}) == 1.0)
        answered, last = await ask(predictor, "rivers")
        await until(lambda: count("servery_predictor_queue_requests", {"model": "m"}) == 2.0)
        waiting.close()
        await until(lambda: given_up() == 1.0)
        computed.close()
        await until(lambda: given_up() == 2.0)
        gate.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert b" 200 " in await answered.readline()
        assert begun == done == ["the cat", "rivers"]
        last.close()
    finally:
        gate.set()
        await predictor.stop()
