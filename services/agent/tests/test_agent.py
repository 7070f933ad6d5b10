"""The agent as a process, as a pod starts it: its ports, its signals, and what breaks around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from functools import partial

import grpc
import pytest
from agents import PATIENCE_SECONDS, Running, agent
from behind import Behind, Peer, listening, ok, post
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from servery_http.client import Client
from waiting import until

MEBIBYTE = 1024 * 1024


@pytest.fixture
async def behind() -> AsyncIterator[Behind]:
    async with listening() as behind:
        yield behind


async def serve(behind: Behind) -> None:
    """Answer every request with its body, until cancelled."""

    async def answer(peer: Peer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await peer.send(ok((await peer.message())[2]))

    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(answer(await behind.connections.get()))


@pytest.fixture
async def answering(behind: Behind) -> AsyncIterator[Behind]:
    task = asyncio.create_task(serve(behind))
    yield behind
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_agent_passes_requests_and_counts_them(answering: Behind) -> None:
    async with agent(f"--component-port={answering.port}") as running:
        client = await running.connect()
        await client.send(post(b"hello"))
        assert (await client.message())[2] == b"hello"
        assert await running.metric('servery_agent_requests_total{code="200"}') == 1
        assert await running.metric("servery_agent_request_seconds_count") == 1
        assert await running.metric("servery_agent_connections") == 1


async def test_probe_of_the_variable_is_asked(behind: Behind) -> None:
    probe = json.dumps({"tcpSocket": {"port": behind.port, "host": "127.0.0.1"}, "successThreshold": 1})
    async with agent(f"--component-port={behind.port}", SERVING_READINESS_PROBE=probe) as running, Client() as client:
        url, header = f"http://127.0.0.1:{running.port}/", [(b"k-network-probe", b"queue")]
        assert (await client.request("GET", url, headers=header)).status == 200
        command = [sys.executable, "-m", "servery_agent.cli", f"--port={running.port}", "--probe-period"]
        asked = await asyncio.create_subprocess_exec(*command[:-1], "--probe-period=10s")
        assert await asked.wait() == 0
        await behind.die()
        assert (await client.request("GET", url, headers=header)).status == 503
        asked = await asyncio.create_subprocess_exec(*command[:-1], "--probe-period=0")
        assert await asked.wait() == 1


async def test_sigterm_ends_an_idle_agent_at_once_and_a_busy_one_with_its_request(behind: Behind) -> None:
    loop = asyncio.get_running_loop()
    async with agent(f"--component-port={behind.port}") as running:
        began = loop.time()
        running.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(running.process.wait(), PATIENCE_SECONDS) == 0
        assert loop.time() - began < 5
    async with agent(f"--component-port={behind.port}") as running:
        client = await running.connect()
        await client.send(post(b"last"))
        server = await behind.accept()
        await server.message()
        running.process.send_signal(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(running.process.wait(), 1)
        await server.send(ok(b"answer"))
        assert (await client.message())[2] == b"answer"
        assert await asyncio.wait_for(running.process.wait(), PATIENCE_SECONDS) == 0


async def test_component_killed_and_started_again_under_load_is_told_and_found_again(behind: Behind) -> None:
    told: dict[int, int] = {}
    task = asyncio.create_task(serve(behind))

    def enough(status: int, count: int) -> bool:
        return told.get(status, 0) >= count

    async def load(running: Running, is_over: asyncio.Event) -> None:
        async with Client() as client:
            while not is_over.is_set():
                url = f"http://127.0.0.1:{running.port}/v1/models/m:predict"
                answer = await client.request("POST", url, body=b"x", timeout_seconds=10)
                told[answer.status] = told.get(answer.status, 0) + 1
                assert answer.status == 200 or b"the predictor" in answer.body

    async with agent(f"--component-port={behind.port}") as running:
        is_over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(16):
                group.create_task(load(running, is_over))
            for _ in range(3):
                before = told.get(200, 0)
                await until(partial(enough, 200, before + 200))
                refused = told.get(503, 0)
                await behind.die()
                await until(partial(enough, 503, refused + 20))
                task.cancel()
                await behind.listen()
                task = asyncio.create_task(serve(behind))
            before = told.get(200, 0)
            await until(partial(enough, 200, before + 200))
            is_over.set()
        assert told.keys() <= {200, 502, 503}
        assert await running.metric("servery_agent_inflight_requests") == 0
    task.cancel()


async def test_bodies_of_512_mib_pass_in_bounded_memory_both_ways(behind: Behind) -> None:
    piece, pieces = b"x" * MEBIBYTE, 512
    async with agent(f"--component-port={behind.port}") as running:
        client = await running.connect()
        await client.send(post(b"", b"content-length: %d" % (pieces * MEBIBYTE), length=False))
        server = await behind.accept()
        await server.head()
        before = running.resident_bytes

        async def sends(peer: Peer) -> None:
            for _ in range(pieces):
                await peer.send(piece)

        async def reads(peer: Peer) -> int:
            most = 0
            for number in range(pieces):
                await peer.read(MEBIBYTE)
                if number % 16 == 0:
                    most = max(most, running.resident_bytes)
            return most

        _, most_in = await asyncio.gather(sends(client), reads(server))
        await server.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (pieces * MEBIBYTE))
        await client.head()
        _, most_out = await asyncio.gather(sends(server), reads(client))
        assert max(most_in, most_out) - before < 16 * MEBIBYTE
        assert running.resident_bytes < 150 * MEBIBYTE


async def test_client_that_does_not_read_stops_the_component_not_the_agent(answering: Behind) -> None:
    # Its own connection is full; that of others is not, and the agent holds no more than the buffers on the way.
    async with agent(f"--component-port={answering.port}") as running:
        slow, quick = await running.connect(), await running.connect()
        before = running.resident_bytes
        body = b"y" * (64 * MEBIBYTE)
        await slow.send(post(body))
        for _ in range(100):
            await quick.send(post(b"quick"))
            assert (await quick.message())[2] == b"quick"
        assert running.resident_bytes - before < 16 * MEBIBYTE
        assert (await slow.message())[2] == body


async def test_ten_thousand_idle_connections_keep_nobody_waiting(answering: Behind) -> None:
    count = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > count + 200, f"this machine allows {hard} files"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    idle: list[socket.socket] = []
    try:
        async with agent(f"--component-port={answering.port}") as running:
            before = running.resident_bytes
            idle.extend(socket.create_connection(("127.0.0.1", running.port)) for _ in range(count))
            client = await running.connect()
            await client.send(post(b"in time"))
            assert (await client.message())[2] == b"in time"
            assert await running.metric("servery_agent_connections") == count + 1
            assert running.resident_bytes < 150 * MEBIBYTE
            each = (running.resident_bytes - before) / count
            assert each < 10_000, f"{each:.0f} bytes a connection"
    finally:
        for one in idle:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_headers_of_nearly_64_kib_pass_and_longer_ones_are_refused(answering: Behind) -> None:
    async with agent(f"--component-port={answering.port}") as running:
        client = await running.connect()
        head = len(post(b"", b"x: "))
        await client.send(post(b"", b"x: " + b"h" * (64 * 1024 - head)))
        assert (await client.message())[0] == "HTTP/1.1 200 OK"
        await client.send(post(b"", b"x: " + b"h" * (64 * 1024 - head + 1)))
        assert (await client.message())[0].split()[1] == "431"


async def test_client_that_stops_in_the_middle_is_told_and_forgotten(answering: Behind) -> None:
    async with agent(f"--component-port={answering.port}", "--client-timeout-seconds=0.2") as running:
        for half in (
            b"POST / HT",
            post(b"", b"content-length: 5", length=False) + b"ab",
            post(b"", b"transfer-encoding: chunked", length=False) + b"3\r\na",
        ):
            client = await running.connect()
            await client.send(half)
            assert (await client.message())[0].split()[1] == "408"
            assert await client.rest() == b""
        silent = await running.connect()
        assert await silent.rest() == b""
        assert await running.metric("servery_agent_inflight_requests") == 0


async def test_component_that_does_not_answer_is_a_504(behind: Behind) -> None:
    flags = (
        f"--component-port={behind.port}",
        "--answer-timeout-seconds=0.2",
        "--container-concurrency=1",
        "--queue-timeout-seconds=0.1",
    )
    async with agent(*flags) as running:
        first, second = await running.connect(), await running.connect()
        await first.send(post(b"1"))
        await behind.accept()
        await second.send(post(b"2"))
        assert (await second.message())[0].split()[1] in {"503", "504"}
        assert (await first.message())[0].split()[1] == "504"


@pytest.fixture
async def health_port() -> AsyncIterator[int]:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


async def test_grpc_passes_on_the_same_port_unary_and_streamed(health_port: int) -> None:
    async with (
        agent(f"--component-grpc-port={health_port}") as running,
        grpc.aio.insecure_channel(f"127.0.0.1:{running.port}") as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        watching = stub.Watch(health_pb2.HealthCheckRequest(service="none"), timeout=20)
        assert (await watching.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        watching.cancel()
        assert await running.metric("servery_agent_connections") == 1


async def test_wrong_probe_ends_the_agent_with_its_reason() -> None:
    command = [sys.executable, "-m", "servery_agent.cli", "--port=0", "--metrics-port=0"]
    environment = {**os.environ, "SERVING_READINESS_PROBE": "{}"}
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().splitlines()[-1].startswith("SERVING_READINESS_PROBE: ")
