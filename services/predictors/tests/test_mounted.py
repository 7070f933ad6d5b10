"""Models that bring an application of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor, data_plane
from servery_predictor.settings import Settings
from servery_sdk.applications import Application, Receive, Send
from servery_sdk.manifests import Json
from servery_sdk.model import Runtime
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from servery_sdk.serving import LoadError, Scheduling


class Engined:
    """Its application answers with the path that it sees, and ``/slow`` once ``go`` is set."""

    served_name = ""
    broken = False

    def load(self, artifact: Path) -> None:
        self.artifact = artifact
        self.died = False
        self.is_closed = False

    async def begin(self) -> None:
        if self.broken:
            raise LoadError("the template is wrong")
        self.loop = asyncio.get_running_loop()
        self.go, self.asked, self.hung_up = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def application(self) -> Application:
        return self._answer

    async def cards(self) -> Sequence[Mapping[str, Json]]:
        return [{"id": self.served_name, "object": "model"}, {"id": "adapter", "object": "model"}]

    def failure(self) -> str | None:
        return "it died" if self.died else None

    def scheduling(self) -> Scheduling:
        return Scheduling(waits=True)

    def predict(self, request: InferRequest) -> InferResponse:
        # As an engine's: the call waits for what the loop does, which must be free for it.
        asyncio.run_coroutine_threadsafe(self._heard(), self.loop).result(10)
        return InferResponse(model=request.model, outputs=request.inputs)

    async def _heard(self) -> None: ...

    def close(self) -> None:
        self.is_closed = True

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            await receive()
            self.asked.set()
            gone = asyncio.ensure_future(receive())
            await asyncio.wait([gone, asyncio.ensure_future(self.go.wait())], return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                self.hung_up.set()
                return
            gone.cancel()
        status = int(scope["path"].rpartition("/")[2]) if scope["path"].startswith("/status/") else 200
        body = f"{scope['method']} {scope['path']}".encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})


RUNTIME = Runtime(name="engined", model_class=f"{__name__}:Engined")


def settings(directory: Path) -> Settings:
    return Settings(runtime="engined", model_name="m", model_dir=directory, host="127.0.0.1", http_port=0, grpc_port=0)


@pytest.fixture
async def predictor(tmp_path: Path) -> AsyncIterator[Predictor]:
    predictor = Predictor(settings(tmp_path), RUNTIME, Metrics(CollectorRegistry()))
    await predictor.start()
    yield predictor
    await predictor.stop()


@pytest.fixture
async def client(predictor: Predictor) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=predictor.http.url, timeout=20) as client:
        yield client


def model(predictor: Predictor) -> Engined:
    found: Any = predictor.repository.entry("m").model
    return found


@pytest.mark.parametrize(
    ("method", "path", "seen"),
    [
        ("POST", "/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/openai/v1/completions", "/v1/completions"),
        ("GET", "/health", "/health"),
        ("POST", "/v2/rerank", "/v2/rerank"),
        ("GET", "/openaix", "/openaix"),
    ],
)
async def test_what_we_do_not_answer_is_the_applications(
    client: httpx.AsyncClient, method: str, path: str, seen: str
) -> None:
    assert (await client.request(method, path)).text == f"{method} {seen}"


async def test_what_we_answer_stays_ours(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/models/m:predict", json={"instances": [1]})).json() == {"predictions": [1]}
    assert (await client.get("/v2/models/m")).json()["name"] == "m"
    assert (await client.get("/")).json() == {"status": "alive"}


async def test_its_names_and_adapters_are_listed(client: httpx.AsyncClient) -> None:
    cards = [{"id": "m", "object": "model"}, {"id": "adapter", "object": "model"}]
    assert (await client.get("/v1/models")).json() == {"models": ["m"], "object": "list", "data": cards}
    assert (await client.get("/openai/v1/models")).json() == {"object": "list", "data": cards}
    assert (await client.get("/openai/v1/models/adapter")).json() == cards[1]
    assert (await client.get("/openai/v1/models/nobody")).status_code == 404


async def test_a_call_that_waits_for_the_loop_is_never_made_there(client: httpx.AsyncClient) -> None:
    for _ in range(30):
        # So quick that any other model would be called on the loop by now.
        answer = await client.post("/v1/models/m:predict", json={"instances": [1]})
        assert answer.json() == {"predictions": [1]}


async def test_answers_are_counted_by_their_status(client: httpx.AsyncClient) -> None:
    for status in (200, 201, 404, 429, 418, 500):
        await client.post(f"/status/{status}")
    told = (await client.get("/metrics")).text
    for code, count in (
        ("OK", 2),
        ("NOT_FOUND", 1),
        ("RESOURCE_EXHAUSTED", 1),
        ("INVALID_ARGUMENT", 1),
        ("INTERNAL", 1),
    ):
        assert f'servery_predictor_requests_total{{code="{code}",model="m",protocol="openai"}} {count}.0' in told


async def test_the_model_is_kept_for_an_answer_that_is_on_its_way(
    predictor: Predictor, client: httpx.AsyncClient
) -> None:
    engined = model(predictor)
    asked = asyncio.create_task(client.post("/slow"))
    await engined.asked.wait()
    unloading = asyncio.create_task(predictor.repository.unload("m"))
    refused = await client.post("/v1/completions")
    assert (refused.status_code, refused.json()["error"]["message"]) == (503, "the model is not loaded")
    assert not engined.is_closed
    engined.go.set()
    assert (await asked).text == "POST /slow"
    await unloading
    assert engined.is_closed


async def test_the_application_hears_of_a_client_that_hangs_up(predictor: Predictor, client: httpx.AsyncClient) -> None:
    engined = model(predictor)
    asked = asyncio.create_task(client.post("/slow"))
    await engined.asked.wait()
    asked.cancel()
    await engined.hung_up.wait()
    told = (await client.get("/metrics")).text
    assert 'servery_predictor_requests_total{code="CANCELLED",model="m",protocol="openai"} 1.0' in told


async def test_a_dead_engine_is_told_to_every_probe(predictor: Predictor, client: httpx.AsyncClient) -> None:
    probes = ("/v2/health/live", "/v2/health/ready", "/v2/models/m/ready", "/v1/models/m")
    assert [(await client.get(probe)).status_code for probe in probes] == [200] * 4
    model(predictor).died = True
    assert [(await client.get(probe)).status_code for probe in probes] == [503] * 4
    assert predictor.grpc is not None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{predictor.grpc.port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        assert not (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready
    await predictor.repository.load("m")
    assert [(await client.get(probe)).status_code for probe in probes] == [200] * 4


async def test_what_fails_on_the_loop_fails_the_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engined, "broken", True)
    with pytest.raises(LoadError, match="the template is wrong"):
        await data_plane(settings(tmp_path), RUNTIME, Metrics(CollectorRegistry())).repository.load_all()
