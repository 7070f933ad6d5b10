"""gRPC services that a runtime adds."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from ports import free_port
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.runtime_calls import rpc_doors
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.protocol import InferRequest, InferResponse, RequestError
from servery_sdk.protos.torchserve import inference_pb2 as pb
from servery_sdk.routes import Call, Host, Listener, RpcService

NAME = "org.pytorch.serve.grpc.inference.InferenceAPIsService"


def answered(request: pb.PredictionsRequest) -> pb.PredictionResponse:
    if request.model_name == "wrong":
        raise RequestError("not that one")
    return pb.PredictionResponse(prediction=request.model_name.upper().encode())


async def once(request: pb.PredictionsRequest) -> pb.PredictionResponse:
    return answered(request)


async def twice(request: pb.PredictionsRequest) -> AsyncIterator[pb.PredictionResponse]:
    for _ in range(2):
        yield answered(request)


async def each(requests: AsyncIterator[pb.PredictionsRequest]) -> AsyncIterator[pb.PredictionResponse]:
    async for request in requests:
        yield answered(request)


SERVICE = RpcService(
    name=NAME,
    calls=(
        Call(name="Predictions", request=pb.PredictionsRequest, handle=once),
        Call(name="StreamPredictions", request=pb.PredictionsRequest, handle=twice, gives_stream=True),
        Call(
            name="StreamPredictions2", request=pb.PredictionsRequest, handle=each, takes_stream=True, gives_stream=True
        ),
    ),
)


class Shouting:
    """A model whose users know a service of its own."""

    found: tuple[Listener, ...] = ()

    def load(self, artifact: Path) -> None: ...

    def predict(self, request: InferRequest) -> InferResponse:
        return InferResponse(model=request.model, outputs=request.inputs)

    @classmethod
    def listeners(cls, artifact: Path, host: Host) -> Sequence[Listener]:
        return cls.found


@pytest.fixture
async def make_predictor(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    made: list[Predictor] = []

    async def make(*listeners: Listener, **settings: Any) -> Predictor:
        Shouting.found = listeners
        runtime = replace(plugins.load().runtimes["servery-python"], model_class=f"{__name__}:Shouting")
        told = {"runtime": "python", "model_dir": tmp_path, "host": "127.0.0.1", "http_port": 0, "grpc_port": 0}
        predictor = Predictor(Settings(**{**told, **settings}), runtime, Metrics(CollectorRegistry()))
        made.append(predictor)
        await predictor.start()
        return predictor

    yield make
    for predictor in made:
        await predictor.stop()


def asked(model: str) -> bytes:
    return pb.PredictionsRequest(model_name=model).SerializeToString()


async def said(port: int, method: str, *models: str) -> list[bytes]:
    """What the service answers, message by message."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        path, read = f"/{NAME}/{method}", pb.PredictionResponse.FromString
        if method == "StreamPredictions2":
            call = channel.stream_stream(path, response_deserializer=read)(iter(map(asked, models)))
            return [answer.prediction async for answer in call]
        if method == "StreamPredictions":
            return [a.prediction async for a in channel.unary_stream(path, response_deserializer=read)(asked(*models))]
        return [(await channel.unary_unary(path, response_deserializer=read)(asked(*models))).prediction]


@pytest.mark.parametrize("front", ["fast", "grpcio"])
async def test_services_are_answered_beside_the_protocol_and_at_their_own_port(
    make_predictor: Callable[..., Any], front: str
) -> None:
    port = free_port()
    predictor = await make_predictor(
        Listener(services=(SERVICE,)), Listener(services=(SERVICE,), port=port), grpc_front=front
    )
    assert [door.port for door in predictor.rpc_doors] == [port]
    assert predictor.doors == ()
    for at in (predictor.grpc.port, port):
        assert await said(at, "Predictions", "a") == [b"A"]
        assert await said(at, "StreamPredictions", "a") == [b"A", b"A"]
        assert await said(at, "StreamPredictions2", "a", "b") == [b"A", b"B"]
        for method in ("Predictions", "StreamPredictions", "StreamPredictions2"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await said(at, method, "wrong")
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert refused.value.details() == "not that one"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{at}") as channel:
            listing = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
            await listing.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            names = {service.name for service in (await listing.read()).list_services_response.service}
            assert NAME in names
            await listing.done_writing()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{predictor.grpc.port}") as channel:
        told = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=NAME))
        assert told.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_port_that_somebody_else_has_is_left_to_them(
    make_predictor: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as theirs:
        predictor = await make_predictor(Listener(services=(SERVICE,), port=theirs.getsockname()[1]))
    assert predictor.rpc_doors == ()
    assert "port of the runtime's own is not opened" in caplog.messages


def test_a_port_for_this_machine_is_opened_on_it_alone() -> None:
    listeners = [Listener(services=(SERVICE,)), Listener(services=(SERVICE,), port=7070, is_local=True)]
    own, (door,) = rpc_doors(listeners, host="0.0.0.0", grpc_port=8081, taken=(8080,))
    assert (own, door.host, door.port, door.services) == ((SERVICE,), "127.0.0.1", 7070, (SERVICE,))
    assert rpc_doors(listeners[1:], host="127.64.0.1", grpc_port=None, taken=())[1][0].host == "127.64.0.1"


def test_what_is_for_this_machine_alone_is_not_answered_at_a_port_for_all(caplog: pytest.LogCaptureFixture) -> None:
    taken = [Listener(services=(SERVICE,), port=8080, is_local=is_local) for is_local in (True, False)]
    with caplog.at_level(logging.WARNING):
        assert rpc_doors(taken[:1], host="0.0.0.0", grpc_port=8081, taken=(8080,)) == ((), ())
    assert "services are not answered: their port is taken" in caplog.messages
    assert rpc_doors(taken[1:], host="0.0.0.0", grpc_port=8081, taken=(8080,)) == ((SERVICE,), ())
