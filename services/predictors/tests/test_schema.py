"""Requests made up from the server's own OpenAPI description."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.openai_api.routes import OpenAIRoutes
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins

OPENAI = re.compile(r"/openai/|/v1/(completions|chat/|embeddings|rerank|audio/[a-z]+)")


@pytest.fixture(scope="module")
def served(iris: Path) -> Iterator[str]:
    """The address of a predictor in a thread: schemathesis asks synchronously."""
    ready, url = threading.Event(), ""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        nonlocal url
        predictor = Predictor(
            Settings(runtime="sklearn", model_name="iris", model_dir=iris, host="127.0.0.1", http_port=0, grpc_port=0),
            plugins.load().runtimes["servery-sklearn"],
            Metrics(CollectorRegistry()),
        )
        await predictor.start()
        url = predictor.http.url
        ready.set()
        await stop.wait()
        await predictor.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="predictor")
    thread.start()
    assert ready.wait(60)
    yield url
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


HOT = [
    "/v1/models/{model}:predict",
    "/v1/models/{model}:explain",
    *(
        f"/v1/models/{{model}}{version}:{call}"
        for version in ("", "/versions/{version}")
        for call in ("predict", "classify", "regress")
    ),
    *(
        f"/v2/models/{{model}}{version}/{verb}"
        for version in ("", "/versions/{version}")
        for verb in ("infer", "explain", "generate", "generate_stream")
    ),
    *OpenAIRoutes.bodies_by_path(),
]


@pytest.mark.parametrize("path", sorted(set(HOT)))
def test_every_hot_route_is_answered_and_described(served: str, path: str) -> None:
    described = httpx.get(f"{served}/openapi.json").json()["paths"][path]["post"]
    assert all(content["schema"] for content in described["requestBody"]["content"].values())
    named = path.replace("{model}", "nobody").replace("{version}", "1")
    # Who answers says what is wrong; FastAPI, which has no such path, would say "Not Found".
    answer = httpx.post(served + named, json={"model": "nobody"})
    assert answer.status_code in {400, 404, 422}
    assert answer.json() != {"error": "Not Found"}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/models/{model}/trace/setting",
        "/v2/systemsharedmemory/region/{region}/register",
        "/v2/cudasharedmemory/region/{region}/register",
    ],
)
def test_bodies_that_fastapi_does_not_read_are_described(served: str, path: str) -> None:
    described = httpx.get(f"{served}/openapi.json").json()["paths"][path]["post"]["requestBody"]
    assert described["content"]["application/json"]["schema"]["properties"]


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("/openai/v1/audio/speech", ["audio/flac", "audio/mpeg", "audio/ogg", "audio/pcm", "audio/wav"]),
        (
            "/openai/v1/audio/transcriptions",
            ["application/json", "text/event-stream", "text/plain", "text/vtt"],
        ),
        ("/openai/v1/audio/translations", ["application/json", "text/plain", "text/vtt"]),
        ("/openai/v1/chat/completions", ["application/json", "text/event-stream"]),
        ("/openai/v1/embeddings", ["application/json"]),
    ],
)
def test_what_is_answered_is_described_as_what_it_is(served: str, path: str, media: list[str]) -> None:
    answer = httpx.get(f"{served}/openapi.json").json()["paths"][path]["post"]["responses"]["200"]
    assert sorted(answer["content"]) == media
    assert all(
        content["schema"].get("format") == "binary" for kind, content in answer["content"].items() if "audio/" in kind
    )


def test_no_made_up_request_is_a_server_error(served: str) -> None:
    asked = 0
    for found in schemathesis.openapi.from_url(f"{served}/openapi.json").get_all_operations():
        operation = found.ok()

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(), ours=st.booleans())
        def answers(case: schemathesis.Case, ours: bool) -> None:
            nonlocal asked
            if ours and "model" in case.path_parameters:
                case.path_parameters["model"] = "iris"
            answer = case.call()
            asked += 1
            # 503 is what a model says that another example has unloaded; 501, one that does not explain its answers.
            assert answer.status_code < 500 or answer.status_code in {501, 503}, answer.text
            if answer.status_code >= 400 and not answer.request.url.endswith(("/ready", "/iris")):
                error = answer.json()["error"]
                assert isinstance(error["message"] if OPENAI.search(answer.request.url) else error, str)

        answers()
    assert asked > 100
