from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from servery_http.client import Client, ConnectFailed
from servery_http.messages import Handler, Request, Response
from servery_http.proxy import end_to_end, forward
from servery_http.server import Server


class Upstream:
    """``/events`` streams two events, the second after ``release``; ``/big`` has a length; ``/small`` echoes headers."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.given_up = asyncio.Event()
        self.seen: list[Request] = []

    def hot(self, method: str, path: str) -> Handler:
        return self.answer

    def answer(self, request: Request) -> Response:
        self.seen.append(request)
        if request.path == "/events":
            return Response(200, content_type=b"text/event-stream", stream=self.events())
        if request.path == "/big":
            return Response(200, b"x" * 1_000_000)
        return Response(201, b"small " + request.body, headers=((b"x-up", b"1"),))

    async def events(self) -> AsyncIterator[bytes]:
        try:
            yield b"data: 1\n\n"
            await self.release.wait()
            yield b"data: 2\n\n"
        finally:
            self.given_up.set()


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
async def way_in(upstream: Upstream) -> AsyncIterator[Server]:
    async with Server(upstream.hot, drain_seconds=5).running() as behind, Client() as client:

        async def pass_on(request: Request) -> Response:
            return await forward(request, behind.url, client)

        async with Server(lambda method, path: pass_on, drain_seconds=5).running() as server:
            yield server


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client() as client:
        yield client


async def test_request_and_answer_pass_without_what_concerns_one_connection(
    client: Client, way_in: Server, upstream: Upstream
) -> None:
    headers = [
        (b"connection", b"x-mine"),
        (b"x-mine", b"1"),
        (b"x-yours", b"2"),
        (b"te", b"trailers"),
        (b"host", b"a.b"),
    ]
    answer = await client.request("POST", f"{way_in.url}/small?q=1", headers=headers, body=b"hi")
    assert (answer.status, answer.body) == (201, b"small hi")
    assert (b"x-up", b"1") in answer.headers
    (request,) = upstream.seen
    assert (request.method, request.path, request.query) == ("POST", "/small", b"q=1")
    assert {name for name, _ in request.headers} == {b"x-yours", b"host", b"content-length"}
    assert (b"host", b"a.b") in request.headers


async def test_event_is_passed_before_the_next_one_exists(client: Client, way_in: Server, upstream: Upstream) -> None:
    async with client.stream("GET", f"{way_in.url}/events") as answer:
        chunks = answer.chunks()
        assert await asyncio.wait_for(anext(chunks), 10) == b"data: 1\n\n"
        upstream.release.set()
        assert await asyncio.wait_for(anext(chunks), 10) == b"data: 2\n\n"
        assert await anext(chunks, None) is None
    assert (b"content-type", b"text/event-stream") in answer.headers


async def test_client_that_goes_away_ends_the_stream_upstream(
    client: Client, way_in: Server, upstream: Upstream
) -> None:
    async with client.stream("GET", f"{way_in.url}/events") as answer:
        chunks = answer.chunks()
        await anext(chunks)
        await chunks.aclose()
    await asyncio.wait_for(upstream.given_up.wait(), 10)


async def test_long_answer_keeps_its_length_and_the_connection(client: Client, way_in: Server) -> None:
    for _ in range(2):
        answer = await client.request("GET", f"{way_in.url}/big")
        assert answer.body == b"x" * 1_000_000
        assert [value for name, value in answer.headers if name == b"content-length"] == [b"1000000"]
    assert len(way_in.server_state.connections) == 1


async def test_head_keeps_the_length_that_get_would_have(client: Client, way_in: Server) -> None:
    answer = await client.request("HEAD", f"{way_in.url}/big")
    assert (answer.body, dict(answer.headers)[b"content-length"]) == (b"", b"1000000")


async def test_upstream_that_does_not_listen_is_said(client: Client) -> None:
    with pytest.raises(ConnectFailed):
        await forward(Request("GET", "/", b"", [], b""), "http://127.0.0.1:1", client)


def test_headers_that_connection_names_are_dropped() -> None:
    headers = [(b"connection", b"close, X-One"), (b"x-one", b"1"), (b"transfer-encoding", b"chunked"), (b"a", b"b")]
    assert end_to_end(headers) == ((b"a", b"b"),)
