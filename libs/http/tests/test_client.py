from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from servery_http.client import Client, ConnectFailed, ConnectionBroke, TimedOut
from servery_http.server import Server


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client() as client:
        yield client


class Peer:
    """A server that answers with scripted bytes, one script a connection."""

    def __init__(self) -> None:
        self.scripts: list[bytes | None] = []
        self.connections = 0
        self.received = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        self.received += await reader.readuntil(b"\r\n\r\n")
        if script is not None:
            writer.write(script)
        writer.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    async with await asyncio.start_server(peer.serve, "127.0.0.1", 0) as listener:
        peer.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"  # type: ignore[attr-defined]
        yield peer


async def test_one_connection_serves_many_requests(client: Client, server: Server) -> None:
    for index in range(3):
        response = await client.request("POST", f"{server.url}/echo", body=b"%d" % index)
        assert response.body == b"hot %d" % index
    assert len(server.server_state.connections) == 1


async def test_body_is_streamed_both_ways(client: Client, server: Server) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for index in range(5):
            yield b"%d" % index * 1000

    async with client.stream("POST", f"{server.url}/cold", body=chunks()) as response:
        body = b"".join([chunk async for chunk in response.chunks()])
    assert body.endswith(b"4" * 1000)
    assert len(body) == len(b"asgi /cold ") + 5000


async def test_nobody_listening_is_said(client: Client) -> None:
    with pytest.raises(ConnectFailed, match=r"cannot connect to 127\.0\.0\.1:1"):
        await client.request("GET", "http://127.0.0.1:1/")


async def test_answer_that_never_comes_times_out(client: Client, server: Server) -> None:
    with pytest.raises(TimedOut, match=r"no answer within 0\.05 s"):
        await client.request("POST", f"{server.url}/later", timeout_seconds=0.05)


async def test_answer_cut_off_is_no_answer(client: Client, peer: Peer) -> None:
    peer.scripts = [b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"]
    with pytest.raises(ConnectionBroke):
        await client.request("GET", peer.url)  # type: ignore[attr-defined]


async def test_body_without_a_length_ends_with_the_connection(client: Client, peer: Peer) -> None:
    peer.scripts = [b"HTTP/1.1 200 OK\r\n\r\nabc"]
    assert (await client.request("GET", peer.url)).body == b"abc"  # type: ignore[attr-defined]


async def test_interim_answers_are_passed_over(client: Client, peer: Peer) -> None:
    peer.scripts = [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"]
    response = await client.request("GET", peer.url)  # type: ignore[attr-defined]
    assert (response.status, response.body, len(response.headers)) == (200, b"a", 1)


async def test_kept_connection_that_the_server_closed_is_replaced(client: Client, peer: Peer) -> None:
    peer.scripts = [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"]
    for _ in range(3):
        assert (await client.request("GET", peer.url)).body == b"a"  # type: ignore[attr-defined]
    assert peer.connections == 3


async def test_fresh_connection_that_breaks_is_not_retried(client: Client, peer: Peer) -> None:
    peer.scripts = [None]
    with pytest.raises(ConnectionBroke):
        await client.request("POST", peer.url, body=b"x")  # type: ignore[attr-defined]
    assert peer.connections == 1


async def test_head_has_no_body(client: Client, server: Server) -> None:
    response = await client.request("HEAD", f"{server.url}/echo")
    assert (response.status, response.body) == (200, b"")


async def test_answer_to_no_question_ends_the_connection(client: Client, peer: Peer) -> None:
    peer.scripts = [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na" * 2]
    for _ in range(2):
        assert (await client.request("GET", peer.url)).body == b"a"  # type: ignore[attr-defined]
    assert peer.connections == 2


async def test_endless_headers_are_given_up(client: Client, peer: Peer) -> None:
    peer.scripts = [b"HTTP/1.1 200 OK\r\n" + b"x: %b\r\n" % (b"a" * 1000) * 300 + b"\r\n"]
    with pytest.raises(ConnectionBroke, match="headers are longer"):
        await client.request("GET", peer.url)  # type: ignore[attr-defined]


async def test_post_that_was_sent_is_not_sent_again(client: Client) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(1000):
            seen.append(head)
            if len(seen) == 2:
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na")
            if len(seen) == 3:
                break
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        assert (await client.request("POST", url, body=b"1")).body == b"a"
        with pytest.raises(ConnectionBroke):
            await client.request("POST", url, body=b"2")
        assert len(seen) == 2
        assert (await client.request("GET", url)).body == b"a"
