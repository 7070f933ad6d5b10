"""Several responses to a request: ``ModelStreamInfer`` and ``generate_stream``; texts in and out with ``generate``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
from servery_http.client import Client
from servery_predictor.server import Predictor
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub as Stub

Start = Callable[..., Awaitable[Predictor]]
RunClient = Callable[..., Awaitable[str]]
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
Ask = Callable[..., Awaitable[tuple[int, Any]]]
PATIENCE_SECONDS = 20

WAITING = """
import pathlib
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        self.gate = pathlib.Path(args["model_repository"]).parent.parent / "gate"

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            number = request.inputs()[0].as_numpy()[:1]
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", number)]))
            self.gate.read_text()
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", number + 1)]), flags=1)
"""
ANSWERING = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            text = request.inputs()[0].as_numpy().ravel()[0]
            times = pb_utils.get_input_tensor_by_name(request, "TIMES")
            for _ in range(int(times.as_numpy().ravel()[0]) if times is not None else 1):
                if text == b"bad":
                    sender.send(pb_utils.InferenceResponse(error="bad text"))
                else:
                    said = np.array([text.upper(), request.parameters().encode()], dtype=object)
                    outputs = [pb_utils.Tensor("text_output", said[:1]), pb_utils.Tensor("TOLD", said)]
                    sender.send(pb_utils.InferenceResponse(outputs))
            sender.send(flags=1)
"""
ANSWERING_IO = """
backend: "python" model_transaction_policy { decoupled: true }
input { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] }
input { name: "TIMES" data_type: TYPE_INT32 dims: [ 1 ] optional: true }
output { name: "text_output" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "TOLD" data_type: TYPE_STRING dims: [ -1 ] }
"""


@pytest.fixture
def models(triton_models: Path) -> Iterator[Path]:
    for name, code, config in (
        ("waiting", WAITING, (triton_models / "repeat" / "config.pbtxt").read_text()),
        ("answering", ANSWERING, ANSWERING_IO),
    ):
        files = triton_models / name / "1"
        files.mkdir(parents=True)
        (files / "model.py").write_text(code)
        (files.parent / "config.pbtxt").write_text(config)
    gate = triton_models.parent / "gate"
    os.mkfifo(gate)
    yield triton_models
    # Who still reads, of a test that failed, reads its end.
    os.close(os.open(gate, os.O_RDWR | os.O_NONBLOCK))


@pytest.fixture(params=["fast", "grpcio"])
def front(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def several(start: Start, models: Path, front: str) -> Predictor:
    return await start(models, runtime="triton", grpc_front=front)


@pytest.fixture
async def stub(several: Predictor) -> AsyncIterator[Stub]:
    assert several.grpc is not None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{several.grpc.port}") as channel:
        yield Stub(channel)


def asked(model: str, numbers: list[int], *, name: str = "IN", **more: Any) -> pb.ModelInferRequest:
    data = np.array(numbers, np.int32)
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype="INT32", shape=data.shape)
    return pb.ModelInferRequest(
        **{"model_name": model, "inputs": [tensor], "raw_input_contents": [data.tobytes()], **more}
    )


def simple(number: int) -> pb.ModelInferRequest:
    data = np.full((1, 16), number, np.int32)
    made = pb.ModelInferRequest(model_name="simple", id=str(number), raw_input_contents=[data.tobytes()] * 2)
    for name in ("INPUT0", "INPUT1"):
        made.inputs.add(name=name, datatype="INT32", shape=[1, 16])
    return made


async def test_tritons_stream_api_gives_every_response_and_says_which_is_last(
    several: Predictor, run_client: RunClient
) -> None:
    assert several.grpc is not None
    await run_client("grpc_stream.py", f"127.0.0.1:{several.grpc.port}")


async def test_a_response_comes_before_the_next_is_computed(stub: Stub, models: Path) -> None:
    stream = stub.ModelStreamInfer()
    await stream.write(asked("waiting", [7]))
    first = await asyncio.wait_for(stream.read(), PATIENCE_SECONDS)
    assert np.frombuffer(first.infer_response.raw_output_contents[0], np.int32).tolist() == [7]
    assert not first.infer_response.parameters["triton_final_response"].bool_param
    await asyncio.to_thread((models.parent / "gate").write_text, "")
    last = await asyncio.wait_for(stream.read(), PATIENCE_SECONDS)
    assert np.frombuffer(last.infer_response.raw_output_contents[0], np.int32).tolist() == [8]
    assert last.infer_response.parameters["triton_final_response"].bool_param
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_requests_of_a_stream_are_computed_together_and_answered_in_order(several: Predictor, stub: Stub) -> None:
    async def requests() -> AsyncIterator[pb.ModelInferRequest]:
        for number in range(600):
            yield simple(number)
        yield asked("nobody", [1])
        yield asked("simple", [1], raw_input_contents=[])

    told = [response async for response in stub.ModelStreamInfer(requests())]
    answers, (unknown, wrong) = told[:600], told[600:]
    assert [answer.infer_response.id for answer in answers] == [str(number) for number in range(600)]
    sums = [np.frombuffer(answer.infer_response.raw_output_contents[0], np.int32)[0] for answer in answers]
    assert sums == [2 * number for number in range(600)]
    assert all(answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers)
    assert "Model with name nobody does not exist" in unknown.error_message
    assert "shape [1] needs 1 elements, int_contents has 0" in wrong.error_message
    calls = several.plane.metrics.registry.get_sample_value("servery_predictor_batch_rows_count", {"model": "simple"})
    assert calls is not None
    assert calls < 600


async def test_a_stream_that_is_given_up_frees_its_model(
    several: Predictor, stub: Stub, models: Path, eventually: Eventually
) -> None:
    stream = stub.ModelStreamInfer()
    for number in (1, 2, 3):
        await stream.write(asked("waiting", [number]))
    await asyncio.wait_for(stream.read(), PATIENCE_SECONDS)
    stream.cancel()
    count = several.plane.metrics.registry.get_sample_value
    labels = {"model": "waiting", "protocol": "grpc-v2", "code": "CANCELLED"}
    await eventually(lambda: count("servery_predictor_requests_total", labels) == 3.0)
    await asyncio.to_thread((models.parent / "gate").write_text, "")
    # Only the first was begun.
    await asyncio.wait_for(several.repository.unload("waiting"), PATIENCE_SECONDS)


@pytest.fixture
async def ask(start: Start, models: Path, client: Client, rest_of: Callable[..., Ask]) -> Ask:
    return rest_of(client, (await start(models, runtime="triton", enable_grpc=False)).http.url)


async def test_generate_takes_members_as_inputs_and_the_rest_as_parameters(ask: Ask) -> None:
    for path in ("/v2/models/answering", "/v2/models/answering/versions/1"):
        sent = {"id": "a", "text_input": "hello", "temperature": 0.5, "parameters": {"TIMES": 1, "deep": True}}
        assert await ask(f"{path}/generate", sent) == (
            200,
            {
                "id": "a",
                "model_name": "answering",
                "model_version": "1",
                "text_output": "HELLO",
                "TOLD": ["HELLO", '{"temperature": 0.5, "deep": true}'],
            },
        )


async def events(ask: Any, path: str, sent: Any) -> list[Any]:
    status, headers, body = await ask.raw(path, sent)
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    lines = body.split(b"\n\n")
    assert lines.pop() == b""
    assert all(line.startswith(b"data: ") for line in lines)
    return [orjson.loads(line.removeprefix(b"data: ")) for line in lines]


async def test_generate_stream_has_an_event_for_each_response(ask: Ask) -> None:
    told = await events(ask, "/v2/models/answering/generate_stream", {"text_input": "hi", "TIMES": 3})
    assert [event["text_output"] for event in told] == ["HI"] * 3
    assert await events(ask, "/v2/models/answering/generate_stream", {"text_input": "hi", "TIMES": 0}) == []
    (one,) = await events(ask, "/v2/models/simple/generate_stream", {"INPUT0": [1] * 16, "INPUT1": [2] * 16})
    assert (one["OUTPUT0"], one["OUTPUT1"]) == ([3] * 16, [-1] * 16)


@pytest.mark.parametrize(
    ("path", "sent", "status", "words"),
    [
        ("answering/generate", {"text_input": "a", "TIMES": 2}, 400, "expects model to produce exactly 1 response"),
        ("answering/generate", {"text_input": "a", "TIMES": 0}, 400, "expects model to produce exactly 1 response"),
        ("answering/generate", {"text_input": 7}, 400, "takes strings, data holds a number"),
        ("answering/generate", {"text_input": ["a", "b"]}, 400, "shape [1] needs 1 elements, data has 2"),
        ("answering/generate", {"PROMPT": "a"}, 400, "takes TIMES, text_input; found: PROMPT"),
        ("answering/generate", {"text_input": "a", "x": {"y": 1}}, 400, "x: a parameter is a string, a number or"),
        ("answering/generate", {"text_input": "a", "parameters": 1}, 400, "parameters: must be an object"),
        ("answering/generate", b"{", 400, "JSON"),
        ("answering/generate", {"text_input": "bad"}, 500, "bad text"),
        ("answering/generate_stream", {"text_input": "bad"}, 500, "bad text"),
        ("nobody/generate", {"text_input": "a"}, 404, "Model with name nobody does not exist"),
        ("answering/versions/9/generate_stream", {"text_input": "a"}, 404, "no version '9'"),
    ],
)
async def test_what_is_wrong_from_the_start_has_a_status(
    ask: Ask, path: str, sent: Any, status: int, words: str
) -> None:
    found, answer = await ask(f"/v2/models/{path}", sent)
    assert found == status
    assert words in answer["error"]


async def test_a_client_that_hangs_up_on_a_stream_frees_its_model(
    start: Start, models: Path, eventually: Eventually
) -> None:
    predictor = await start(models, runtime="triton", enable_grpc=False)
    reader, writer = await asyncio.open_connection("127.0.0.1", predictor.http.port)
    body = b'{"IN": [5]}'
    head = b"POST /v2/models/waiting/generate_stream HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
    writer.write(head + body)
    first = await asyncio.wait_for(reader.readuntil(b"\n\n"), PATIENCE_SECONDS)
    assert b'"OUT":5' in first
    writer.close()
    count = predictor.plane.metrics.registry.get_sample_value
    labels = {"model": "waiting", "protocol": "generate", "code": "CANCELLED"}
    await eventually(lambda: count("servery_predictor_requests_total", labels) == 1.0)
    await asyncio.to_thread((models.parent / "gate").write_text, "")
