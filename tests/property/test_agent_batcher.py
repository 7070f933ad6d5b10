"""Whatever requests meet in the agent's batcher, each caller gets what the predictor would have told it alone.

The predictor and the agent are real, and so are the sockets between.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from servery_agent.server import Agent
from servery_agent.settings import Settings as AgentSettings
from servery_http.client import Client
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.protocol import Datatype, InferRequest, Tensor, v2
from servery_sdk.protocol import grpc as codec
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from waiting import until

BAD, BROKEN = 13, 17
MODEL = f"""
import numpy as np
from servery_sdk.protocol import Datatype, InferResponse, Tensor


class Model:
    def predict(self, request):
        rows = len(request.inputs[0].data)
        for tensor in request.inputs:
            if tensor.data.dtype.kind in "iuf" and (tensor.data == {BAD}).any():
                raise ValueError("unlucky")
            if tensor.data.dtype.kind in "iuf" and (tensor.data == {BROKEN}).any():
                raise RuntimeError("broken")
        # How tensors travel is between the codecs, and not the model's to tell.
        said = repr(sorted((n, v) for n, v in request.parameters.items() if not n.startswith("binary_data")))
        kinds = np.empty(rows, dtype=object)
        kinds[:] = [repr([(t.name, str(t.datatype), t.data.shape[1:]) for t in request.inputs]).encode()] * rows
        outputs = [Tensor(name="kinds", data=kinds, datatype=Datatype.BYTES)]
        outputs += [Tensor(name="same-" + t.name, data=t.data, datatype=t.datatype) for t in request.inputs]
        if request.parameters.get("whole"):
            count = np.array([rows + 1000.0])
            outputs = [Tensor(name="rows", data=np.repeat(count, rows + 1), datatype=Datatype.FP64)]
        return InferResponse(model=request.model, outputs=tuple(outputs), parameters={{"said": said}})
"""
"""Answers with all that it was told, item by item, so that nothing can be mixed up unseen."""


@dataclass(frozen=True)
class Sent:
    """One request: ``message`` of gRPC, or a body for ``path``."""

    path: str = ""
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    message: pb.ModelInferRequest | None = None


@dataclass
class Running:
    """An agent in front of a predictor, asked by gRPC where it can be, or by REST alone."""

    runner: asyncio.Runner
    predictor: Predictor
    agent: Agent
    client: Client
    channels: dict[bool, grpc.aio.Channel]
    speaks_grpc: bool

    async def ask(self, sent: Sent, *, directly: bool) -> tuple[Any, ...]:
        """Return all that the caller is told."""
        if sent.message is not None:
            call = self.channels[directly].unary_unary(
                "/inference.GRPCInferenceService/ModelInfer",
                request_serializer=pb.ModelInferRequest.SerializeToString,
                response_deserializer=pb.ModelInferResponse.FromString,
            )
            try:
                answer = await call(sent.message, metadata=[(n.decode(), v.decode()) for n, v in sent.headers])
            except grpc.aio.AioRpcError as error:
                return error.code(), error.details()
            return (answer,)
        url = self.predictor.http.url if directly else f"http://127.0.0.1:{self.agent.gateway.port}"
        told = await self.client.request("POST", url + sent.path, headers=sent.headers, body=sent.body)
        headers = {name: value for name, value in told.headers if name not in CHANGING}
        if told.status != 200 or JSON_LENGTH in headers:
            return told.status, headers, told.body
        document = json.loads(told.body)
        if sent.path.endswith(":predict") and not directly:
            assert document.pop("message") == ""
            assert document.pop("batchId")
        # As text: 1 and 1.0 are equal, and not the same.
        return told.status, headers, json.dumps(document, sort_keys=True)


CHANGING = frozenset({b"content-length", b"date", b"server", b"x-request-id", b"connection"})
JSON_LENGTH = b"inference-header-content-length"


async def _start(runner: asyncio.Runner, folder: Path, *, speaks_grpc: bool) -> Running:
    predictor = Predictor(
        Settings(runtime="python", model_name="m", model_dir=folder, host="127.0.0.1", http_port=0, grpc_port=0),
        plugins.load().runtimes["servery-python"],
        Metrics(CollectorRegistry()),
    )
    await predictor.start()
    assert predictor.grpc is not None
    http_port = int(predictor.http.url.rpartition(":")[2])
    agent = Agent(
        AgentSettings(
            host="127.0.0.1",
            port=0,
            metrics_port=0,
            component_port=http_port,
            component_grpc_port=predictor.grpc.port if speaks_grpc else http_port,
            enable_batcher=True,
            max_batchsize=8,
        )
    )
    await agent.start()
    assert agent.batcher is not None
    channel = agent.batcher.channel
    await until(lambda: channel.is_spoken or not speaks_grpc)
    ports = {True: predictor.grpc.port, False: agent.gateway.port}
    channels = {directly: grpc.aio.insecure_channel(f"127.0.0.1:{port}") for directly, port in ports.items()}
    return Running(runner, predictor, agent, Client(), channels, speaks_grpc)


async def _stop(running: Running) -> None:
    for channel in running.channels.values():
        await channel.close()
    await running.client.__aexit__()
    await running.agent.stop()
    await running.predictor.stop()


@pytest.fixture(scope="module", params=[True, False], ids=["grpc", "rest"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.py").write_text(MODEL)
    with asyncio.Runner() as runner:
        running = runner.run(_start(runner, folder, speaks_grpc=request.param))
        yield running
        runner.run(_stop(running))


INTEGERS = st.sampled_from([0, 1, -7, BAD, BROKEN, 2**53 + 1, -(2**62) - 1])
REALS = st.sampled_from([0.0, 0.5, -1.25, 0.1, 1e300, float(BAD), float(BROKEN), 3.0])
TEXTS = st.sampled_from(["", "a", "\u00e9", 'x"]', "]}"])
ELEMENTS = {
    Datatype.INT64: INTEGERS,
    Datatype.FP64: REALS,
    Datatype.FP32: st.sampled_from([0.0, 0.5, float(BAD), 0.1]),
    Datatype.UINT64: st.sampled_from([0, 2**64 - 1, BAD]),
    Datatype.BOOL: st.booleans(),
    Datatype.BYTES: TEXTS.map(str.encode),
    Datatype.FP16: st.sampled_from([0.5, 2.0, float(BAD)]),
}
PARAMETERS = st.sampled_from(
    [{}, {}, {}, {"a": 1}, {"a": True}, {"a": "x"}, {"a": 0.5}, {"a": [1, {"b": None}]}, {"whole": True}]
)
HEADERS = st.sampled_from([(), (), (), ((b"x-tenant", b"a"),), ((b"x-tenant", b"b"),), ((b"user-agent", b"me"),)])
MODELS = st.sampled_from(["m", "m", "m", "m", "nobody"])


def _cells(draw: st.DrawFn, elements: st.SearchStrategy[Any], rows: int, items: Sequence[int]) -> Any:
    if not items:
        return [draw(elements) for _ in range(rows)]
    return [_cells(draw, elements, items[0], items[1:]) for _ in range(rows)]


@st.composite
def of_v1(draw: st.DrawFn) -> Sent:
    rows, items = draw(st.integers(1, 3)), draw(st.sampled_from([(), (1,), (2,), (2,), (2, 1)]))
    kind = draw(st.sampled_from([INTEGERS, INTEGERS, REALS, REALS, TEXTS, st.booleans(), INTEGERS | REALS]))
    cells = _cells(draw, kind, rows, items)
    if draw(st.booleans()) and draw(st.booleans()):
        cells = [{"a": cell, "b": draw(TEXTS)} for cell in cells]
    document = {"instances": cells, **draw(st.sampled_from([{}, {}, {}, {"parameters": {"a": 1}}, {"x": [1]}]))}
    text = json.dumps(document, separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", " :\t")])))
    wrong = draw(st.sampled_from([None] * 12 + ["cut", "ragged", "empty", "other", "wide", "point"]))
    if wrong == "cut":
        text = text[:-1]
    elif wrong is not None:
        text = {
            "ragged": '{"instances": [[1, 2], [3]]}',
            "empty": '{"instances": [[], []]}',
            "other": '{"predictions": [1]}',
            "wide": '{"instances": [[9223372036854775808, 1]]}',
            "point": '{"instances": [[1., 2]]}',
        }[wrong]
    headers = ((b"content-type", b"application/json"), *draw(HEADERS))
    return Sent(f"/v1/models/{draw(MODELS)}:predict", text.encode(), headers)


@st.composite
def tensors(draw: st.DrawFn, *, is_raw: bool) -> InferRequest:
    rows, items = draw(st.integers(1, 3)), draw(st.sampled_from([(), (2,), (2,), (2, 1)]))
    inputs = []
    for name in draw(st.sampled_from([("x",), ("x",), ("x", "y"), ("z",)])):
        chosen = sorted(ELEMENTS if is_raw else set(ELEMENTS) - {Datatype.FP16})
        datatype = draw(st.sampled_from([Datatype.FP32, Datatype.INT64, *chosen]))
        data = np.empty((rows, *items), dtype=datatype.dtype)
        data[...] = np.array(_cells(draw, ELEMENTS[datatype], rows, items), dtype=datatype.dtype)
        inputs.append(Tensor(name=name, data=data, datatype=datatype))
    return InferRequest(
        model=draw(MODELS),
        id=draw(st.none() | st.sampled_from(["one", "\u00e9"])),
        inputs=tuple(inputs),
        outputs=draw(st.sampled_from([(), (), (), ("kinds",)])),
        parameters=draw(PARAMETERS),
    )


@st.composite
def of_v2(draw: st.DrawFn) -> Sent:
    is_binary = draw(st.booleans())
    request = draw(tensors(is_raw=is_binary))
    encoded = v2.encode_request(request, binary=is_binary)
    size = len(encoded.body) if encoded.json_length is None else encoded.json_length
    text, rest = encoded.body[:size], encoded.body[size:]
    document = json.loads(text)
    change = draw(st.sampled_from([None] * 8 + ["shape", "flat", "asks", "extra", "name"]))
    if change == "shape":
        document["inputs"][0]["shape"][0] += 1
    elif change == "asks":
        document["outputs"] = [{"name": "kinds", "parameters": {"binary_data": not is_binary}}]
    elif change == "extra":
        document["later"] = 1
    elif change == "name":
        del document["inputs"][0]["name"]
    text = json.dumps(document, ensure_ascii=False).encode()
    headers = draw(HEADERS)
    if is_binary:
        headers = ((b"content-type", b"application/octet-stream"), (JSON_LENGTH, b"%d" % len(text)), *headers)
    return Sent(f"/v2/models/{request.model}/infer", text + rest, headers)


@st.composite
def of_grpc(draw: st.DrawFn) -> Sent:
    is_raw = draw(st.booleans())
    message = codec.encode_request(draw(tensors(is_raw=is_raw)), raw=is_raw)
    if draw(st.sampled_from([False] * 6 + [True])):
        message.inputs[0].shape[0] += 1
    return Sent(headers=draw(HEADERS.filter(lambda headers: (b"user-agent", b"me") not in headers)), message=message)


async def _compare(running: Running, sent: Sequence[Sent]) -> None:
    wanted = [await running.ask(one, directly=True) for one in sent]
    found = await asyncio.gather(*[running.ask(one, directly=False) for one in sent])
    for one, alone, together in zip(sent, wanted, found, strict=True):
        assert together == alone, one


@pytest.mark.parametrize("parameters", [{}, {"whole": True}], ids=["rows", "whole"])
@pytest.mark.parametrize("bad", [0, BAD, BROKEN], ids=["good", "bad", "broken"])
def test_many_alike_get_what_each_would_get_alone(running: Running, parameters: dict[str, bool], bad: int) -> None:
    numbers = [*range(20, 35), bad]
    documents = [{"instances": [[number]], "parameters": parameters} for number in numbers]
    sent = [Sent("/v1/models/m:predict", json.dumps(document).encode()) for document in documents]
    for number in numbers:
        tensor = Tensor(name="x", data=np.array([[number]]), datatype=Datatype.INT64)
        request = InferRequest(model="m", inputs=(tensor,), parameters=parameters)
        sent.append(Sent("/v2/models/m/infer", v2.encode_request(request).body))
        if running.speaks_grpc:
            sent.append(Sent(message=codec.encode_request(request)))
    running.runner.run(_compare(running, sent))
    # It was no test of batches if there were none.
    told = running.agent.metrics.text().decode()
    counted = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in told.splitlines() if line[0] != "#"}
    assert counted["servery_agent_batch_requests_sum"] > counted["servery_agent_batch_requests_count"]
    if parameters:
        assert counted['servery_agent_batch_retries_total{reason="whole"}'] > 0
    elif bad:
        why = "wrong" if bad == BAD else "failed"
        assert counted[f'servery_agent_batch_retries_total{{reason="{why}"}}'] > 0


LONG_ROWS = st.sampled_from(
    [
        [list(range(1500))],
        [list(range(1501))],
        [[number / 7 for number in range(600)]],
        [[1e-9 * number for number in range(600)], [float(BAD)] * 600],
        [[BROKEN] * 1500],
        [[[number, number + 1] for number in range(900)]],
        [[[number] * 900 for number in range(2)]] * 2,
        [[1] * 1500, [1] * 1499],
        [[2**63] * 300],
        [10**18] * 300,
        list(range(2000)),
        [["a" * 900]] * 6,
        [[[]] * 2000],
    ]
)
"""That are looked through by numpy, of which each kind ends in another branch."""


@given(st.lists(LONG_ROWS, min_size=2, max_size=10), st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_long_bodies_get_what_each_would_get_alone(
    running: Running, bodies: list[Any], separators: tuple[str, str], is_cut: bool
) -> None:
    texts = [json.dumps({"instances": rows}, separators=separators).encode() for rows in bodies]
    if is_cut:
        texts[0] = texts[0].replace(b"]", b"", 1)
    running.runner.run(_compare(running, [Sent("/v1/models/m:predict", text) for text in texts * 2]))


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_each_gets_what_it_would_get_alone(running: Running, data: st.DataObject) -> None:
    kinds = of_v1() | of_v2() | of_grpc() if running.speaks_grpc else of_v1() | of_v2()
    sent = data.draw(st.lists(kinds, min_size=2, max_size=24))
    # Some come again and again: what is alike goes together.
    sent += data.draw(st.lists(st.sampled_from(sent), max_size=24))

    running.runner.run(_compare(running, sent))
