"""Calls of gRPC through the batcher, and what goes with their answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from behind import PATIENCE_SECONDS, until
from servery_agent.batcher.front import Batcher
from servery_agent.batcher.policy import BatchLimits
from servery_agent.batcher.rest import INFER
from servery_agent.batcher.watched import watched
from servery_http.address import Address
from servery_http.gateway.gate import Gate
from servery_http.gateway.server import Gateway
from servery_http.http2.headers import Fields
from servery_http.rpc.calls import Answer, Done, Failure, Outcome, Status
from servery_http.rpc.server import RpcServer
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.protocol import grpc as codec
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb


class Seen:
    """A watcher that writes down what it sees."""

    fields_to_server: Fields = ()
    fields_to_client: Fields = ((b"ce-id", b"one"),)

    def __init__(self) -> None:
        self.asked = self.answered = b""
        self.head: dict[bytes, bytes] = {}
        self.ends: list[bool] = []

    def on_request_piece(self, piece: bytes) -> None:
        self.asked += piece

    def on_call_head(self, fields: Fields) -> None:
        self.head = dict(fields)

    def on_answer_piece(self, piece: bytes) -> None:
        self.answered += piece

    def on_end(self, *, is_complete: bool) -> None:
        self.ends.append(is_complete)


class Site:
    """A gateway with a batcher of two rows, and the predictor behind it: each call waits for the test's answer."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[tuple[pb.ModelInferRequest, Done]] = asyncio.Queue()
        self.channel: grpc.aio.Channel
        self.seen: list[Seen] = []
        self.watches = False

    def watch(self, fields: Fields) -> Seen | None:
        if not self.watches:
            return None
        assert (b":path", INFER) in fields
        self.seen.append(Seen())
        return self.seen[-1]

    def infer(self, message: bytes, done: Done) -> None:
        self.asked.put_nowait((pb.ModelInferRequest.FromString(message), done))

    def ask(self, number: int) -> Any:
        infer = self.channel.unary_unary(
            INFER.decode(),
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        tensor = Tensor(name="x", data=np.array([[number]]), datatype=Datatype.INT64)
        return infer(codec.encode_request(InferRequest(model="m", inputs=(tensor,)), raw=True))

    async def called(self, rows: int) -> Done:
        """Return what answers the next call, which has so many rows."""
        message, done = await asyncio.wait_for(self.asked.get(), PATIENCE_SECONDS)
        assert message.inputs[0].shape[0] == rows
        return done


def echo(*numbers: int) -> bytes:
    tensor = Tensor(name="y", data=np.array([[number] for number in numbers]), datatype=Datatype.INT64)
    return codec.encode_response(InferResponse(model="m", outputs=(tensor,)), raw=True).SerializeToString()


@contextlib.asynccontextmanager
async def running_site(folder: Path, gate: Gate, queue_seconds: float = PATIENCE_SECONDS) -> AsyncIterator[Site]:
    made = Site()
    nobody = Address(path=folder / "nobody.sock")
    async with RpcServer({INFER: made.infer}, folder / "nobody.sock").running(drain_seconds=0) as server:
        upstream = Address(port=server.port)
        batcher = Batcher(BatchLimits(max_rows=2), rpc_upstream=upstream, gate=gate, queue_seconds=queue_seconds)
        handlers = {path: watched(headed, made.watch) for path, headed in batcher.handlers.items()}
        gateway = Gateway(nobody, routes=batcher.route, handlers=handlers, gate=gate)
        async with (
            gateway.running(drain_seconds=0),
            grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as made.channel,
        ):
            yield made
        batcher.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(tmp_path, Gate()) as made:
        yield made


def said(metadata: Any) -> dict[str, str | bytes]:
    return {name: value for name, value in metadata if not name.startswith("grpc-")}


async def two_together(site: Site, outcome: Outcome) -> list[Any]:
    """Return two calls whose batch, beside one that the predictor works at, came to ``outcome``."""
    calls = [site.ask(0)]
    await site.called(1)
    calls += [site.ask(1), site.ask(2)]
    (await site.called(2))(outcome)
    return calls[1:]


async def test_metadata_of_a_batch_reaches_each_caller_but_what_is_of_one(site: Site) -> None:
    head = ((b"x-model-version", b"7"), (b"x-request-id", b"of the batch"))
    for call in await two_together(site, Answer(echo(10, 20), head, ((b"x-cost-bin", b"AQI"),))):
        assert (await call).outputs[0].shape == [1, 1]
        assert said(await call.initial_metadata()) == {"x-model-version": "7"}
        assert said(await call.trailing_metadata()) == {"x-cost-bin": b"\1\2"}


async def test_metadata_of_a_failure_reaches_each_caller(site: Site) -> None:
    failure = Failure(Status.UNAVAILABLE, "busy", ((b"x-retry", b"1"), (b"x-request-id", b"of the batch")))
    for call in await two_together(site, failure):
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert said(await call.trailing_metadata()) == {"x-retry": "1"}


@pytest.mark.parametrize("status", [Status.INTERNAL, Status.UNKNOWN, Status.INVALID_ARGUMENT])
async def test_calls_of_a_failed_batch_are_made_one_by_one(site: Site, status: Status) -> None:
    calls = await two_together(site, Failure(status, "no"))
    (await site.called(1))(echo(10))
    (await site.called(1))(Failure(status, "no"))
    assert {await call.code() for call in calls} == {grpc.StatusCode.OK, grpc.StatusCode[status.name]}


async def test_batched_calls_are_seen_as_each_was_asked_and_answered(site: Site) -> None:
    site.watches = True
    calls = await two_together(site, Answer(echo(10, 20), (), ((b"x-cost-bin", b"AQI"),)))
    for call in calls:
        assert (await call).outputs[0].shape == [1, 1]
        assert said(await call.initial_metadata()) == {"ce-id": "one"}
        assert said(await call.trailing_metadata()) == {"x-cost-bin": b"\1\2"}
    for seen in site.seen[1:]:
        assert pb.ModelInferRequest.FromString(seen.asked[5:]).inputs[0].shape == [1, 1]
        assert pb.ModelInferResponse.FromString(seen.answered[5:]).outputs[0].shape == [1, 1]
        assert (seen.head[b":status"], seen.ends) == (b"200", [True])


async def test_a_call_that_fails_or_is_given_up_is_seen_so(site: Site) -> None:
    site.watches = True
    failing, given_up = await two_together(site, Failure(Status.INVALID_ARGUMENT, "no"))
    alone = [await site.called(1) for _ in range(2)]
    given_up.cancel()
    await until(lambda: any(seen.ends for seen in site.seen))
    for done in alone:
        done(Failure(Status.INVALID_ARGUMENT, "no"))
    assert await failing.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert said(await failing.trailing_metadata())["ce-id"] == "one"
    assert sorted(seen.ends for seen in site.seen[1:]) == [[False], [True]]
    told = next(seen for seen in site.seen[1:] if seen.ends == [True])
    assert (told.head[b"grpc-status"], told.head[b"grpc-message"]) == (b"3", b"no")


async def test_batches_wait_at_the_gate_in_turn_and_beyond_its_queue_are_refused(tmp_path: Path) -> None:
    gate = Gate(1, 1)
    async with running_site(tmp_path, gate) as site:
        first = site.ask(0)
        done = await site.called(1)
        second = [site.ask(1), site.ask(2)]
        await until(lambda: gate.waiting == 1)
        for call in (site.ask(3), site.ask(4)):
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await call.details() == "1 requests wait for the predictor, which is the limit; ask again later"
        assert (gate.inside, site.asked.qsize()) == (1, 0)
        done(echo(0))
        await first
        (await site.called(2))(echo(10, 20))
        assert [(await call).outputs[0].shape for call in second] == [[1, 1], [1, 1]]
        assert (gate.inside, gate.waiting) == (0, 0)


async def test_a_batch_that_waits_too_long_at_the_gate_is_unavailable_to_each(tmp_path: Path) -> None:
    async with running_site(tmp_path, gate := Gate(1, 1), queue_seconds=0.05) as site:
        site.ask(0)
        await site.called(1)
        for call in (site.ask(1), site.ask(2)):
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
            assert await call.details() == "the call waited 0.05 s for the predictor; ask again later"
        assert (gate.inside, gate.waiting) == (1, 0)


async def test_who_gives_up_leaves_the_gate_inside_or_before_it(tmp_path: Path) -> None:
    async with running_site(tmp_path, gate := Gate(1, 1)) as site:
        inside = site.ask(0)
        await site.called(1)
        waiting = [site.ask(1), site.ask(2)]
        await until(lambda: gate.waiting == 1)
        for call in waiting:
            call.cancel()
        await until(lambda: gate.waiting == 0)
        assert gate.inside == 1
        inside.cancel()
        await until(lambda: gate.inside == 0)
        last = site.ask(3)
        (await site.called(1))(echo(3))
        assert (await last).outputs[0].shape == [1, 1]
