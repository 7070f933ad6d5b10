"""What an agent says of itself, and how it is asked to leave, over ``servery.agent.v1``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

import grpc
import pytest
from agents import PATIENCE_SECONDS, Running, agent
from behind import Behind, listening, ok, post
from servery_http.client import Client
from servery_sdk.protos.servery.agent.v1 import agent_pb2 as pb
from servery_sdk.protos.servery.agent.v1 import agent_pb2_grpc as stubs


@pytest.fixture
async def behind() -> AsyncIterator[Behind]:
    async with listening() as behind:
        yield behind


async def command(running: Running, *words: str) -> tuple[int | None, str]:
    """Return the status and the output of ``servery-agent`` with these words."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servery_agent.cli", *words, f"--metrics-port={running.metrics_port}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode, said.decode()


async def test_stats_say_what_the_metrics_say(behind: Behind) -> None:
    flags = (f"--component-port={behind.port}", "--container-concurrency=1", "--enable-batcher")
    async with agent(*flags) as running:
        first, second = await running.connect(), await running.connect()
        await first.send(post(b"1", target=b"/other"))
        server = await behind.accept()
        await server.message()
        await second.send(post(b"2", target=b"/other"))
        await running.until("servery_agent_queue_requests", 1)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.metrics_port}") as channel:
            stub = stubs.AgentStub(channel)  # type: ignore[no-untyped-call]  # generated
            stats = await stub.Stats(pb.StatsRequest(), timeout=PATIENCE_SECONDS)
            assert (stats.inflight, stats.queue, stats.connections, stats.is_draining) == (1, 1, 2, False)
            assert stats.HasField("batches")
            assert not stats.HasField("payload_log")
            await server.send(ok(b"a"))
            assert (await first.message())[2] == b"a"
            await server.message()
            await server.send(ok(b"b"))
            assert (await second.message())[2] == b"b"
            stats = await stub.Stats(pb.StatsRequest(), timeout=PATIENCE_SECONDS)
            assert dict(stats.requests.by_code) == {"200": 2}
            assert sum(stats.requests.seconds.counts) == 2
            assert len(stats.requests.seconds.counts) == len(stats.requests.seconds.bounds) + 1
            assert (stats.inflight, stats.queue) == (0, 0)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary("/servery.agent.v1.Agent/None", bytes, bytes)(b"", timeout=PATIENCE_SECONDS)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
        status, said = await command(running, "stats")
        assert (status, json.loads(said)["requests"]["by_code"]) == (0, {"200": "2"})


async def test_drain_says_not_ready_answers_what_comes_and_ends_with_the_last(behind: Behind) -> None:
    async with agent(f"--component-port={behind.port}") as running, Client() as client:
        last = await running.connect()
        await last.send(post(b"last"))
        server = await behind.accept()
        await server.message()
        status, said = await command(running, "drain", "--most-seconds=0.2")
        assert (status, said) == (1, "1 requests were in flight after 0.2 s\n")
        probe = [(b"k-network-probe", b"queue")]
        assert (await client.request("GET", f"http://127.0.0.1:{running.port}/", headers=probe)).status == 503
        draining = asyncio.create_task(command(running, "drain", "--quiet-seconds=0.1"))
        # Who has not heard yet is answered, and sent elsewhere.
        late = await running.connect()
        await late.send(post(b"late"))
        other = await behind.accept()
        await other.message()
        await other.send(ok(b"late"))
        _, headers, body = await late.message()
        assert (headers["connection"], body) == ("close", b"late")
        assert not draining.done()
        await server.send(ok(b"answer"))
        assert (await last.message())[2] == b"answer"
        assert await draining == (0, "")
        assert running.process.returncode is None


async def test_no_agent_is_said_so() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servery_agent.cli", "stats", "--metrics-port=1"), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert (process.returncode, said.decode()[:24]) == (1, "the agent at 127.0.0.1:1")
