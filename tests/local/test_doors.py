"""A Service has one door, which leads to a pod that is ready, and closes where there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from servery.local.doors import Doorway
from servery.local.ingress import Backend
from servery_kube.memory import MemoryApi
from servery_sdk import kinds

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "iris-predictor", "namespace": "demo"},
    "spec": {"selector": {"app": "iris"}, "ports": [{"port": 80, "targetPort": 8080}, {"port": 8081}]},
}


class Pods:
    """Which ``address:port`` is ready, by the Service's port."""

    def __init__(self) -> None:
        self.ready: dict[int, list[str]] = {}

    def __call__(self, backend: Backend) -> list[str]:
        assert (backend.namespace, backend.service) == ("demo", "iris-predictor")
        return self.ready.get(backend.port, [])


@pytest.fixture
def pods() -> Pods:
    return Pods()


@pytest.fixture
async def doorway(pods: Pods) -> AsyncIterator[Doorway]:
    api = MemoryApi()
    await api.apply(SERVICE, kinds.SERVICE)
    made = Doorway(api, pods)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def said(address: str, words: bytes) -> bytes:
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(words)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_all_who_ask_at_once_get_one_door(doorway: Doorway) -> None:
    one, *others = await asyncio.gather(*(doorway.doors() for _ in range(5)))
    assert set(one) == {("iris-predictor.demo", 80), ("iris-predictor.demo", 8081)}
    assert all(other == one for other in others)


async def test_door_passes_bytes_both_ways_and_skips_a_pod_that_went(doorway: Doorway, pods: Pods) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        gone = await asyncio.start_server(echo, "127.0.0.1", 0)
        left = gone.sockets[0].getsockname()[1]
        gone.close()
        pods.ready[8081] = [f"127.0.0.1:{left}", f"127.0.0.1:{port}"]
        door = (await doorway.doors())["iris-predictor.demo", 8081]
        assert await said(door, b"x" * 1_000_000) == b"X" * 1_000_000


async def test_door_to_no_pod_closes_at_once(doorway: Doorway) -> None:
    assert await said((await doorway.doors())["iris-predictor.demo", 80], b"") == b""
