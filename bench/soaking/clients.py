"""The clients of one server: each asks over and over until its time is over, and checks every answer that it gets."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import orjson
from google.protobuf.message import DecodeError
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2_grpc as stubs

from soaking.models import Asked, Known, known
from soaking.tally import Tally
from soaking.wire import HOST, METHOD, Answer, Call, Wire, chunked, prefixed, request

PATIENCE_SECONDS = 60.0
"""After which an answer is lost."""
QUIET_SECONDS = 60.0
"""That a server waits for the rest of a request; then 408. Source: ``servery_http.limits``."""
MODEL = "soak"
INFER = f"/v2/models/{MODEL}/infer"
PREDICT = f"/v1/models/{MODEL}:predict"
JSON = {"content-type": "application/json"}
LENGTH = "inference-header-content-length"
GONE = (OSError, EOFError)
"""What a connection raises that ended: ``asyncio.IncompleteReadError`` is an EOFError, TimeoutError an OSError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server to be asked: which runtime it serves, where, and from which artifact."""

    runtime: str
    http: int
    grpc: int
    artifact: Path


@dataclass(slots=True)
class Versions:
    """Which versions of the model may answer now.

    Attributes:
        oldest: Every load of a later one that was asked for has ended, or none was.
        newest: Has been asked for.
        goings: How often the model was unloaded.
        may_be_gone: Between the wish that it be unloaded and the end of the load that follows.
        is_gone: Between the end of the one and the wish for the other.
    """

    oldest: int
    newest: int
    goings: int = 0
    may_be_gone: bool = False
    is_gone: bool = False


@dataclass(frozen=True, slots=True)
class Since:
    """What held when a request was sent."""

    oldest: int
    goings: int
    may_have_been_gone: bool
    was_gone: bool


@dataclass(slots=True)
class Traffic:
    """All clients of one server, in one process."""

    target: Target
    until: float
    versions: Versions
    random: random.Random
    known: Known
    tally: Tally = field(default_factory=Tally)
    counted: float = 0.0

    def since(self) -> Since:
        """Return what holds now, before a request is sent."""
        now = self.versions
        return Since(now.oldest, now.goings, now.may_be_gone, now.is_gone)

    def may_be_unready(self, since: Since) -> bool:
        """Return whether the model may have been away at any moment since then."""
        return since.may_have_been_gone or self.versions.may_be_gone or self.versions.goings != since.goings

    def must_be_unready(self, since: Since) -> bool:
        """Return whether the model was away all the time since then."""
        return since.was_gone and self.versions.is_gone and self.versions.goings == since.goings

    def judge(self, kind: str, asked: Asked, found: object, since: Since) -> None:
        """Count an answer: the predicted numbers, or None where the server said that the model is not ready."""
        if found is None:
            if self.may_be_unready(since):
                self.tally.right[f"{kind}, not ready"] += 1
            else:
                self.tally.err(kind, "the model is said not to be ready, and is")
            return
        version = asked.version_of(found)
        if self.must_be_unready(since):
            self.tally.err(kind, "an answer of a model that is unloaded")
        elif version is None:
            self.tally.err(kind, f"asked {asked.rows[:3].tolist()}…, base {asked.base[:3]}, found {str(found)[:200]}")
        elif not since.oldest <= version <= self.versions.newest:
            self.tally.err(kind, f"version {version} answers, not {since.oldest} to {self.versions.newest}")
        else:
            self.tally.right[kind] += 1

    def judge_status(self, kind: str, answer: Answer, status: int, since: Since, *, of_model: bool) -> None:
        """Count the answer to a wrong request; one that only the model finds wrong needs a model that is there."""
        if answer.status == 503 and of_model and self.may_be_unready(since):
            self.tally.right[f"{kind}, not ready"] += 1
        elif answer.status != status:
            self.tally.err(kind, f"{answer.status} in place of {status}: {answer.body[:200]!r}")
        elif not orjson.loads(answer.body).get("error"):
            self.tally.err(kind, f"{status} without a word: {answer.body[:200]!r}")
        else:
            self.tally.right[kind] += 1

    def rows(self) -> int:
        """Return how many rows to ask: mostly few, seldom more than one batch takes."""
        return self.random.randint(1, 24) if self.random.random() < 0.98 else self.random.randint(500, 1500)

    def ask(self) -> Asked:
        """Return an input."""
        return self.known.ask(self.random, self.rows())


# Requests as bytes, and the numbers in their answers.


@dataclass(frozen=True, slots=True)
class Form:
    """A request of one protocol.

    Attributes:
        read: Takes the predicted numbers out of a body, or raises ValueError, KeyError or TypeError.
    """

    path: str
    body: bytes
    headers: Mapping[str, str]
    read: Callable[[Answer], object]

    @property
    def sent(self) -> bytes:
        """The whole request."""
        return request(self.path, self.body, self.headers)


def v1(traffic: Traffic, asked: Asked) -> Form:
    """Return a v1 request."""
    body = orjson.dumps({"instances": asked.rows}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Form(PREDICT, body, JSON, lambda answer: orjson.loads(answer.body)["predictions"])


def v2(traffic: Traffic, asked: Asked) -> Form:
    """Return a v2 request in JSON, with an id that must come back."""
    name = f"{traffic.random.getrandbits(64):x}"
    tensor = {"name": "x", "shape": list(asked.rows.shape), "datatype": traffic.known.datatype}
    body = orjson.dumps(
        {"id": name, "inputs": [{**tensor, "data": asked.rows.ravel()}]}, option=orjson.OPT_SERIALIZE_NUMPY
    )

    def read(answer: Answer) -> object:
        document = orjson.loads(answer.body)
        (output,) = document["outputs"]
        if document["id"] != name or document["model_name"] != MODEL or output["shape"] != [len(asked.rows)]:
            raise ValueError(f"an answer to another request: {answer.body[:200]!r}")
        return output["data"]

    return Form(INFER, body, JSON, read)


def v2_binary(traffic: Traffic, asked: Asked) -> Form:
    """Return a v2 request with its tensor as bytes, which wants the same back."""
    raw = asked.rows.tobytes()
    tensor = {"name": "x", "shape": list(asked.rows.shape), "datatype": traffic.known.datatype}
    head = orjson.dumps(
        {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    )

    def read(answer: Answer) -> object:
        at = int(answer.headers[LENGTH])
        (output,) = orjson.loads(answer.body[:at])["outputs"]
        if output["datatype"] != "INT64" or output["shape"] != [len(asked.rows)]:
            raise ValueError(f"not what was asked: {answer.body[:at]!r}")
        return np.frombuffer(answer.body[at:], np.int64)

    return Form(INFER, head + raw, {"content-type": "application/octet-stream", LENGTH: str(len(head))}, read)


FORMS = {"v1": v1, "v2 JSON": v2, "v2 binary": v2_binary}


def message(traffic: Traffic, asked: Asked, *, raw: bool) -> pb.ModelInferRequest:
    """Return a gRPC request."""
    made = pb.ModelInferRequest(model_name=MODEL, id=f"{traffic.random.getrandbits(64):x}")
    tensor = made.inputs.add(name="x", datatype=traffic.known.datatype, shape=asked.rows.shape)
    if raw:
        made.raw_input_contents.append(asked.rows.tobytes())
    elif traffic.known.datatype == "FP64":
        tensor.contents.fp64_contents.extend(asked.rows.ravel().tolist())
    else:
        tensor.contents.int64_contents.extend(asked.rows.ravel().tolist())
    return made


def numbers(asked: pb.ModelInferRequest, answer: pb.ModelInferResponse) -> object:
    """Return the predicted numbers; None stands for an answer to another request, which no input has."""
    if answer.id != asked.id or len(answer.outputs) != 1:
        return "an answer to another request"
    if asked.raw_input_contents:
        return np.frombuffer(answer.raw_output_contents[0], np.int64)
    return np.array(answer.outputs[0].contents.int64_contents, np.int64)


# HTTP.


@asynccontextmanager
async def connected(traffic: Traffic, kind: str) -> AsyncIterator[Wire]:
    """Open a connection and count as lost what breaks in it."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), Wire(traffic.target.http) as wire:
            yield wire
    except GONE as error:
        traffic.tally.lose(kind, f"{type(error).__name__}: {error}")


def judge_form(traffic: Traffic, kind: str, asked: Asked, form: Form, answer: Answer, since: Since) -> None:
    """Count the answer to a right request."""
    if answer.status == 503:
        traffic.judge(kind, asked, None, since)
        return
    try:
        found = form.read(answer) if answer.status == 200 else f"{answer.status} {answer.body[:200]!r}"
    except (ValueError, KeyError, TypeError) as error:
        found = f"{type(error).__name__}: {error}"
    traffic.judge(kind, asked, found, since)


async def ask_http(traffic: Traffic, kind: str) -> None:
    """Ask on one connection for a while: one by one, or several requests at once, which are answered in their order."""
    asked_at_once = 1
    async with connected(traffic, kind) as wire:
        for _ in range(traffic.random.choice((1, 20, 200))):
            asked_at_once = traffic.random.choice((1, 1, 1, 1, 6))
            asked = [traffic.ask() for _ in range(asked_at_once)]
            forms = [FORMS[kind](traffic, one) for one in asked]
            since = traffic.since()
            await wire.send(b"".join(form.sent for form in forms))
            for one, form in zip(asked, forms, strict=True):
                judge_form(traffic, kind, one, form, await wire.answer(), since)
            if time.monotonic() > traffic.until:
                return


async def send_slowly(traffic: Traffic, _: str) -> None:
    """Send a request in pieces, with and without chunks, some with ``Expect``, and read the answer in pieces."""
    protocol = traffic.random.choice(list(FORMS))
    kind = f"slow {protocol}"
    asked = traffic.known.ask(traffic.random, traffic.random.choice((4, 400, 8000)))
    form = FORMS[protocol](traffic, asked)
    piece = max(1, len(form.body) // traffic.random.randint(2, 12))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), Wire(traffic.target.http, receive_bytes=8192) as wire:
            if traffic.random.random() < 0.5:
                pieces = chunked(form.path, form.body, form.headers, piece)
            else:
                headers = dict(form.headers)
                if traffic.random.random() < 0.5:
                    headers["expect"] = "100-continue"
                sent = request(form.path, form.body, headers)
                pieces = [sent[at : at + piece] for at in range(0, len(sent), piece)]
            since = traffic.since()
            for one in pieces:
                await wire.send(one)
                await asyncio.sleep(traffic.random.random() * 0.3)
            answer = await wire.answer(piece_seconds=traffic.random.choice((0.0, 0.02)))
            judge_form(traffic, kind, asked, form, answer, since)
    except GONE as error:
        traffic.tally.lose(kind, f"{type(error).__name__}: {error}")


async def say_nothing(traffic: Traffic, _: str) -> None:
    """Send a part of a request and wait: the server says 408 when it has waited long enough."""
    sent = v1(traffic, traffic.ask()).sent
    began = time.monotonic()
    try:
        async with asyncio.timeout(2 * QUIET_SECONDS), Wire(traffic.target.http) as wire:
            await wire.send(sent[: traffic.random.randint(1, len(sent) - 1)])
            traffic.judge_status("silence", await wire.answer(), 408, traffic.since(), of_model=False)
    except GONE as error:
        traffic.tally.lose("silence", f"{type(error).__name__} after {time.monotonic() - began:.0f} s")


async def hang_up(traffic: Traffic, _: str) -> None:
    """Go away in the middle of the request, before the answer, in the middle of it, or behind several requests."""
    protocol = traffic.random.choice(list(FORMS))
    where = traffic.random.choice(("request", "wait", "answer", "pipeline"))
    rows = 8000 if where == "answer" else traffic.rows()
    sent = FORMS[protocol](traffic, traffic.known.ask(traffic.random, rows)).sent
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), Wire(traffic.target.http, receive_bytes=4096) as wire:
            if where == "request":
                await wire.send(sent[: traffic.random.randint(1, len(sent) - 1)])
            elif where == "pipeline":
                await wire.send(sent * traffic.random.randint(2, 40))
            else:
                await wire.send(sent)
            if where in {"answer", "pipeline"}:
                await wire.reader.readexactly(traffic.random.randint(1, 100))
            else:
                await asyncio.sleep(traffic.random.choice((0.0, 0.0005, 0.005)))
            wire.hang_up(by_reset=traffic.random.random() < 0.5)
            traffic.tally.left[f"hung up in the {where}"] += 1
    except GONE as error:
        traffic.tally.lose(f"hung up in the {where}", f"{type(error).__name__}: {error}")


@dataclass(frozen=True, slots=True)
class Wrong:
    """A request that is wrong, and the status that says so.

    Attributes:
        of_model: Only the model finds it wrong.
    """

    name: str
    sent: bytes
    status: int
    of_model: bool = False


def wrongs(traffic: Traffic) -> list[Wrong]:
    """Return one of each kind that HTTP has."""
    asked = traffic.known.ask(traffic.random, 3)
    datatype = traffic.known.datatype
    good, binary = v2(traffic, asked), v2_binary(traffic, asked)
    document = orjson.loads(good.body)
    (tensor,) = document["inputs"]

    def spelled(**changes: object) -> bytes:
        return request(INFER, orjson.dumps({"inputs": [{**tensor, **changes}]}), JSON)

    def instances(rows: object) -> bytes:
        return request(PREDICT, orjson.dumps({"instances": rows}), JSON)

    narrow = {"name": "x", "shape": [2, 3], "datatype": datatype, "data": [1, 2, 3, 4, 5, 6]}
    made = [
        Wrong("no JSON", request(PREDICT, b"{instances: no}", JSON), 400),
        Wrong("half a JSON", request(PREDICT, good.body[: len(good.body) // 2], JSON), 400),
        Wrong("no body", request(PREDICT, b"", JSON), 400),
        Wrong("a list", request(INFER, b"[1, 2, 3]", JSON), 400),
        Wrong("no instances", request(PREDICT, b"{}", JSON), 400),
        Wrong("no rows", instances([]), 400),
        Wrong("ragged rows", instances([[1, 2, 3, 4], [5, 6]]), 400),
        Wrong("three columns", instances([[1, 2, 3]]), 400, of_model=True),
        Wrong("three columns in v2", request(INFER, orjson.dumps({"inputs": [narrow]}), JSON), 400, of_model=True),
        Wrong("no inputs", request(INFER, b'{"inputs": []}', JSON), 400),
        Wrong("another shape", spelled(shape=[4, 4]), 400),
        Wrong("a negative shape", spelled(shape=[-3, 4]), 400),
        Wrong("no datatype", spelled(datatype="FP65"), 400),
        Wrong("words for numbers", spelled(data=["a"] * 12), 400),
        Wrong("no name", request(INFER, orjson.dumps({"inputs": [{"shape": [1], "data": [1]}]}), JSON), 400),
        Wrong(
            "an unknown output",
            request(INFER, orjson.dumps({**document, "outputs": [{"name": "nobody"}]}), JSON),
            400,
            of_model=True,
        ),
        Wrong("bytes too few", request(INFER, binary.body[:-8], binary.headers), 400),
        Wrong("bytes too many", request(INFER, binary.body + b"12345678", binary.headers), 400),
        Wrong("a length beyond the body", request(INFER, binary.body, {LENGTH: str(len(binary.body) + 1)}), 400),
        Wrong("a length that is none", request(INFER, binary.body, {LENGTH: "some"}), 400),
        Wrong("an unknown model", request("/v1/models/nobody:predict", v1(traffic, asked).body, JSON), 404),
        Wrong("an unknown version", request(f"/v2/models/{MODEL}/versions/99/infer", good.body, JSON), 404),
        Wrong("an unknown path", request("/v3/models", b"{}", JSON), 404),
        Wrong("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        Wrong("a length that is no number", b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
        Wrong("too long a body", f"POST {INFER} HTTP/1.1\r\ncontent-length: {1 << 40}\r\n\r\n".encode(), 413),
        Wrong("too long a URL", b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\n\r\n", 414),
        Wrong("too long a head", b"GET / HTTP/1.1\r\nx: " + b"a" * 66_000 + b"\r\n\r\n", 431),
    ]
    for first, status in traffic.known.faults.items():
        made.append(Wrong(f"a row that is answered {status}", instances([[first, 0, 0, 0]]), status, of_model=True))
    return made


async def send_wrong(traffic: Traffic, _: str) -> None:
    """Send all that is wrong, and after each a request that is right, on the same connection where that lives on."""
    left = wrongs(traffic)
    traffic.random.shuffle(left)
    while left:
        async with connected(traffic, f"wrong: {left[-1].name}") as wire:
            while left:
                wrong = left.pop()
                since = traffic.since()
                await wire.send(wrong.sent)
                answer = await wire.answer()
                traffic.judge_status(f"wrong: {wrong.name}", answer, wrong.status, since, of_model=wrong.of_model)
                if answer.closes:
                    break
                asked = traffic.ask()
                form, since = v1(traffic, asked), traffic.since()
                await wire.send(form.sent)
                judge_form(traffic, "v1 behind a wrong one", asked, form, await wire.answer(), since)
                if time.monotonic() > traffic.until:
                    return


# gRPC.


@asynccontextmanager
async def channel(traffic: Traffic) -> AsyncIterator[stubs.GRPCInferenceServiceStub]:
    """Open a channel whose connection it shares with no other."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"{HOST}:{traffic.target.grpc}", options=options) as opened:
        yield stubs.GRPCInferenceServiceStub(opened)  # type: ignore[no-untyped-call]  # generated


async def ask_grpc(traffic: Traffic, kind: str) -> None:
    """Call on one channel for a while, several calls at once."""
    async with channel(traffic) as stub:
        for _ in range(traffic.random.choice((1, 20, 200))):
            await asyncio.gather(*(call(traffic, stub, kind) for _ in range(traffic.random.choice((1, 1, 4)))))
            if time.monotonic() > traffic.until:
                return


async def call(traffic: Traffic, stub: stubs.GRPCInferenceServiceStub, kind: str) -> None:
    """Call once, with typed or raw contents."""
    asked = traffic.ask()
    made = message(traffic, asked, raw=traffic.random.random() < 0.5)
    since = traffic.since()
    try:
        answer = await stub.ModelInfer(made, timeout=PATIENCE_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNAVAILABLE and "is not ready" in (error.details() or ""):
            traffic.judge(kind, asked, None, since)
        elif error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
            traffic.tally.lose(kind, f"{error.code().name}: {error.details()}")
        else:
            traffic.judge(kind, asked, f"{error.code().name}: {error.details()}", since)
        return
    traffic.judge(kind, asked, numbers(made, answer), since)


async def give_up(traffic: Traffic, _: str) -> None:
    """Cancel a call, or give it less time than it needs."""
    async with channel(traffic) as stub:
        for _attempt in range(20):
            asked = traffic.ask()
            made = message(traffic, asked, raw=True)
            since = traffic.since()
            seconds = traffic.random.choice((0.0005, 0.002, 0.01))
            if traffic.random.random() < 0.5:
                calling = stub.ModelInfer(made, timeout=PATIENCE_SECONDS)
                await asyncio.sleep(seconds)
                calling.cancel()
            else:
                calling = stub.ModelInfer(made, timeout=seconds)
            try:
                found: object = numbers(made, await calling)
            except asyncio.CancelledError:
                if asyncio.current_task().cancelling():  # type: ignore[union-attr]  # inside a task
                    raise
                traffic.tally.left["cancelled gRPC"] += 1
                continue
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    traffic.tally.left["too late gRPC"] += 1
                    continue
                found = None if error.code() is grpc.StatusCode.UNAVAILABLE else error.code().name
            traffic.judge("gRPC in a hurry", asked, found, since)


async def send_wrong_grpc(traffic: Traffic, _: str) -> None:
    """Call with all that is wrong."""
    asked = traffic.known.ask(traffic.random, 3)
    invalid = grpc.StatusCode.INVALID_ARGUMENT

    def changed(change: Callable[[pb.ModelInferRequest], object], *, raw: bool = True) -> bytes:
        made = message(traffic, asked, raw=raw)
        change(made)
        return made.SerializeToString()

    def narrow(made: pb.ModelInferRequest) -> None:
        made.inputs[0].shape[:] = [4, 3]

    def unnamed(made: pb.ModelInferRequest) -> None:
        made.model_name = "nobody"

    def untyped(made: pb.ModelInferRequest) -> None:
        made.inputs[0].datatype = "FP65"

    # What gRPC's own list of codes says, and what grpcio's asyncio server does.
    unreadable = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
    made = {
        "no message": (b"\xff\xff\xff", unreadable, False),
        "no inputs": (pb.ModelInferRequest(model_name=MODEL).SerializeToString(), {invalid}, False),
        "three columns": (changed(narrow), {invalid}, True),
        "another shape": (changed(lambda made: made.inputs[0].shape.append(2)), {invalid}, False),
        "another shape, typed": (changed(lambda made: made.inputs[0].shape.append(2), raw=False), {invalid}, False),
        "one more raw": (changed(lambda made: made.raw_input_contents.append(b"")), {invalid}, False),
        "no datatype": (changed(untyped), {invalid}, False),
        "an unknown output": (changed(lambda made: made.outputs.add(name="nobody")), {invalid}, True),
        "an unknown model": (changed(unnamed), {grpc.StatusCode.NOT_FOUND}, False),
    }
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"{HOST}:{traffic.target.grpc}", options=options) as opened:
        infer = opened.unary_unary(METHOD, None, None)
        for name, (sent, codes, of_model) in made.items():
            kind, since = f"wrong gRPC: {name}", traffic.since()
            try:
                await infer(sent, timeout=PATIENCE_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() in codes:
                    traffic.tally.right[kind] += 1
                elif error.code() is grpc.StatusCode.UNAVAILABLE and of_model and traffic.may_be_unready(since):
                    traffic.tally.right[f"{kind}, not ready"] += 1
                else:
                    traffic.tally.err(kind, f"{error.code().name}: {error.details()}")
            else:
                traffic.tally.err(kind, "an answer")


async def call_slowly(traffic: Traffic, _: str) -> None:
    """Call a frame at a time; some go away in the middle of the request or before the answer."""
    asked = traffic.known.ask(traffic.random, traffic.random.choice((2, 200)))
    made = message(traffic, asked, raw=True)
    sent = prefixed(made.SerializeToString())
    piece = max(1, len(sent) // 5)
    pieces = [sent[at : at + piece] for at in range(0, len(sent), piece)]
    leaves = traffic.random.choice((None, None, 0, 2, len(pieces)))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), Wire(traffic.target.grpc) as wire:
            since, calling = traffic.since(), Call(wire)
            await calling.begin()
            for number, one in enumerate(pieces[:leaves]):
                await calling.say(one, end=number == len(pieces) - 1)
                await asyncio.sleep(traffic.random.random() * (0.2 if leaves is None else 0.01))
            if leaves is not None:
                wire.hang_up(by_reset=traffic.random.random() < 0.5)
                traffic.tally.left["hung up in gRPC"] += 1
                return
            try:
                found = await calling.answer()
                numbered = numbers(made, pb.ModelInferResponse.FromString(found)) if found else None
            except DecodeError as error:
                numbered = f"{error}"
            traffic.judge("slow gRPC", asked, numbered, since)
    except GONE as error:
        traffic.tally.lose("slow gRPC", f"{type(error).__name__}: {error}")


# The model and the server themselves.


async def change(traffic: Traffic, _: str) -> None:
    """Load the model again, from a new version, from the same, or from one that does not load; or unload it first."""
    what = traffic.random.choice(("new", "new", "new", "same twice", "unload", "broken"))
    artifact, versions = traffic.target.artifact, traffic.versions
    if what == "new":
        traffic.known.publish(artifact, versions.newest + 1)
        versions.newest += 1
        await wish(traffic, "load", 200)
        versions.oldest = versions.newest
    elif what == "same twice":
        await asyncio.gather(wish(traffic, "load", 200), wish_grpc(traffic, "load"))
    elif what == "broken":
        traffic.known.spoil(artifact)
        await wish(traffic, "load", 503)
        traffic.known.publish(artifact, versions.newest)
    else:
        versions.may_be_gone, versions.goings = True, versions.goings + 1
        await (wish(traffic, "unload", 200) if traffic.random.random() < 0.5 else wish_grpc(traffic, "unload"))
        versions.is_gone = True
        await asyncio.sleep(0.2)
        versions.is_gone = False
        await wish(traffic, "load", 200)
        versions.may_be_gone = False
    await asyncio.sleep(traffic.random.random() * 2)


async def wish(traffic: Traffic, verb: str, status: int) -> None:
    """Ask for a load or an unload over REST."""
    async with connected(traffic, verb) as wire:
        await wire.send(request(f"/v2/repository/models/{MODEL}/{verb}", b""))
        answer = await wire.answer()
        if answer.status == status:
            traffic.tally.right[f"{verb}, {status}"] += 1
        else:
            traffic.tally.err(verb, f"{answer.status} in place of {status}: {answer.body[:300]!r}")


async def wish_grpc(traffic: Traffic, verb: str) -> None:
    """Ask for a load or an unload over gRPC."""
    async with channel(traffic) as stub:
        try:
            if verb == "load":
                await stub.RepositoryModelLoad(
                    pb.RepositoryModelLoadRequest(model_name=MODEL), timeout=PATIENCE_SECONDS
                )
            else:
                await stub.RepositoryModelUnload(
                    pb.RepositoryModelUnloadRequest(model_name=MODEL), timeout=PATIENCE_SECONDS
                )
        except grpc.aio.AioRpcError as error:
            traffic.tally.err(f"{verb} by gRPC", f"{error.code().name}: {error.details()}")
        else:
            traffic.tally.right[f"{verb} by gRPC"] += 1


async def look(traffic: Traffic, _: str) -> None:
    """Ask what a probe, a dashboard and a scraper ask; what was counted must never be less than before."""
    since = traffic.since()
    async with connected(traffic, "look") as wire:
        for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}", f"/v1/models/{MODEL}", "/metrics"):
            await wire.send(f"GET {path} HTTP/1.1\r\nhost: soak\r\n\r\n".encode())
            answer = await wire.answer()
            if answer.status != 200 and not (answer.status == 503 and traffic.may_be_unready(since)):
                traffic.tally.err(f"GET {path}", f"{answer.status}: {answer.body[:200]!r}")
            else:
                traffic.tally.right[f"GET {path}"] += 1
        counted = sum(
            float(number)
            for number in re.findall(
                r"^servery_predictor_requests_total\{.*\} (\S+)$", answer.body.decode(), re.MULTILINE
            )
        )
        if counted < traffic.counted:
            traffic.tally.err("GET /metrics", f"{counted} requests, after {traffic.counted}")
        traffic.counted = max(traffic.counted, counted)
    await asyncio.sleep(0.5)


CLIENTS: tuple[tuple[Callable[[Traffic, str], Awaitable[None]], str, int], ...] = (
    *((ask_http, protocol, 3) for protocol in FORMS),
    (ask_grpc, "gRPC", 3),
    (send_slowly, "", 6),
    (call_slowly, "", 3),
    (hang_up, "", 2),
    (give_up, "", 1),
    (send_wrong, "", 1),
    (send_wrong_grpc, "", 1),
    (say_nothing, "", 2),
    (change, "", 1),
    (look, "", 1),
)
"""What each client does over and over, in which protocol where it has a choice, and how many such clients there are."""


async def soak(target: Target, seconds: float, version: int, seed: int) -> tuple[Tally, int]:
    """Return what all clients have found, and the version that is loaded at the end."""
    traffic = Traffic(
        target,
        time.monotonic() + seconds,
        Versions(version, version),
        random.Random(seed),
        known(target.runtime),
    )

    async def over_and_over(client: Callable[[Traffic, str], Awaitable[None]], kind: str) -> None:
        while time.monotonic() < traffic.until:
            await client(traffic, kind)

    async with asyncio.TaskGroup() as group:
        silent = []
        for client, kind, count in CLIENTS:
            made = [group.create_task(over_and_over(client, kind)) for _ in range(count)]
            if client is say_nothing:
                silent = made
        await asyncio.sleep(seconds)
        for task in silent:
            # The server may well wait longer than we do.
            task.cancel()
    return traffic.tally, traffic.versions.newest


def run(target: Target, seconds: float, version: int, seed: int) -> tuple[Tally, int]:
    """Be the clients' process."""
    return asyncio.run(soak(target, seconds, version, seed))
