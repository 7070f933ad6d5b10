"""Unary calls of our own, to our own server, to other people's, and to what speaks no HTTP/2."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
from behind import listening
from servery_http.address import Address
from servery_http.rpc.calls import Answer, Done, Failure, Outcome, Status
from servery_http.rpc.client import RpcChannel, Unsent, block_of
from servery_http.rpc.server import RpcServer
from waiting import until

PATIENCE_SECONDS = 20


class Site:
    """Calls of a server: ``Echo`` at once, ``Later`` never, ``Refused`` in odd letters."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.given_up = asyncio.Event()
        self.handlers = {b"/a/Echo": lambda message, done: done(message), b"/a/Later": self.later, b"/a/No": self.no}
        self.handlers |= {b"/a/Marked": self.marked, b"/a/MarkedNo": self.marked_no}

    def later(self, message: bytes, done: Done) -> Callable[[], None]:
        self.entered.set()
        return self.given_up.set

    def marked(self, message: bytes, done: Done) -> None:
        done(Answer(message, ((b"x-model", b"m"),), ((b"x-cost-bin", b"AQI"),)))

    def marked_no(self, message: bytes, done: Done) -> None:
        done(Failure(Status.INTERNAL, "no", ((b"grpc-status-details-bin", b"CA0"),)))

    def no(self, message: bytes, done: Done) -> None:
        raise Failure(Status.PERMISSION_DENIED, "not \u00fcber 100 %")


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[tuple[Site, RpcServer]]:
    made = Site()
    async with RpcServer(made.handlers, tmp_path / "nobody.sock").running(drain_seconds=0) as server:
        yield made, server


def channel_to(port: int, probe: bytes = b"/a/Echo") -> RpcChannel:
    return RpcChannel(Address(port=port), probe=probe, max_message_bytes=4_000_000)


async def ask(channel: RpcChannel, path: bytes, message: bytes = b"") -> Outcome:
    answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    channel.ask(block_of(path), message, answered.set_result)
    return await asyncio.wait_for(answered, PATIENCE_SECONDS)


@pytest.mark.parametrize("size", [0, 5, 100_000, 3_999_999])
async def test_messages_of_any_size_come_back(site: tuple[Site, RpcServer], size: int) -> None:
    channel = channel_to(site[1].port)
    assert await ask(channel, b"/a/Echo", bytes(size)) == bytes(size)
    channel.close()


async def test_many_calls_share_a_connection(site: tuple[Site, RpcServer]) -> None:
    channel = channel_to(site[1].port)
    messages = [b"%d" % number for number in range(200)]
    assert await asyncio.gather(*[ask(channel, b"/a/Echo", message) for message in messages]) == messages
    assert len(site[1]._connections) == 1
    channel.close()


async def test_failure_keeps_its_status_and_every_letter(site: tuple[Site, RpcServer]) -> None:
    channel = channel_to(site[1].port)
    failure = await ask(channel, b"/a/No")
    assert isinstance(failure, Failure)
    assert (failure.status, str(failure)) == (Status.PERMISSION_DENIED, "not \u00fcber 100 %")
    channel.close()


async def test_metadata_comes_back_before_and_after_a_message_and_with_a_failure(site: tuple[Site, RpcServer]) -> None:
    channel = channel_to(site[1].port)
    marked = Answer(b"m", ((b"x-model", b"m"),), ((b"x-cost-bin", b"AQI"),))
    assert await ask(channel, b"/a/Marked", b"m") == marked
    failure = await ask(channel, b"/a/MarkedNo")
    assert isinstance(failure, Failure)
    assert (failure.status, failure.trailers) == (Status.INTERNAL, ((b"grpc-status-details-bin", b"CA0"),))
    channel.close()


async def test_answer_beyond_the_limit_is_refused(site: tuple[Site, RpcServer]) -> None:
    channel = channel_to(site[1].port)
    failure = await ask(channel, b"/a/Echo", bytes(4_000_001))
    assert isinstance(failure, Failure)
    assert failure.status is Status.RESOURCE_EXHAUSTED
    assert await ask(channel, b"/a/Echo", b"still") == b"still"
    channel.close()


async def test_call_that_is_given_up_is_given_up_there(site: tuple[Site, RpcServer]) -> None:
    channel = channel_to(site[1].port)
    outcomes: list[bytes | Failure] = []
    give_up = channel.ask(block_of(b"/a/Later"), b"", outcomes.append)
    await asyncio.wait_for(site[0].entered.wait(), PATIENCE_SECONDS)
    give_up()
    await asyncio.wait_for(site[0].given_up.wait(), PATIENCE_SECONDS)
    assert outcomes == []
    channel.close()


async def test_server_that_goes_away_is_told_and_asked_again_on_a_new_connection(
    site: tuple[Site, RpcServer],
) -> None:
    channel = channel_to(site[1].port)
    answered = asyncio.ensure_future(ask(channel, b"/a/Later"))
    await asyncio.wait_for(site[0].entered.wait(), PATIENCE_SECONDS)
    for connection in tuple(site[1]._connections):
        connection.abort()
    failure = await answered
    assert isinstance(failure, Failure)
    assert not isinstance(failure, Unsent)
    assert failure.status is Status.UNAVAILABLE
    assert await ask(channel, b"/a/Echo", b"again") == b"again"
    channel.close()


async def test_nobody_there_has_seen_nothing(site: tuple[Site, RpcServer]) -> None:
    await site[1].stop(0)
    channel = channel_to(site[1].port)
    assert isinstance(await ask(channel, b"/a/Echo"), Unsent)
    assert not channel.is_spoken
    channel.close()


async def test_what_speaks_http1_has_seen_nothing() -> None:
    async with listening() as behind:
        channel = channel_to(behind.port)
        answered = asyncio.ensure_future(ask(channel, b"/a/Echo"))
        peer = await behind.accept()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        peer.cut()
        assert isinstance(await answered, Failure)
        assert not channel.is_spoken
        channel.close()


@pytest.mark.parametrize(("probe", "is_spoken"), [(b"/a/Echo", True), (b"/a/No", False)])
async def test_whether_it_is_spoken_is_found_out_beside(
    site: tuple[Site, RpcServer], probe: bytes, is_spoken: bool
) -> None:
    channel = channel_to(site[1].port, probe)
    assert not channel.is_spoken
    # Calls of one connection are answered in order here: the probe's answer is known when this one's is.
    await ask(channel, b"/a/Echo")
    assert channel.is_spoken is is_spoken
    channel.close()


async def test_grpcio_answers_as_well() -> None:
    server = grpc.aio.server()

    async def echo(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if request == b"no":
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, "far")
        return request

    method = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"Echo": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = channel_to(port)
    assert await ask(channel, b"/a/Echo", bytes(300_000)) == bytes(300_000)
    failure = await ask(channel, b"/a/Echo", b"no")
    assert isinstance(failure, Failure)
    assert (failure.status, str(failure)) == (Status.OUT_OF_RANGE, "far")
    missing = await ask(channel, b"/a/Missing")
    assert isinstance(missing, Failure)
    assert missing.status is Status.UNIMPLEMENTED
    assert channel.is_spoken is False
    await until(lambda: channel.is_spoken)
    channel.close()
    await server.stop(0)
