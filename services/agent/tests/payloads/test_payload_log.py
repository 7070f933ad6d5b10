"""The log of an agent's process: nothing is lost that is not counted, whatever the sink does and whoever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from agents import PATIENCE_SECONDS, Running, agent
from behind import Behind, Peer, listening, ok, post
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from servery_http.client import Client
from sinks import EventSink, event_sink

REQUESTS = 2000
CLIENTS = 8


@pytest.fixture
async def sink() -> AsyncIterator[EventSink]:
    async with event_sink() as sink:
        yield sink


@pytest.fixture
async def echo() -> AsyncIterator[Behind]:
    """A component that answers with what it was asked."""

    async def answer(peer: Peer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, headers, body = await peer.message()
                status = first.split()[1].rpartition("/")[2]
                if status.isdigit():
                    said = b"HTTP/1.1 %b Said\r\ncontent-length: %d\r\n\r\n%b" % (status.encode(), len(body), body)
                elif "stream" in first:
                    said = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
                else:
                    said = ok(body, b"x-got: " + headers.get("ce-id", "none").encode())
                await peer.send(said)

    async def serve(behind: Behind) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(answer(await behind.connections.get()))

    async with listening() as behind:
        task = asyncio.create_task(serve(behind))
        yield behind
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def flags(echo: Behind, sink: EventSink, spool: Path, *more: str) -> list[str]:
    return [f"--component-port={echo.port}", f"--log-url={sink.url}", f"--log-spool-path={spool}", *more]


async def ask(running: Running, *headers: bytes, body: bytes = b"{}", target: bytes = b"/v1/models/m:predict") -> Any:
    client = await running.connect()
    await client.send(post(body, *headers, target=target))
    return await client.message()


async def test_request_and_response_are_told_as_kserve_tells_them(
    echo: Behind, sink: EventSink, tmp_path: Path
) -> None:
    more = ["--source-uri=pod-1", "--inference-service=iris", "--namespace=demo", "--component=predictor"]
    more += ["--endpoint=default", "--metadata-headers=X-Who,none", "--metadata-annotations=team=red"]
    async with agent(*flags(echo, sink, tmp_path, *more)) as running:
        _, answered, _ = await ask(running, b"x-who: me", b"content-type: application/json", body=b'{"instances":[1]}')
        await sink.until(2)
    (request, asked), (response, said) = sorted(sink.events, key=lambda one: one[0]["ce-type"])
    assert asked == said == b'{"instances":[1]}'
    assert request["ce-id"] == response["ce-id"] == answered["ce-id"] == answered["x-got"]
    assert request["ce-type"] == "org.kubeflow.serving.inference.request"
    assert response["ce-type"] == "org.kubeflow.serving.inference.response"
    told = {name: request[f"ce-{name}"] for name in ("source", "inferenceservicename", "namespace", "component")}
    assert told == {"source": "pod-1", "inferenceservicename": "iris", "namespace": "demo", "component": "predictor"}
    assert (request["ce-endpoint"], request["ce-subject"]) == ("default", "/v1/models/m:predict")
    assert json.loads(request["ce-metadata"]) == {"X-Who": ["me"]}
    assert json.loads(request["ce-annotations"]) == {"team": "red"}
    assert request["content-type"] == "application/json"
    assert (response["ce-statuscode"], "ce-statuscode" in request) == ("200", False)


async def test_id_that_a_client_brings_is_kept(echo: Behind, sink: EventSink, tmp_path: Path) -> None:
    async with agent(*flags(echo, sink, tmp_path)) as running:
        _, answered, _ = await ask(running, b"Ce-Id: mine")
        await sink.until(2)
    assert answered["ce-id"] == answered["x-got"] == "mine"
    assert sink.counts.keys() == {("mine", "request"), ("mine", "response")}


async def test_long_bodies_are_logged_as_they_came(echo: Behind, sink: EventSink, tmp_path: Path) -> None:
    # On either side of the sizes from which on bodies are not copied, and of what comes with one read.
    bodies = [bytes([65 + number]) * size for number, size in enumerate((4095, 4096, 65_536, 400_000))]
    async with agent(*flags(echo, sink, tmp_path)) as running:
        for body in bodies:
            await ask(running, b"ce-id: %d" % len(body), body=body)
        await sink.until(2 * len(bodies))
    found = sorted((int(head["ce-id"]), body) for head, body in sink.events)
    assert found == [(len(body), body) for body in bodies for _ in range(2)]


@pytest.mark.parametrize("mode", ["request", "response"])
async def test_mode_logs_one_half(mode: str, echo: Behind, sink: EventSink, tmp_path: Path) -> None:
    async with agent(*flags(echo, sink, tmp_path, f"--log-mode={mode}")) as running:
        await ask(running, b"ce-id: a")
        await ask(running, b"ce-id: b")
        await sink.until(2)
    assert sink.counts.keys() == {("a", mode), ("b", mode)}


async def test_any_status_is_logged_and_so_are_streams_but_no_probes(
    echo: Behind, sink: EventSink, tmp_path: Path
) -> None:
    async with agent(*flags(echo, sink, tmp_path, "--log-mode=response")) as running:
        await ask(running, b"user-agent: kube-probe/1.30", b"ce-id: probe")
        await ask(running, b"k-network-probe: queue", b"ce-id: probe")
        await ask(running, b"ce-id: teapot", target=b"/418", body=b"no")
        await ask(running, b"ce-id: stream", target=b"/stream")
        await echo.die()
        await ask(running, b"ce-id: dead")
        await sink.until(3)
    found = {head["ce-id"]: (head["ce-statuscode"], body) for head, body in sink.events}
    assert found.pop("dead")[0] in {"502", "503"}
    assert found == {"teapot": ("418", b"no"), "stream": ("200", b"abcdef")}


async def test_body_is_cut_at_its_bound_redacted_or_left_out(echo: Behind, sink: EventSink, tmp_path: Path) -> None:
    more = ["--log-max-body-bytes=100", "--log-redact=$.instances[*].name $..ssn", "--log-mode=request"]
    async with agent(*flags(echo, sink, tmp_path, *more)) as running:
        await ask(running, b"ce-id: short", body=b'{"instances":[{"name":"a","age":3}],"x":{"ssn":1}}')
        await ask(running, b"ce-id: long", body=b'{"name": "%b"}' % (b"a" * 200))
        await sink.until(2)
    found = {head["ce-id"]: (head, body) for head, body in sink.events}
    assert json.loads(found["short"][1]) == {
        "instances": [{"name": "[redacted]", "age": 3}],
        "x": {"ssn": "[redacted]"},
    }
    head, body = found["long"]
    assert (head["ce-truncated"], head["ce-withheld"], body) == ("true", "true", b"")


async def test_sample_is_the_same_for_the_same_ids(echo: Behind, sink: EventSink, tmp_path: Path) -> None:
    async with agent(*flags(echo, sink, tmp_path, "--log-sampling=0.5")) as running:
        for turn in range(2):
            for number in range(40):
                await ask(running, b"ce-id: %d" % number)
            if not turn:
                await sink.until(2)
        running.process.send_signal(signal.SIGTERM)
        await running.process.wait()
    ids = {one for one, _ in sink.counts}
    assert 5 < len(ids) < 35
    assert set(sink.counts.values()) == {2}, "each twice, both halves"


async def test_batched_request_is_logged_as_its_client_sent_it(echo: Behind, sink: EventSink, tmp_path: Path) -> None:
    """The component answers as it was asked, which no predictor does: what the client got is logged, whatever it is."""
    async with agent(*flags(echo, sink, tmp_path, "--enable-batcher")) as running:
        first, _, body = await ask(running, b"ce-id: mine", body=b'{"instances": [1, 2]}')
        await sink.until(2)
    found = {head["ce-type"].rpartition(".")[2]: (head, said) for head, said in sink.events}
    assert found["request"][1] == b'{"instances": [1, 2]}'
    assert found["response"][1] == body
    assert found["response"][0]["ce-statuscode"] == first.split()[1]
    assert {head["ce-id"] for head, _ in found.values()} == {"mine"}


@pytest.mark.parametrize("more_flags", [[], ["--enable-batcher"]], ids=["alone", "beside the batcher"])
async def test_grpc_is_logged_with_its_id(sink: EventSink, tmp_path: Path, more_flags: list[str]) -> None:
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(lambda request, _context: request * 2)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": method}),)
    )
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    more = [f"--component-grpc-port={port}", f"--log-url={sink.url}", f"--log-spool-path={tmp_path}", *more_flags]
    async with agent(*more) as running, grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(
            b"ab", timeout=20, metadata=(("x-who", "me"),)
        )
        assert await call == b"abab"
        identified = dict(await call.initial_metadata())["ce-id"]
        await sink.until(2)
    await server.stop(None)
    found = {head["ce-type"].rpartition(".")[2]: (head, body) for head, body in sink.events}
    assert found["request"][1] == b"\0\0\0\0\2ab"
    assert found["response"][1] == b"\0\0\0\0\4abab"
    assert {head["ce-id"] for head, _ in found.values()} == {identified}
    assert found["request"][0]["ce-subject"] == "/inference.GRPCInferenceService/ModelInfer"
    assert found["response"][0]["content-type"] == "application/grpc"


async def test_what_a_sink_refuses_for_good_is_put_aside_with_its_reason(
    echo: Behind, sink: EventSink, tmp_path: Path
) -> None:
    sink.status = 422
    async with agent(*flags(echo, sink, tmp_path, "--log-mode=request")) as running:
        await ask(running, b"ce-id: bad", body=b"x")
        await running.until("servery_agent_payload_events_dead_total", 1)
        sink.status = 200
        await ask(running, b"ce-id: good")
        await sink.until(1)
    (line,) = (tmp_path / "dead-letters.jsonl").read_text().splitlines()
    letter = json.loads(line)
    assert (letter["id"], letter["bytes"], letter["reason"]) == ("bad", "eA==", f"{sink.url} answers 422")


async def test_second_agent_with_the_same_spool_ends_with_its_reason(
    echo: Behind, sink: EventSink, tmp_path: Path
) -> None:
    async with agent(*flags(echo, sink, tmp_path)):
        command = [sys.executable, "-m", "servery_agent.cli", "--port=0", "--metrics-port=0"]
        other = await asyncio.create_subprocess_exec(
            *command, *flags(echo, sink, tmp_path), stderr=asyncio.subprocess.PIPE
        )
        _, errors = await other.communicate()
    assert other.returncode == 1
    assert b"is another agent's; give each a folder of its own" in errors


async def test_deliverer_that_is_killed_is_started_again_and_loses_nothing(
    echo: Behind, sink: EventSink, tmp_path: Path
) -> None:
    async with agent(*flags(echo, sink, tmp_path)) as running:
        await ask(running, b"ce-id: before")
        await sink.until(2)
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        await ask(running, b"ce-id: after")
        await sink.until(4)
        assert await running.metric("servery_agent_payload_deliverer_restarts") == 1


async def load(running: Running, first: int, count: int) -> set[str]:
    """Ask so many times, some at once; return the ids of what was answered."""
    answered: set[str] = set()
    numbers = iter(range(first, first + count))

    async def client() -> None:
        peer = await running.connect()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for number in numbers:
                await peer.send(post(b'{"instances":[[1.0,2.0]]}', b"ce-id: %d" % number))
                _, headers, _ = await peer.message()
                answered.add(headers["ce-id"])

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(client())
    return answered


@pytest.mark.timeout(300)
async def test_every_event_is_delivered_at_least_once_or_counted(
    echo: Behind, sink: EventSink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sink that is slow, then down, then back at its port, and an agent that is killed between."""
    answered: set[str] = set()
    sink.pause_seconds = 0.01
    async with agent(*flags(echo, sink, tmp_path)) as running:
        answered |= await load(running, 0, REQUESTS)
        assert len(sink.counts) < REQUESTS, "slow as it is, it keeps nobody waiting"
        await sink.down()
        answered |= await load(running, REQUESTS, REQUESTS)
        await running.until("servery_agent_payload_sink_up", 0)
        # Killed under load, so something is in memory.
        more = asyncio.create_task(load(running, 2 * REQUESTS, 100 * REQUESTS))
        await asyncio.sleep(0.5)
        running.process.kill()
        answered |= await more
        await running.process.wait()
    sink.pause_seconds = 0.0
    await sink.up()
    expected = {(one, part) for one in answered for part in ("request", "response")}
    async with agent(*flags(echo, sink, tmp_path)) as running:
        crashed = int(await running.metric('servery_agent_payload_events_dropped_total{reason="crash"}'))
        answered = await load(running, 200 * REQUESTS, REQUESTS)
        expected |= {(one, part) for one in answered for part in ("request", "response")}
        async with asyncio.timeout(PATIENCE_SECONDS * 2):
            while len(sink.counts) < len(expected) - crashed or len(expected - sink.counts.keys()) > crashed:
                sink.grown.clear()
                await sink.grown.wait()
        running.process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(running.process.wait(), PATIENCE_SECONDS)
    lost = expected - sink.counts.keys()
    twice = sum(count - 1 for count in sink.counts.values())
    with capsys.disabled():
        print(
            f"\n{len(expected)} events of answered requests: {len(expected) - len(lost)} delivered, {twice} of them again, "
            f"{len(lost)} not, {crashed} counted as dropped by the kill"
        )
    assert len(lost) <= crashed
    assert twice <= 1000, "what was on its way when the agent was killed, and no more"
    assert not list(tmp_path.glob("*.spool"))[1:], "what was delivered is gone from the disk"


async def test_client_is_answered_as_fast_when_the_sink_hangs(echo: Behind, sink: EventSink, tmp_path: Path) -> None:
    sink.pause_seconds = 1000
    async with agent(*flags(echo, sink, tmp_path, "--log-queue-bytes=100000", "--log-spool-bytes=100000")) as running:
        answered = await asyncio.wait_for(load(running, 0, REQUESTS), PATIENCE_SECONDS)
        assert len(answered) == REQUESTS
        async with asyncio.timeout(PATIENCE_SECONDS):
            # The spool is written behind the answers, and what its queue had no room for never came there.
            while not await running.metric('servery_agent_payload_events_dropped_total{reason="spool_full"}'):
                answered |= await load(running, len(answered), CLIENTS)
        queued = await running.metric('servery_agent_payload_events_dropped_total{reason="queue_full"}')
        accepted = await running.metric("servery_agent_payload_events_total")
        assert accepted + queued == 2 * len(answered)
        running.process.kill()


async def test_objects_lie_where_kserve_puts_them(echo: Behind, tmp_path: Path) -> None:
    more = [f"--log-url=file://{tmp_path}/out/logs", f"--log-spool-path={tmp_path}/spool", "--namespace=demo"]
    more += ["--inference-service=iris", "--component=predictor", "--log-store-path=store", "--log-store-format=json"]
    async with agent(f"--component-port={echo.port}", *more) as running:
        await ask(running, b"ce-id: 7")
        running.process.send_signal(signal.SIGTERM)
        assert await running.process.wait() == 0
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.json")}
    assert found == {f"logs/demo/iris/predictor/store/7-{part}.json" for part in ("request", "response")}


async def test_marshaller_of_ones_own_writes_the_objects(echo: Behind, tmp_path: Path) -> None:
    more = [f"--log-url=file://{tmp_path}/out", f"--log-spool-path={tmp_path}/spool", "--log-mode=request"]
    async with listening() as marshaller:
        more += [f"--log-marshaller-url=http://127.0.0.1:{marshaller.port}/marshal", "--log-batch-size=2"]
        async with agent(f"--component-port={echo.port}", *more) as running, Client():
            await ask(running, b"ce-id: 1")
            await ask(running, b"ce-id: 2")
            peer = await marshaller.accept()
            first, _, body = await peer.message()
            assert first == "POST /marshal HTTP/1.1"
            assert [one["id"] for one in json.loads(body)] == ["1", "2"]
            await peer.send(ok(b"xml", b"x-log-marshal-extension: .xml"))
            running.process.send_signal(signal.SIGTERM)
            await running.process.wait()
    assert (tmp_path / "out" / "1-request.xml").read_bytes() == b"xml"
