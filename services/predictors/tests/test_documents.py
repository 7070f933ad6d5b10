from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk.documents import Document, Reply
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import Option, OptionKind, Protocol, Runtime
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

Rest = Callable[..., Any]


class Echo:
    """Answers with what it is asked, once ``go`` is set; made by a program of two."""

    runs = 0

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = True
        self.answering = 0

    @classmethod
    def program(cls, artifact: Path, name: str, *, flags: tuple[str, ...]) -> Callable[[], Any]:
        def run() -> dict[str, Callable[[], Echo]]:
            cls.runs += 1
            return {"one": lambda: cls(1), "two": lambda: cls(2)}

        return run

    def predict(self, request: Any) -> Any:
        raise AssertionError("is asked for documents only")

    def load(self, artifact: Path) -> None:
        self.artifact = artifact

    async def begin(self) -> None:
        self.go = asyncio.Event()
        self.go.set()

    async def is_ready(self) -> bool:
        return self.ready

    async def reply(self, document: Document) -> Reply:
        self.answering += 1
        await self.go.wait()
        if document.body == b"refuse":
            raise ServeryError("it is refused", code=ErrorCode.INVALID_ARGUMENT)
        if document.body == b"stream":
            return Reply(body=self._pieces(), headers={"content-type": "text/plain"})
        if document.wire is Protocol.GRPC_V2:
            asked = pb.ModelInferRequest.FromString(document.body)
            return Reply(
                body=pb.ModelInferResponse(id=str(document.headers["x-who"]), model_name=asked.id).SerializeToString()
            )
        said = {
            "wire": document.wire,
            "explain": document.explain,
            "who": document.headers.get("x-who"),
            "number": self.number,
        }
        return Reply(
            body=orjson.dumps(said), status=203, headers={"x-echo": document.body.decode(), "content-length": "9"}
        )

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        yield b"a"
        yield b"b"


RUNTIME = Runtime(
    name="echo",
    model_class=f"{__name__}:Echo",
    options=(Option(name="flags", meaning="All others.", kind=OptionKind.LEFTOVER),),
)


@pytest.fixture(params=["fast", "grpcio"])
async def predictor(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Predictor]:
    settings = Settings(
        runtime="echo",
        model_dir=tmp_path,
        host="127.0.0.1",
        http_port=0,
        grpc_port=0,
        grpc_front=request.param,
        max_queue_requests=2,
        request_timeout_seconds=0.3,
    )
    predictor = Predictor(settings, RUNTIME, Metrics(CollectorRegistry()), options={"flags": ()})
    Echo.runs = 0
    await predictor.start()
    yield predictor
    await predictor.stop()


def model(predictor: Predictor) -> Echo:
    found: Any = predictor.repository.entry("one").model
    return found


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/models/one:predict", {"wire": "v1", "explain": False, "number": 1}),
        ("/v1/models/two:explain", {"wire": "v1", "explain": True, "number": 2}),
        ("/v2/models/two/infer", {"wire": "v2", "explain": False, "number": 2}),
        ("/v2/models/two/explain", {"wire": "v2", "explain": True, "number": 2}),
        ("/v2/models/two:explain", {"wire": "v2", "explain": True, "number": 2}),
    ],
)
async def test_a_request_reaches_the_model_as_it_came(rest: Rest, path: str, said: dict[str, Any]) -> None:
    status, headers, body = await rest.raw(path, b"no JSON", x_who="me")
    assert (status, headers["x-echo"], orjson.loads(body)) == (203, "no JSON", {**said, "who": "me"})


async def test_grpc_brings_its_metadata(predictor: Predictor) -> None:
    assert predictor.grpc is not None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{predictor.grpc.port}") as channel:
        stub = GRPCInferenceServiceStub(channel)
        asked = pb.ModelInferRequest(model_name="one", id="5")
        answer = await stub.ModelInfer(asked, metadata=(("x-who", "me"),))
        assert (answer.id, answer.model_name) == ("me", "5")
        model(predictor).ready = False
        assert not (await stub.ModelReady(pb.ModelReadyRequest(name="one"))).ready


async def test_a_refusal_is_the_wires_and_counted(rest: Rest, predictor: Predictor) -> None:
    assert await rest("/v1/models/one:predict", b"refuse") == (400, {"error": "it is refused"})
    _, _, metrics = await rest.raw("/metrics")
    assert b'servery_predictor_requests_total{code="INVALID_ARGUMENT",model="one",protocol="v1"} 1.0' in metrics


async def test_a_stream_goes_in_pieces(rest: Rest, predictor: Predictor) -> None:
    status, headers, body = await rest.raw("/v1/models/one:predict", b"stream")
    assert (status, headers["content-type"], body) == (200, "text/plain", b"ab")
    assert predictor.repository.entry("one").users.count == 0


async def test_requests_are_answered_side_by_side_up_to_a_bound(
    rest: Rest, predictor: Predictor, eventually: Callable[[Callable[[], bool]], Any]
) -> None:
    model(predictor).go.clear()
    waiting = [asyncio.create_task(rest.raw("/v1/models/one:predict", b"x")) for _ in range(2)]
    await eventually(lambda: model(predictor).answering == 2)
    status, answer = await rest("/v1/models/one:predict", b"x")
    assert (status, answer) == (429, {"error": "model 'one': 2 requests are being answered; try again"})
    model(predictor).go.set()
    assert [(await one)[0] for one in waiting] == [203, 203]


async def test_an_answer_that_takes_too_long_is_not_waited_for(rest: Rest, predictor: Predictor) -> None:
    model(predictor).go.clear()
    assert await rest("/v1/models/one:predict", b"x") == (504, {"error": "model 'one' did not answer in 0.3 s"})


async def test_an_unload_waits_for_who_is_being_answered(
    rest: Rest, predictor: Predictor, eventually: Callable[[Callable[[], bool]], Any]
) -> None:
    found = model(predictor)
    found.go.clear()
    waiting = asyncio.create_task(rest.raw("/v1/models/one:predict", b"x"))
    await eventually(lambda: found.answering == 1)
    unloading = asyncio.create_task(rest("/v2/repository/models/one/unload", b""))
    await eventually(lambda: predictor.repository.entry("one").model is None)
    assert not unloading.done()
    found.go.set()
    assert (await waiting)[0] == 203
    assert (await unloading)[0] == 200
    status, answer = await rest("/v1/models/one:predict", b"no JSON")
    assert (status, answer) == (503, {"error": "Model with name one is not ready, but Pending"})


async def test_a_program_is_run_once_whatever_clients_want_loaded(rest: Rest) -> None:
    assert (await rest("/v2/repository/models/three/load", b""))[0] == 404
    assert (await rest("/v2/repository/models/two/load", b""))[0] == 200
    assert Echo.runs == 1


async def test_readiness_is_the_models_own(rest: Rest, predictor: Predictor) -> None:
    assert (await rest("/v1/models/one")) == (200, {"name": "one", "ready": True})
    model(predictor).ready = False
    assert (await rest("/v1/models/one")) == (503, {"name": "one", "ready": False})
    assert (await rest("/v2/models/one/ready")) == (503, {"name": "one", "ready": False})
