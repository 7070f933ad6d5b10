"""Calls over HTTP/2 go through the same gate as requests do: as many at once, as many that wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pytest
from behind import Peer, listening, post
from servery_http.address import Address
from servery_http.gateway.gate import Gate
from servery_http.gateway.limits import GatewayLimits
from servery_http.gateway.server import Gateway
from waiting import PATIENCE_SECONDS, until

MEBIBYTE = 1024 * 1024


@dataclass
class Slow(grpc.GenericRpcHandler):
    """Answers each call with the length of its message, once it is told to; health at once."""

    asked: list[int] = field(default_factory=list)
    may: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if call.method.startswith("/grpc.health"):
            return grpc.unary_unary_rpc_method_handler(self.tell)
        return grpc.unary_unary_rpc_method_handler(self.answer)

    async def answer(self, message: bytes, _context: object) -> bytes:
        self.asked.append(len(message))
        await self.may.acquire()
        return b"%d" % len(message)

    async def tell(self, _message: bytes, _context: object) -> bytes:
        return b"well"


@dataclass
class Both:
    """A gateway with a channel through it, and who is behind."""

    slow: Slow
    gateway: Gateway
    channel: grpc.aio.Channel
    told: list[str]

    def call(self, size: int = 1, method: str = "/s/M") -> asyncio.Task[bytes]:
        async def asked() -> bytes:
            answer: bytes = await self.channel.unary_unary(method)(b"x" * size, timeout=PATIENCE_SECONDS)
            return answer

        return asyncio.create_task(asked())


@contextlib.asynccontextmanager
async def both(most: int, most_waiting: int, queue_seconds: float = 60.0) -> AsyncIterator[Both]:
    slow, told = Slow(), list[str]()
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1),))
    server.add_generic_rpc_handlers((slow,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with listening() as behind:
        gateway = Gateway(
            behind.address,
            rpc_upstream=Address(port=port),
            gate=Gate(most, most_waiting),
            limits=GatewayLimits(queue_seconds=queue_seconds),
            observe_call=lambda status, seconds: told.append(status),
        )
        async with (
            gateway.running(drain_seconds=0),
            grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
        ):
            yield Both(slow, gateway, channel, told)
    await server.stop(None)


async def test_no_more_calls_than_may_are_behind_and_the_rest_go_in_turn() -> None:
    async with both(2, 10) as one:
        calls = [one.call(size) for size in (1, 2, 3, 4)]
        await until(lambda: one.gateway.gate.waiting == 2 and len(one.slow.asked) == 2)
        assert (one.gateway.gate.inside, one.gateway.busy) == (2, 4)
        one.slow.may.release()
        await until(lambda: len(one.slow.asked) == 3)
        assert one.gateway.gate.inside == 2
        for _ in calls:
            one.slow.may.release()
        assert sorted(await asyncio.gather(*calls)) == [b"1", b"2", b"3", b"4"]
        assert (one.gateway.gate.inside, one.gateway.gate.waiting, one.told) == (0, 0, ["OK"] * 4)


async def test_one_more_than_may_wait_is_resource_exhausted_and_one_that_waits_too_long_unavailable() -> None:
    async with both(1, 1, queue_seconds=0.2) as one:
        first = one.call()
        await until(lambda: one.gateway.gate.inside == 1)
        second = one.call()
        await until(lambda: one.gateway.gate.waiting == 1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await one.call()
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await second
        assert late.value.code() is grpc.StatusCode.UNAVAILABLE
        one.slow.may.release()
        assert await first == b"1"
        assert sorted(one.told) == ["OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE"]


async def test_requests_and_calls_share_the_gate() -> None:
    async with both(1, 10) as one:
        call = one.call()
        await until(lambda: one.gateway.gate.inside == 1)
        client = Peer(*await asyncio.open_connection("127.0.0.1", one.gateway.port))
        await client.send(post(b"1"))
        await until(lambda: one.gateway.gate.waiting == 1)
        one.slow.may.release()
        assert await call == b"1"
        await until(lambda: (one.gateway.gate.inside, one.gateway.gate.waiting) == (1, 0))
        client.cut()
        await until(lambda: one.gateway.gate.inside == 0)


async def test_call_that_is_given_up_makes_room_wherever_it_is() -> None:
    async with both(1, 10) as one:
        first = one.call(1)
        await until(lambda: one.slow.asked == [1])
        second = one.call(2)
        await until(lambda: one.gateway.gate.waiting == 1)
        third = one.call(3)
        await until(lambda: one.gateway.gate.waiting == 2)
        second.cancel()
        await until(lambda: one.gateway.gate.waiting == 1)
        first.cancel()
        await until(lambda: one.slow.asked == [1, 3])
        one.slow.may.release()
        one.slow.may.release()
        assert await third == b"3"
        assert (one.gateway.gate.inside, sorted(one.told)) == (0, ["CANCELLED", "CANCELLED", "OK"])


async def test_connection_that_ends_leaves_no_place_taken() -> None:
    async with both(1, 10) as one:
        calls = [one.call(size) for size in (1, 2, 3)]
        await until(lambda: one.gateway.gate.waiting == 2)
        await one.channel.close()
        await until(
            lambda: (one.gateway.gate.inside, one.gateway.gate.waiting, one.gateway.gate.held_bytes) == (0, 0, 0)
        )
        await asyncio.gather(*calls, return_exceptions=True)


async def test_long_bodies_wait_in_bounded_memory_and_arrive_whole() -> None:
    size = 3 * MEBIBYTE
    async with both(1, 40) as one:
        calls = [one.call(size) for _ in range(30)]
        await until(lambda: one.gateway.gate.waiting == 29 and one.gateway.gate.held_bytes == 29 * MEBIBYTE)
        for _ in calls:
            one.slow.may.release()
        assert await asyncio.gather(*calls) == [b"%d" % size] * 30
        assert (one.gateway.gate.held_bytes, one.gateway.gate.inside) == (0, 0)


async def test_health_is_asked_of_a_server_that_has_no_room() -> None:
    async with both(1, 0) as one:
        call = one.call()
        await until(lambda: one.gateway.gate.inside == 1)
        assert await one.call(method="/grpc.health.v1.Health/Check") == b"well"
        one.slow.may.release()
        assert await call == b"1"
