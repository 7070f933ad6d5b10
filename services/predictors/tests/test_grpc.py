"""gRPC, whoever listens on the port: our own front or ``grpcio`` alone. Clients cannot tell them apart."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from servery_predictor.server import Predictor
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub as Stub

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
PATIENCE_SECONDS = 20
Start = Callable[..., Awaitable[Predictor]]

ECHO = """
class Model:
    def load(self, artifact):
        self.artifact = artifact

    def predict(self, inputs):
        (name, data), = inputs.items()
        if not data.shape[1]:
            # An empty row waits for the test.
            (self.artifact / "entered").touch()
            (self.artifact / "release").read_text()
        return {"echo": data}
"""


@pytest.fixture(params=["fast", "grpcio"])
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def predictor(start: Start, iris: Path, front: str) -> Predictor:
    return await start(iris, grpc_front=front, max_body_bytes=64_000_000)


def address(predictor: Predictor) -> str:
    assert predictor.grpc is not None
    return f"127.0.0.1:{predictor.grpc.port}"


@pytest.fixture
async def channel(predictor: Predictor) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(address(predictor), options=options) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Stub:
    return Stub(channel)


def asked(rows: np.ndarray | list[list[float]] = ROWS, **more: object) -> pb.ModelInferRequest:
    data = np.asarray(rows, dtype=np.float64)
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP64", shape=data.shape)
    return pb.ModelInferRequest(
        **{"model_name": "iris", "inputs": [tensor], "raw_input_contents": [data.tobytes()], **more}
    )


def answered(response: pb.ModelInferResponse) -> list[int]:
    return np.frombuffer(response.raw_output_contents[0], dtype=np.int64).tolist()


TRITON = """
import sys, numpy as np
import tritonclient.grpc as client
c = client.InferenceServerClient(sys.argv[1])
assert c.is_server_live() and c.is_server_ready() and c.is_model_ready("iris")
assert c.get_server_metadata().name == "servery"
assert c.get_model_metadata("iris").name == "iris"
assert [m.name for m in c.get_model_repository_index().models] == ["iris"]
x = client.InferInput("x", [2, 4], "FP64")
x.set_data_from_numpy(np.array({rows}))
for compression in (None, "gzip", "deflate"):
    assert c.infer("iris", [x], compression_algorithm=compression).as_numpy("output-0").tolist() == [1, 1]
assert c.infer("iris", [x], client_timeout=30, headers={{"x": "y"}}).as_numpy("output-0").tolist() == [1, 1]
done = []
import threading
event = threading.Event()
c.async_infer("iris", [x], callback=lambda result, error: (done.append((result, error)), event.set()))
assert event.wait(20) and done[0][1] is None and done[0][0].as_numpy("output-0").tolist() == [1, 1]
try:
    c.infer("other", [x])
except client.InferenceServerException as error:
    assert error.status() == "StatusCode.NOT_FOUND", error
else:
    raise AssertionError
c.unload_model("iris")
assert not c.is_model_ready("iris")
c.load_model("iris")
assert c.is_model_ready("iris")
"""

KSERVE = """
import asyncio, sys
from kserve import InferenceGRPCClient, InferInput, InferRequest
x = InferInput("x", [2, 4], "FP64", data=sum({rows}, []))
async def main():
    async with InferenceGRPCClient(sys.argv[1]) as rpc:
        assert await rpc.is_server_live() and await rpc.is_server_ready() and await rpc.is_model_ready("iris")
        answer = await rpc.infer(InferRequest("iris", [x]))
        assert list(answer.outputs[0].as_numpy()) == [1, 1]
asyncio.run(main())
"""


@pytest.mark.parametrize("program", [TRITON, KSERVE], ids=["tritonclient", "kserve"])
async def test_other_peoples_clients_are_served(predictor: Predictor, program: str) -> None:
    # Apart: two of them in one process fight over protobuf's global names.
    command = (sys.executable, "-W", "ignore", "-c", program.format(rows=ROWS), address(predictor))
    client = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
    _, errors = await client.communicate()
    assert client.returncode == 0, errors.decode()


async def test_typed_and_raw_contents_are_answered_in_kind(stub: Stub) -> None:
    assert answered(await stub.ModelInfer(asked())) == [1, 1]
    typed = asked(raw_input_contents=[])
    typed.inputs[0].contents.fp64_contents.extend(number for row in ROWS for number in row)
    assert list((await stub.ModelInfer(typed)).outputs[0].contents.int64_contents) == [1, 1]


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        pytest.param(asked([[1.0, 2.0]]), grpc.StatusCode.INVALID_ARGUMENT, "takes [rows, 4]", id="shape"),
        pytest.param(asked(model_name="größer"), grpc.StatusCode.NOT_FOUND, "name größer does not", id="model"),
        pytest.param(asked(model_version="9"), grpc.StatusCode.NOT_FOUND, "no version '9'", id="version"),
        pytest.param(asked(inputs=[]), grpc.StatusCode.INVALID_ARGUMENT, "has no inputs", id="no-inputs"),
        pytest.param(
            asked(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="nope")]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "has no output nope",
            id="output",
        ),
    ],
)
async def test_what_is_wrong_is_said_in_the_same_words(
    stub: Stub, request_: pb.ModelInferRequest, code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ModelInfer(request_)
    assert refused.value.code() is code
    assert words in (refused.value.details() or "")
    assert answered(await stub.ModelInfer(asked())) == [1, 1]


async def test_bytes_that_are_no_message_are_refused(channel: grpc.aio.Channel) -> None:
    service, wrong = "/inference.GRPCInferenceService", b"\xff\xff\xff"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary(f"{service}/ModelInfer")(wrong)
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    # The front knows neither of these: grpcio's server answers them.
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary(f"{service}/RepositoryIndex")(wrong)
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_stream("/grpc.health.v1.Health/Watch")(wrong).read()
    assert refused.value.code() is grpc.StatusCode.INTERNAL


async def test_a_stream_ends_with_the_first_bytes_that_are_no_message(channel: grpc.aio.Channel) -> None:
    stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")()
    await stream.write(asked().SerializeToString())
    first = pb.ModelStreamInferResponse.FromString(await stream.read())
    assert answered(first.infer_response) == [1, 1]
    await stream.write(b"\xff\xff\xff")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stream.read()
    assert refused.value.code() is grpc.StatusCode.INTERNAL


async def test_unknown_method_and_service_are_unimplemented(channel: grpc.aio.Channel) -> None:
    for path in ("/inference.GRPCInferenceService/NoSuchMethod", "/no.Service/Method"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary(path)(b"")
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_health_is_told_and_watched(predictor: Predictor, channel: grpc.aio.Channel) -> None:
    serving, away = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    health = health_pb2_grpc.HealthStub(channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == serving
    watching = health.Watch(health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"))
    assert (await watching.read()).status == serving
    assert predictor.grpc is not None
    await predictor.grpc.set_ready(ready=False)
    assert (await asyncio.wait_for(watching.read(), PATIENCE_SECONDS)).status == away
    watching.cancel()


async def test_reflection_lists_the_service_and_its_methods(channel: grpc.aio.Channel) -> None:
    asking = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await asking.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    listed = await asking.read()
    names = {service.name for service in listed.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.reflection.v1alpha.ServerReflection"} <= names
    await asking.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"))
    described = (await asking.read()).file_descriptor_response.file_descriptor_proto
    assert any(b"ModelInfer" in file for file in described)
    await asking.done_writing()


async def test_large_tensors_go_both_ways(start: Start, tmp_path: Path, front: str) -> None:
    (tmp_path / "model.py").write_text(ECHO)
    predictor = await start(tmp_path, runtime="python", grpc_front=front, max_body_bytes=64_000_000)
    options = [("grpc.max_receive_message_length", -1)]
    data = np.arange(5_000_000, dtype=np.float64).reshape(1, -1)
    async with grpc.aio.insecure_channel(address(predictor), options=options) as channel:
        response = await Stub(channel).ModelInfer(asked(data))
        assert response.raw_output_contents[0] == data.tobytes()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await Stub(channel).ModelInfer(asked(np.zeros((1, 9_000_000))))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len((await Stub(channel).ModelInfer(asked(data))).raw_output_contents) == 1


@pytest.mark.parametrize("ends", ["deadline", "cancel"])
async def test_call_that_is_given_up_stops_nobody(
    start: Start, tmp_path: Path, front: str, ends: str, eventually: Callable[[Callable[[], bool]], Awaitable[None]]
) -> None:
    (tmp_path / "model.py").write_text(ECHO)
    os.mkfifo(tmp_path / "release")
    predictor = await start(tmp_path, runtime="python", grpc_front=front)
    async with grpc.aio.insecure_channel(address(predictor)) as channel:
        stub = Stub(channel)
        slow = stub.ModelInfer(asked(np.zeros((1, 0))), timeout=2 if ends == "deadline" else None)
        await eventually((tmp_path / "entered").exists)
        if ends == "cancel":
            slow.cancel()
        code = grpc.StatusCode.DEADLINE_EXCEEDED if ends == "deadline" else grpc.StatusCode.CANCELLED
        assert await slow.code() is code
        labels = {"model": "iris", "protocol": "grpc-v2", "code": "CANCELLED"}
        count = predictor.plane.metrics.registry.get_sample_value
        await eventually(lambda: count("servery_predictor_requests_total", labels) == 1.0)
        (tmp_path / "release").write_text("")
        response = await stub.ModelInfer(asked([[1.0, 2.0]]), timeout=PATIENCE_SECONDS)
        assert np.frombuffer(response.raw_output_contents[0]).tolist() == [1.0, 2.0]


async def test_calls_at_once_keep_their_answers_apart(stub: Stub) -> None:
    rows = [[5.1, 3.5, 1.4, 0.2], [6.0, 2.9, 4.5, 1.5], [6.9, 3.1, 5.4, 2.1]]
    calls = [stub.ModelInfer(asked([rows[number % 3]], id=str(number))) for number in range(300)]
    for number, response in enumerate(await asyncio.gather(*calls)):
        assert (response.id, answered(response)) == (str(number), [number % 3])


async def test_a_thousand_connections_are_served(predictor: Predictor) -> None:
    # A pool of its own makes a channel a connection.
    options = [("grpc.use_local_subchannel_pool", 1)]

    async def ask(number: int) -> list[int]:
        async with grpc.aio.insecure_channel(address(predictor), options=options) as channel:
            await channel.channel_ready()
            opened.append(number)
            if len(opened) == 1000:
                all_open.set()
            await all_open.wait()
            return answered(await Stub(channel).ModelInfer(asked()))

    opened: list[int] = []
    all_open = asyncio.Event()
    async with asyncio.timeout(100):
        answers = await asyncio.gather(*(ask(number) for number in range(1000)))
    assert answers == [[1, 1]] * 1000
