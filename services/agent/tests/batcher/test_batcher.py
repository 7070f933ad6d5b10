"""What waits, what goes together, and what each caller hears when the predictor is slow, wrong, late or gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager as Context
from typing import Any

import pytest
from behind import Behind, Peer, listening, ok, post, until
from hypothesis import given
from hypothesis import strategies as st
from servery_agent.batcher.front import Batcher
from servery_agent.batcher.policy import BatchLimits, going
from servery_http.gateway.gate import Gate
from servery_http.gateway.server import Gateway

LONG_SECONDS = 3600.0
NO = b'{"error": "no"}'

Start = Callable[..., Context["Batching"]]


class Batching:
    """A gateway with a batcher, and the server behind it that the test plays."""

    def __init__(self, behind: Behind, gateway: Gateway) -> None:
        self.behind = behind
        self.gateway = gateway

    async def ask(self, *instances: Any, headers: tuple[bytes, ...] = (), target: bytes | None = None) -> Peer:
        """Return a connection that has asked, and whose request the agent has."""
        client = await self.behind.connect(self.gateway)
        body = json.dumps({"instances": instances}).encode()
        await client.send(post(body, *headers, **({} if target is None else {"target": target})))
        return client

    async def busy(self) -> tuple[Peer, Peer]:
        """Return a client whose request is with the server, and the server's end."""
        client = await self.ask(0)
        server = await self.behind.accept()
        assert await asked_of(server) == [0]
        return client, server

    async def waits(self, *clients: Peer) -> None:
        """Return once the agent holds what these have asked: each asks on its own connection, in turn."""
        await until(lambda: sum(not one.is_idle for one in self.gateway._connections) > len(clients))


@contextlib.asynccontextmanager
async def batching(**limits: Any) -> AsyncIterator[Batching]:
    async with listening() as behind:
        allowed = BatchLimits(**{"max_wait_seconds": LONG_SECONDS, **limits})
        batcher = Batcher(allowed, rpc_upstream=behind.address, gate=(gate := Gate()), queue_seconds=LONG_SECONDS)
        gateway = Gateway(behind.address, routes=batcher.route, gate=gate)
        batcher.asks(gateway.ask)
        async with gateway.running(drain_seconds=0):
            yield Batching(behind, gateway)
        batcher.close()


async def asked_of(server: Peer) -> Any:
    return json.loads((await server.message())[2])["instances"]


async def told(client: Peer) -> tuple[int, Any]:
    first, _, body = await client.message()
    return int(first.split()[1]), json.loads(body)


def predicted(*values: Any, **more: Any) -> bytes:
    return ok(json.dumps({**more, "predictions": values}).encode(), b"content-type: application/json")


def failed(status: int, body: bytes = NO) -> bytes:
    return b"HTTP/1.1 %d No\r\nx-why: this\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body


async def test_one_that_finds_the_predictor_idle_goes_at_once() -> None:
    async with batching() as running:
        client, server = await running.busy()
        await server.send(predicted(10))
        status, answer = await told(client)
        assert (status, answer["predictions"], answer["message"]) == (200, [10], "")
        assert answer["batchId"]


async def test_what_comes_while_it_computes_goes_as_one_and_each_gets_its_own() -> None:
    async with batching() as running:
        first, server = await running.busy()
        others = [await running.ask(1, 2), await running.ask(3)]
        await running.waits(*others)
        await server.send(predicted(0))
        assert await asked_of(server) == [1, 2, 3]
        await server.send(predicted(10, 20, 30, scores=[0.1, 0.2, 0.3], model="m"))
        assert (await told(first))[1]["predictions"] == [0]
        (_, one), (_, other) = [await told(client) for client in others]
        assert (one["predictions"], one["scores"], one["model"]) == ([10, 20], [0.1, 0.2], "m")
        assert (other["predictions"], other["scores"], other["model"]) == ([30], [0.3], "m")
        assert one["batchId"] == other["batchId"]


async def test_full_batches_go_beside_those_in_flight() -> None:
    async with batching(max_rows=2) as running:
        await running.busy()
        for number in (1, 3):
            await running.ask(number)
            await running.ask(number + 1)
            server = await running.behind.accept()
            assert sorted(await asked_of(server)) == [number, number + 1]


async def test_nobody_waits_longer_than_may_be() -> None:
    async with batching(max_wait_seconds=0.05) as running:
        await running.busy()
        began = asyncio.get_running_loop().time()
        await running.ask(1)
        assert await asked_of(await running.behind.accept()) == [1]
        assert asyncio.get_running_loop().time() - began >= 0.05


async def test_input_that_is_wrong_fails_its_own_request_only() -> None:
    async with batching() as running:
        _, server = await running.busy()
        good, bad = await running.ask(1), await running.ask(-1)
        await running.waits(good, bad)
        await server.send(predicted(0))
        assert sorted(await asked_of(server)) == [-1, 1]
        await server.send(failed(400))
        for peer in (server, await running.behind.accept()):
            (value,) = await asked_of(peer)
            await peer.send(predicted(10) if value > 0 else failed(400))
        assert (await told(good))[1]["predictions"] == [10]
        assert await told(bad) == (400, {"error": "no"})


async def test_any_other_failure_goes_to_each_with_its_status_headers_and_words() -> None:
    async with batching() as running:
        _, server = await running.busy()
        clients = [await running.ask(1), await running.ask(2)]
        await running.waits(*clients)
        await server.send(predicted(0))
        await asked_of(server)
        await server.send(failed(503))
        ids = set()
        for client in clients:
            first, headers, body = await client.message()
            assert (first.split()[1], headers["x-why"], body) == ("503", "this", NO)
            ids.add(headers["x-request-id"])
        assert len(ids) == 2


async def fail_together(running: Batching, server: Peer, *statuses: int) -> list[tuple[int, Any]]:
    """Return what two callers are told: their batch is answered 500, and what is asked again by ``statuses``."""
    clients = [await running.ask(1), await running.ask(2)]
    await running.waits(*clients)
    await server.send(predicted(0))
    assert sorted(await asked_of(server)) == [1, 2]
    await server.send(failed(500))
    for peer in (server, await running.behind.accept()):
        (value,) = await asked_of(peer)
        status = statuses[value - 1]
        await peer.send(predicted(value * 10) if status == 200 else failed(status))
    return [await told(client) for client in clients]


async def next_asked(running: Batching) -> tuple[Peer, Any]:
    """Return what the server is asked next, and on which of its connections."""
    asking = {asyncio.create_task(asked_of(peer)): peer for peer in running.behind.peers}
    done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    (found,) = done
    return asking[found], found.result()


async def test_one_that_makes_the_model_fail_fails_alone_and_others_go_on_together() -> None:
    async with batching() as running:
        _, server = await running.busy()
        (first, answer), (second, _) = await fail_together(running, server, 200, 500)
        assert (first, answer["predictions"], second) == (200, [10], 500)
        await running.ask(3)
        server, found = await next_asked(running)
        assert found == [3]
        await running.waits(await running.ask(4), await running.ask(5))
        await server.send(predicted(30))
        assert sorted((await next_asked(running))[1]) == [4, 5]


async def test_what_fails_alone_as_well_goes_alone_for_a_while() -> None:
    async with batching() as running:
        _, server = await running.busy()
        assert [status for status, _ in await fail_together(running, server, 500, 502)] == [500, 502]
        for value in (3, 4):
            await running.ask(value)
            assert (await next_asked(running))[1] == [value]


async def test_a_predictor_that_dies_is_told_to_each() -> None:
    async with batching() as running:
        _, server = await running.busy()
        clients = [await running.ask(1), await running.ask(2)]
        await running.waits(*clients)
        await server.send(predicted(0))
        await asked_of(server)
        server.cut()
        assert [(await told(client))[0] for client in clients] == [502, 502]


async def test_an_answer_that_cannot_be_taken_apart_has_each_asked_alone_and_no_more_together() -> None:
    async with batching() as running:
        _, server = await running.busy()
        clients = [await running.ask(1), await running.ask(2)]
        await running.waits(*clients)
        await server.send(predicted(0))
        await asked_of(server)
        await server.send(predicted(99))
        for peer in (server, await running.behind.accept()):
            (value,) = await asked_of(peer)
            await peer.send(predicted(value * 10))
        assert [(await told(client))[1]["predictions"] for client in clients] == [[10], [20]]
        for value in (3, 4):
            await running.ask(value)
        found = [await asked_of(peer) for peer in (server, running.behind.peers[1])]
        assert sorted(found) == [[3], [4]]


async def test_who_hangs_up_while_it_waits_is_not_asked_for() -> None:
    async with batching() as running:
        _, server = await running.busy()
        gone, left = await running.ask(1), await running.ask(2)
        await running.waits(gone, left)
        gone.cut()
        await until(lambda: running.gateway.connections == 2)
        await server.send(predicted(0))
        assert await asked_of(server) == [2]


async def test_a_call_that_nobody_waits_for_is_cut() -> None:
    async with batching() as running:
        _, server = await running.busy()
        clients = [await running.ask(1), await running.ask(2)]
        await running.waits(*clients)
        await server.send(predicted(0))
        await asked_of(server)
        clients[0].cut()
        await until(lambda: running.gateway.connections == 2)
        assert not server.reader.at_eof()
        clients[1].cut()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await server.read(1)
        later = await running.ask(3)
        peer = await running.behind.accept()
        assert await asked_of(peer) == [3]
        await peer.send(predicted(30))
        assert (await told(later))[1]["predictions"] == [30]


async def test_a_batch_that_takes_too_long_is_504_to_each() -> None:
    async with batching(timeout_seconds=0.05) as running:
        client, server = await running.busy()
        assert (await told(client))[0] == 504
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await server.read(1)


async def test_one_more_than_may_wait_is_429() -> None:
    async with batching(max_requests=1) as running:
        await running.busy()
        await running.waits(await running.ask(1))
        client = await running.ask(2)
        first, headers, _ = await client.message()
        assert (first.split()[1], headers["retry-after"]) == ("429", "1")


@pytest.mark.parametrize(
    ("one", "other", "are_together"),
    [
        ({"headers": (b"x-tenant: a",)}, {"headers": (b"x-tenant: b",)}, False),
        ({"headers": (b"authorization: a",)}, {}, False),
        ({"headers": (b"authorization: a",)}, {"headers": (b"authorization: a",)}, True),
        ({"headers": (b"user-agent: a", b"traceparent: b")}, {"headers": (b"accept: */*",)}, True),
        ({"headers": (b"ce-id: a",)}, {"headers": (b"ce-id: b", b"x-request-id: b")}, True),
        ({"headers": (b"content-type: application/cloudevents+json",)}, {}, False),
        ({"headers": (b"ce-specversion: 1.0", b"ce-id: a")}, {}, False),
        ({"target": b"/v1/models/m:predict?a=1"}, {}, False),
        ({"target": b"/v1/models/n:predict"}, {"target": b"/v1/models/n:predict"}, True),
    ],
)
async def test_only_what_is_asked_alike_goes_together(
    one: dict[str, Any], other: dict[str, Any], are_together: bool
) -> None:
    async with batching(max_rows=4) as running:
        targets = {how["target"].partition(b"?")[0] for how in (one, other) if "target" in how}
        if len(targets) == 1 and b"n:" in min(targets):
            await running.ask(0, target=min(targets))
            server = await running.behind.accept()
            await asked_of(server)
        else:
            _, server = await running.busy()
        clients = [await running.ask(1, **one), await running.ask(2, **other)]
        goes_alone = re.search(b"cloudevents|ce-specversion", b"".join(one.get("headers", ())))
        if goes_alone is None:
            await running.waits(*clients)
        await server.send(predicted(0))
        _, headers, body = await server.message()
        found = json.loads(body)["instances"]
        assert (sorted(found) == [1, 2]) == are_together
        if are_together and b"authorization: a" in one.get("headers", ()):
            assert headers["authorization"] == "a"


async def test_models_do_not_wait_for_one_another() -> None:
    async with batching() as running:
        await running.busy()
        await running.ask(1, target=b"/v1/models/other:predict")
        peer = await running.behind.accept()
        first, _, _ = await peer.message()
        assert first == "POST /v1/models/other:predict HTTP/1.1"


async def test_what_is_no_inference_passes_by() -> None:
    async with batching() as running:
        client = await running.behind.connect(running.gateway)
        await client.send(b"GET /v1/models/m HTTP/1.1\r\nhost: m\r\n\r\n")
        server = await running.behind.accept()
        assert (await server.head())[0] == "GET /v1/models/m HTTP/1.1"
        await server.send(ok(b"{}"))
        assert (await client.message())[2] == b"{}"


class One:
    def __init__(self, key: str, rows: int, came: float) -> None:
        self.key, self.rows, self.came = key, rows, came


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5), st.floats(0, 10)), max_size=12),
    st.booleans(),
    st.integers(1, 8),
)
def test_what_goes_is_alike_fits_and_is_in_order(
    asked: list[tuple[str, int, float]], is_free: bool, max_rows: int
) -> None:
    waiting = [One(*one) for one in sorted(asked, key=lambda one: one[2])]
    limits = BatchLimits(max_rows=max_rows, max_wait_seconds=5)
    chosen = going(waiting, limits, now=10, is_free=is_free)
    assert len({waiting[index].key for index in chosen}) <= 1
    assert len(chosen) <= 1 or sum(waiting[index].rows for index in chosen) <= max_rows
    if chosen:
        alike = [index for index, one in enumerate(waiting) if one.key == waiting[chosen[0]].key]
        assert chosen == alike[: len(chosen)]
    elif waiting:
        # All wait on: the predictor is busy, nobody is late, and no batch is full.
        assert not is_free
        assert waiting[0].came > 5
        for key in "ab":
            assert sum(one.rows for one in waiting if one.key == key) < max_rows
