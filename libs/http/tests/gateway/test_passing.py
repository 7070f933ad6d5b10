"""Requests that pass by: what goes on, what comes back, in which pieces, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from behind import Behind, Peer, ok, post
from servery_http.address import Address
from servery_http.gateway.downstream import Downstream
from servery_http.gateway.gate import Gate
from servery_http.gateway.limits import GatewayLimits
from servery_http.gateway.routes import Route
from servery_http.gateway.server import Gateway
from servery_http.gateway.upstream import Upstream
from servery_http.messages import Later, Request, Response
from waiting import until

LIMITS = GatewayLimits(max_body_bytes=100_000)


# What goes on, and what comes back.


async def test_request_and_answer_pass_whole(client: Peer, behind: Behind, notes: Any) -> None:
    await client.send(post(b'{"a":1}', b"X-Mine: \t Two  words ", b"traceparent: 00-1-2-01", target=b"/p/%20?q=1&r"))
    server = await behind.accept()
    first, headers, body = await server.message()
    assert (first, body) == ("POST /p/%20?q=1&r HTTP/1.1", b'{"a":1}')
    made = headers.pop("x-request-id")
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert headers == {
        "host": "m",
        "x-mine": "\t Two  words ",
        "traceparent": "00-1-2-01",
        "content-length": "7",
        "x-forwarded-for": "127.0.0.1",
    }
    await server.send(b"HTTP/1.1 418 Short And Stout\r\ncontent-length: 3\r\nServer: it\r\n\r\nyes")
    first, headers, body = await client.message()
    assert (first, body) == ("HTTP/1.1 418 Short And Stout", b"yes")
    assert headers == {"content-length": "3", "server": "it", "x-request-id": made}
    assert notes.statuses == [418]


async def test_request_id_and_forwarders_that_came_are_kept(client: Peer, behind: Behind) -> None:
    await client.send(post(b"", b"x-request-id: mine", b"X-Forwarded-For: 10.0.0.1", b"x-forwarded-for: 10.0.0.2"))
    server = await behind.accept()
    _, headers, _ = await server.message()
    assert headers["x-request-id"] == "mine"
    assert headers["x-forwarded-for"] == "10.0.0.1, 10.0.0.2, 127.0.0.1"
    await server.send(ok(b"", b"x-request-id: its own"))
    _, headers, _ = await client.message()
    assert headers["x-request-id"] == "its own"


async def test_what_concerns_one_connection_goes_no_further(client: Peer, behind: Behind) -> None:
    of_one = (
        b"te: gzip;q=0.5",
        b"keep-alive: 5",
        b"proxy-connection: a",
        b"upgrade: h2c",
        b"http2-settings: a",
    )
    await client.send(
        post(b"b", b"Connection: X-Mine, http2-settings, upgrade, content-length, host", b"x-mine: 1", *of_one)
    )
    server = await behind.accept()
    _, headers, body = await server.message()
    assert headers.keys() == {"host", "content-length", "x-forwarded-for", "x-request-id"}
    assert body == b"b"
    await server.send(ok(b"c", b"connection: x-two, keep-alive", b"x-two: 2", b"keep-alive: timeout=5"))
    _, headers, body = await client.message()
    assert (headers.keys(), body) == ({"content-length", "x-request-id"}, b"c")


_CHUNKED = b"transfer-encoding: chunked"


@pytest.mark.parametrize("at_once", [True, False], ids=["in one piece", "bit by bit"])
async def test_trailers_pass_both_ways_to_who_takes_them(client: Peer, behind: Behind, *, at_once: bool) -> None:
    head = post(b"", _CHUNKED, b"TE: trailers, gzip", b"Trailer: x-sum", length=False)
    body, end = b"2\r\nab\r\n", b"0\r\nX-Sum: 7\r\ncontent-length: 1\r\nHost: other\r\nx-b:\r\n\r\n"
    await client.send(head + body + (end if at_once else b""))
    server = await behind.accept()
    _, headers = await server.head()
    assert (headers["te"], headers["connection"], headers["trailer"]) == ("trailers", "te", "x-sum")
    assert await server.read(7) == body
    if not at_once:
        await client.send(end)
    assert await server.until(b"\r\n\r\n") == b"0\r\nX-Sum: 7\r\nx-b:\r\n\r\n"
    answer = b"HTTP/1.1 200 OK\r\ntrailer: x-end\r\n" + _CHUNKED + b"\r\n\r\n1\r\nc\r\n"
    await server.send(answer + (b"0\r\nx-end: 1\r\nset-cookie: a\r\n\r\n" if at_once else b""))
    _, headers = await client.head()
    assert headers["trailer"] == "x-end"
    assert await client.read(6) == b"1\r\nc\r\n"
    if not at_once:
        await server.send(b"0\r\nx-end: 1\r\nset-cookie: a\r\n\r\n")
    assert await client.until(b"\r\n\r\n") == b"0\r\nx-end: 1\r\n\r\n"
    # The connections are where they were: the next exchange is read right.
    await client.send(post(b"next"))
    assert (await server.message())[2] == b"next"
    await server.send(ok(b"right"))
    assert (await client.message())[2] == b"right"


async def test_trailers_are_left_out_for_who_does_not_take_them(client: Peer, behind: Behind) -> None:
    await client.send(post(b""))
    server = await behind.accept()
    _, headers, _ = await server.message()
    assert "te" not in headers
    await server.send(b"HTTP/1.1 200 OK\r\n" + _CHUNKED + b"\r\n\r\n1\r\nc\r\n0\r\nx-end: 1\r\n\r\n")
    await client.head()
    assert await client.until(b"\r\n\r\n") == b"1\r\nc\r\n0\r\n\r\n"


async def test_connections_are_kept_on_both_sides(gateway: Gateway, client: Peer, behind: Behind) -> None:
    await client.send(post(b"1"))
    server = await behind.accept()
    for body in (b"1", b"2", b"3"):
        assert (await server.message())[2] == body
        await server.send(ok(body))
        assert (await client.message())[2] == body
        if body != b"3":
            await client.send(post(b"%d" % (int(body) + 1)))
    assert behind.connections.empty()


async def test_pipelined_requests_are_answered_in_their_order(client: Peer, behind: Behind) -> None:
    await client.send(post(b"1") + post(b"2", target=b"/two") + b"GET /three HTTP/1.1\r\nhost: m\r\n\r\n")
    server = await behind.accept()
    for body in (b"1", b"2", b""):
        assert (await server.message())[2] == body
        await server.send(ok(b"of " + body))
    assert [(await client.message())[2] for _ in range(3)] == [b"of 1", b"of 2", b"of "]


async def test_a_thousand_pipelined_requests_that_are_refused_one_by_one_do_not_run_deep(behind: Behind) -> None:
    gate = Gate(1, 0)
    async with Gateway(behind.address, gate=gate).running(drain_seconds=0) as gateway:
        holds, asks = await behind.connect(gateway), await behind.connect(gateway)
        await holds.send(post(b""))
        server = await behind.accept()
        await server.message()
        await asks.send(post(b"") * 1000)
        assert {(await asks.message())[0] for _ in range(1000)} == {"HTTP/1.1 429 Too Many Requests"}
        await server.send(ok(b""))
        await holds.message()


async def test_bytes_that_come_one_by_one_are_a_request_all_the_same(client: Peer, behind: Behind) -> None:
    request = post(b"", b"transfer-encoding: chunked", length=False) + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nt: 1\r\n\r\n"
    for byte in b"\r\n" + request:
        await client.send(bytes([byte]))
    server = await behind.accept()
    _, headers, body = await server.message()
    assert (headers["transfer-encoding"], body) == ("chunked", b"abcde")
    for byte in b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nwiki\r\n0\r\n\r\n":
        await server.send(bytes([byte]))
    assert (await client.message())[2] == b"wiki"
    await client.send(post(b"again"))
    assert (await server.message())[2] == b"again"


@pytest.mark.parametrize(
    ("method", "answer", "expected"),
    [
        pytest.param(b"HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", {"content-length": "5"}, id="HEAD"),
        pytest.param(b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", {}, id="no content"),
        pytest.param(
            b"GET",
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
            {"content-length": "5"},
            id="not modified",
        ),
        pytest.param(b"GET", b"HTTP/1.1 404\r\ncontent-length: 0\r\n\r\n", {"content-length": "0"}, id="no reason"),
    ],
)
async def test_answer_without_a_body(
    client: Peer, behind: Behind, method: bytes, answer: bytes, expected: dict[str, str]
) -> None:
    await client.send(method + b" / HTTP/1.1\r\nhost: m\r\n\r\n")
    server = await behind.accept()
    await server.head()
    await server.send(answer)
    _, headers = await client.head()
    del headers["x-request-id"]
    assert headers == expected
    await client.send(post(b"next"))
    assert (await server.message())[2] == b"next"


async def test_answer_that_ends_with_its_connection_comes_in_chunks(client: Peer, behind: Behind) -> None:
    await client.send(post(b""))
    server = await behind.accept()
    await server.message()
    await server.send(b"HTTP/1.0 200 OK\r\n\r\nuntil ")
    _, headers = await client.head()
    assert headers["transfer-encoding"] == "chunked"
    await server.send(b"the end")
    server.writer.close()
    assert await client.chunks() == b"until the end"
    await client.send(post(b"again"))
    assert (await (await behind.accept()).message())[2] == b"again"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", id="chunks"
        ),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nabcde", id="until the end"),
    ],
)
async def test_client_of_http_1_0_gets_no_chunks(client: Peer, behind: Behind, answer: bytes) -> None:
    await client.send(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    server = await behind.accept()
    assert (await server.head())[0] == "GET / HTTP/1.1"
    await server.send(answer)
    if answer.startswith(b"HTTP/1.0"):
        server.writer.close()
    _, headers = await client.head()
    assert (headers["connection"], "transfer-encoding" in headers) == ("close", False)
    assert await client.rest() == b"abcde"


async def test_client_of_http_1_0_may_keep_its_connection(client: Peer, behind: Behind) -> None:
    await client.send(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
    server = await behind.accept()
    await server.head()
    await server.send(ok(b"x"))
    _, headers, _ = await client.message()
    assert headers["connection"] == "keep-alive"


@pytest.mark.parametrize("asks", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nhost: m\r\nconnection: close\r\n\r\n"])
async def test_connection_that_the_client_wants_closed_is(client: Peer, behind: Behind, asks: bytes) -> None:
    await client.send(asks)
    server = await behind.accept()
    await server.head()
    await server.send(ok(b"x"))
    _, headers, body = await client.message()
    assert (headers["connection"], body, await client.rest()) == ("close", b"x", b"")


async def test_server_that_closes_is_connected_to_anew(client: Peer, behind: Behind) -> None:
    for body in (b"1", b"2"):
        await client.send(post(body))
        server = await behind.accept()
        assert (await server.message())[2] == body
        await server.send(ok(body, b"connection: close"))
        _, headers, answer = await client.message()
        assert ("connection" in headers, answer) == (False, body)


# Streams.


async def test_pieces_pass_as_they_come_both_ways_at_once(client: Peer, behind: Behind) -> None:
    await client.send(post(b"", b"transfer-encoding: chunked", length=False))
    server = await behind.accept()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    _, headers = await client.head()
    assert headers["content-type"] == "text/event-stream"
    for piece in (b"one", b"two"):
        await client.send(b"3\r\n%b\r\n" % piece)
        assert await server.read(8) == b"3\r\n%b\r\n" % piece
        await server.send(b"6\r\ndata: \r\n")
        assert await client.read(11) == b"6\r\ndata: \r\n"
    await client.send(b"0\r\n\r\n")
    assert await server.read(5) == b"0\r\n\r\n"
    await server.send(b"0\r\n\r\n")
    assert await client.read(5) == b"0\r\n\r\n"


async def test_body_is_passed_before_it_is_complete(client: Peer, behind: Behind) -> None:
    await client.send(post(b"", b"content-length: 6", length=False) + b"abc")
    server = await behind.accept()
    await server.head()
    assert await server.read(3) == b"abc"
    await client.send(b"def")
    assert await server.read(3) == b"def"


async def test_continue_is_the_servers_to_say(client: Peer, behind: Behind) -> None:
    await client.send(post(b"", b"Expect: 100-Continue", b"content-length: 3", length=False))
    server = await behind.accept()
    _, headers = await server.head()
    assert headers["expect"] == "100-continue"
    await server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.head())[0] == "HTTP/1.1 100 Continue"
    await client.send(b"abc")
    assert await server.read(3) == b"abc"
    await server.send(b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n" + ok(b"done"))
    assert (await client.head())[1] == {"link": "a"}
    assert (await client.message())[2] == b"done"


async def test_refusal_before_the_body_reaches_its_client_and_closes(client: Peer, behind: Behind) -> None:
    await client.send(post(b"", b"expect: 100-continue", b"content-length: 3", length=False))
    server = await behind.accept()
    await server.head()
    await server.send(b"HTTP/1.1 413 Too Long\r\ncontent-length: 2\r\n\r\nno")
    first, headers, body = await client.message()
    assert (first, headers["connection"], body) == ("HTTP/1.1 413 Too Long", "close", b"no")
    assert await client.rest() == b""
    # Half a request was sent there: that connection can serve no other.
    assert await server.rest() == b""


async def test_switched_connection_is_a_tunnel(client: Peer, behind: Behind, notes: Any) -> None:
    asks = b"GET /ws HTTP/1.1\r\nhost: m\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nsec-websocket-key: k\r\n\r\n"
    await client.send(asks + b"early")
    server = await behind.accept()
    _, headers = await server.head()
    assert (headers["connection"], headers["upgrade"], headers["sec-websocket-key"]) == ("upgrade", "websocket", "k")
    await server.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello")
    first, headers = await client.head()
    assert (first, headers["upgrade"]) == ("HTTP/1.1 101 Switching Protocols", "websocket")
    assert (await client.read(5), await server.read(5)) == (b"hello", b"early")
    await client.send(b"\x81\x00")
    assert await server.read(2) == b"\x81\x00"
    client.writer.write_eof()
    assert await server.rest() == b""
    await server.send(b"last words")
    server.writer.close()
    assert await client.rest() == b"last words"


async def test_upgrade_that_is_not_granted_is_an_ordinary_request(client: Peer, behind: Behind) -> None:
    await client.send(b"GET /ws HTTP/1.1\r\nhost: m\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    server = await behind.accept()
    await server.head()
    await server.send(ok(b"plain"))
    assert (await client.message())[2] == b"plain"
    await client.send(post(b"next"))
    assert (await server.message())[2] == b"next"


# What is refused.


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        pytest.param(post(b"abc", b"content-length: 4"), 400, id="two lengths"),
        pytest.param(post(b"abc", b"content-length: 3"), 400, id="the same length twice"),
        pytest.param(post(b"abc", b"content-length: 3, 3", length=False), 400, id="a list of lengths"),
        pytest.param(post(b"abc", b"content-length: +3", length=False), 400, id="a length with a sign"),
        pytest.param(post(b"abc", b"content-length: 0x3", length=False), 400, id="a length in hex"),
        pytest.param(post(b"abc", b"content-length:", length=False), 400, id="an empty length"),
        pytest.param(post(b"abc", b"content-length: -3", length=False), 400, id="a negative length"),
        pytest.param(post(b"abc", b"transfer-encoding: chunked"), 400, id="a length and chunks"),
        pytest.param(post(b"", b"transfer-encoding: gzip, chunked", length=False), 400, id="chunks of something"),
        pytest.param(post(b"", b"transfer-encoding: xchunked", length=False), 400, id="nearly chunks"),
        pytest.param(post(b"", b"transfer-encoding: \x0bchunked", length=False), 400, id="a vertical tab"),
        pytest.param(
            post(b"", b"transfer-encoding: chunked", b"transfer-encoding: chunked", length=False),
            400,
            id="chunks twice",
        ),
        pytest.param(post(b"", b"transfer-encoding : chunked", length=False), 400, id="a space before the colon"),
        pytest.param(post(b"", b"x: 1\r\n transfer-encoding: chunked", length=False), 400, id="a folded line"),
        pytest.param(post(b"", b"x: 1\ntransfer-encoding: chunked", length=False), 400, id="a bare line feed"),
        pytest.param(post(b"", b"x: 1\rtransfer-encoding: chunked", length=False), 400, id="a bare carriage return"),
        pytest.param(post(b"", b"x: \0"), 400, id="a zero"),
        pytest.param(post(b"", b": empty"), 400, id="no name"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
        pytest.param(post(b"", b"host: other"), 400, id="two hosts"),
        pytest.param(b"GET /a b HTTP/1.1\r\nhost: m\r\n\r\n", 400, id="a space in the target"),
        pytest.param(b"GET / HTTP/1.2\r\nhost: m\r\n\r\n", 400, id="another version"),
        pytest.param(b"GET /\r\n\r\n", 400, id="HTTP/0.9"),
        pytest.param(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n", 400, id="chunks of HTTP/1.0"),
        pytest.param(b"CONNECT m:1 HTTP/1.1\r\nhost: m\r\n\r\n", 405, id="CONNECT"),
        pytest.param(post(b"", b"expect: miracles"), 417, id="another expectation"),
        pytest.param(post(b"", b"x: " + b"y" * 65536), 431, id="long headers"),
        pytest.param(b"GET /" + b"y" * 70_000, 431, id="a line without an end"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, id="TLS"),
    ],
)
async def test_request_that_can_be_read_in_two_ways_is_refused(
    client: Peer, behind: Behind, notes: Any, request_bytes: bytes, status: int
) -> None:
    await client.send(request_bytes)
    first, headers, body = await client.message()
    assert (first.split()[1], headers["connection"]) == (str(status), "close")
    assert b'"error"' in body
    assert await client.rest() == b""
    assert behind.connections.empty()
    assert notes.statuses == [status]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(b"3\nabc\r\n0\r\n\r\n", id="a bare line feed"),
        pytest.param(b"3\r\nabcd\r\n0\r\n\r\n", id="longer than it says"),
        pytest.param(b"3\r\nabc0\r\n\r\n", id="no line's end after it"),
        pytest.param(b"0x3\r\nabc\r\n0\r\n\r\n", id="a prefix"),
        pytest.param(b"-3\r\nabc\r\n0\r\n\r\n", id="a sign"),
        pytest.param(b" 3\r\nabc\r\n0\r\n\r\n", id="a space before"),
        pytest.param(b"3 \r\nabc\r\n0\r\n\r\n", id="a space behind"),
        pytest.param(b"3_0\r\nabc\r\n0\r\n\r\n", id="Python's own digits"),
        pytest.param(b"ffffffffffffffff3\r\nabc", id="more than fits"),
        pytest.param(b"3;a\n0\r\nabc\r\n0\r\n\r\n", id="a line feed in an extension"),
        pytest.param(b"3;" + b"a" * 5000, id="a long extension"),
        pytest.param(b"\r\n", id="no size"),
        pytest.param(b"0\r\nGET / HTTP/1.1\r\n\r\n", id="a request for a trailer"),
        pytest.param(b"0\r\na: b\n\r\n", id="a trailer's bare line feed"),
        pytest.param(b"0\r\n" + b"a: b\r\n" * 5000, id="trailers without end"),
    ],
)
async def test_chunks_that_can_be_read_in_two_ways_are_refused(client: Peer, behind: Behind, chunks: bytes) -> None:
    await client.send(post(b"", b"transfer-encoding: chunked", length=False))
    server = await behind.accept()
    await server.head()
    await client.send(chunks)
    first, headers, _ = await client.message()
    assert (first, headers["connection"]) == ("HTTP/1.1 400 Bad Request", "close")
    # It never hears of an end, and what follows the body is not passed on.
    assert b"\r\n0\r\n" not in b"\r\n" + await server.rest()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", id="two lengths"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", id="a length and chunks"
        ),
        pytest.param(b"HTTP/2 200\r\n\r\n", id="another version"),
        pytest.param(b"HTTP/1.1 99 Low\r\n\r\n", id="a strange status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n", id="a space before the colon"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: it\r\n\r\n", id="a switch that nobody asked for"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another protocol"),
        pytest.param(b"x" * 300_000, id="a head without an end"),
    ],
)
async def test_answer_that_can_be_read_in_two_ways_is_a_502(client: Peer, behind: Behind, answer: bytes) -> None:
    await client.send(post(b"x"))
    server = await behind.accept()
    await server.message()
    await server.send(answer)
    first, headers, body = await client.message()
    assert first == "HTTP/1.1 502 Bad Gateway"
    assert b"the predictor" in body
    # The client did nothing wrong: its connection goes on.
    assert "connection" not in headers
    await client.send(post(b"next"))
    assert (await (await behind.accept()).message())[2] == b"next"


async def test_answer_to_no_question_is_never_taken_for_one(client: Peer, behind: Behind) -> None:
    await client.send(post(b"1"))
    server = await behind.accept()
    await server.message()
    await server.send(ok(b"right") + ok(b"WRONG"))
    assert (await client.message())[2] == b"right"
    await client.send(post(b"2"))
    fresh = await behind.accept()
    assert (await fresh.message())[2] == b"2"
    await fresh.send(ok(b"right too"))
    assert (await client.message())[2] == b"right too"


# The gate.


async def test_only_so_many_are_with_the_server_at_once(behind: Behind, notes: Any) -> None:
    gate = Gate(2, 1)
    async with Gateway(behind.address, gate=gate, observe=notes.observe).running(drain_seconds=0) as gateway:
        clients = [await behind.connect(gateway) for _ in range(4)]
        servers = []
        for number in (0, 1):
            await clients[number].send(post(b"%d" % number))
            servers.append(await behind.accept())
            assert (await servers[number].message())[2] == b"%d" % number
        await clients[2].send(post(b"2"))
        await until(lambda: gate.waiting == 1)
        await clients[3].send(post(b"3"))
        first, headers, body = await clients[3].message()
        assert (first, headers["retry-after"]) == ("HTTP/1.1 429 Too Many Requests", "1")
        assert b"1 requests wait" in body
        assert (gate.inside, gate.waiting) == (2, 1)
        await servers[1].send(ok(b"done"))
        assert (await servers[1].message())[2] == b"2"
        await servers[1].send(ok(b"two"))
        await servers[0].send(ok(b"zero"))
        assert [(await clients[number].message())[2] for number in (0, 1, 2)] == [b"zero", b"done", b"two"]
        assert (gate.inside, gate.waiting) == (0, 0)
        assert sorted(notes.statuses) == [200, 200, 200, 429]


async def test_who_goes_away_makes_room(behind: Behind, notes: Any) -> None:
    gate = Gate(1, 2)
    async with Gateway(behind.address, gate=gate, observe=notes.observe).running(drain_seconds=0) as gateway:
        inside, waits, next_in_line = [await behind.connect(gateway) for _ in range(3)]
        await inside.send(post(b"inside"))
        server = await behind.accept()
        await server.message()
        for waiting, peer in enumerate((waits, next_in_line), 1):
            await peer.send(post(b"%d" % waiting))
            await until(lambda: gate.waiting == waiting)  # noqa: B023  # it is called at once
        waits.cut()
        await until(lambda: gate.waiting == 1)
        inside.cut()
        # The server sees its client go away, and what it would have answered is nobody else's.
        assert await server.rest() == b""
        fresh = await behind.accept()
        assert (await fresh.message())[2] == b"2"
        await fresh.send(ok(b"yours"))
        assert (await next_in_line.message())[2] == b"yours"
        assert sorted(notes.statuses) == [200, 499, 499]


# What does not only pass by.


async def test_watcher_sees_an_exchange_go_by(behind: Behind, notes: Any) -> None:
    route = Route(watch=notes.watch)
    async with Gateway(behind.address, routes=lambda *_: route).running(drain_seconds=0) as gateway:
        client = await behind.connect(gateway)
        await client.send(post(b"asked", b"x-request-id: i"))
        server = await behind.accept()
        await server.message()
        await server.send(b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        assert (await client.message())[2] == b"abc"
        expected = ["POST", "/v1/models/m:predict", b"i", b"asked", 201, False, b"abc", True]
        assert notes.seen == expected


async def test_watcher_hears_that_its_client_went_away(behind: Behind, notes: Any) -> None:
    route = Route(watch=notes.watch)
    async with Gateway(behind.address, routes=lambda *_: route).running(drain_seconds=0) as gateway:
        client = await behind.connect(gateway)
        await client.send(post(b"asked", b"x-request-id: i"))
        await (await behind.accept()).message()
        client.cut()
        await asyncio.wait_for(notes.ended.wait(), 10)
        assert notes.seen[-1] is False


async def test_route_that_reads_whole_answers_and_may_ask_behind(behind: Behind, notes: Any) -> None:
    asked: list[Request] = []
    asking: list[Gateway] = []

    def answer(request: Request) -> Later | Response:
        asked.append(request)
        if request.body == b"at once":
            return Response(200, b"at once", headers=((b"x-mine", b"1"),))
        return asking[0].ask(Request("POST", "/merged", b"q", [(b"host", b"m"), (b"a", b"b")], request.body * 2))

    def routes(_method: str, path: str) -> Route | None:
        return Route(answer=answer, watch=notes.watch) if path.endswith(":predict") else None

    async with Gateway(behind.address, routes=routes, limits=LIMITS).running(drain_seconds=0) as gateway:
        asking.append(gateway)
        client = await behind.connect(gateway)
        await client.send(post(b"at once"))
        _, headers, body = await client.message()
        assert (headers["x-mine"], body) == ("1", b"at once")
        await client.send(post(b"", b"expect: 100-continue", b"transfer-encoding: chunked", length=False))
        assert (await client.head())[0] == "HTTP/1.1 100 Continue"
        await client.send(b"1\r\na\r\n")
        await client.send(b"1\r\nb\r\n0\r\n\r\n")
        server = await behind.accept()
        first, headers, body = await server.message()
        assert (first, headers["a"], body) == ("POST /merged?q HTTP/1.1", "b", b"abab")
        await server.send(ok(b"merged", b"content-type: text/plain", b"x-up: 1"))
        _, headers, body = await client.message()
        assert (headers["content-type"], headers["x-up"], body) == ("text/plain", "1", b"merged")
        assert dict(asked[1].headers)[b"x-request-id"].decode() == headers["x-request-id"]
        await client.send(post(b"", target=b"/other"))
        assert (await server.message())[0] == "POST /other HTTP/1.1"
        await server.send(ok(b""))
        await client.message()
        await client.send(post(b"x" * 100_001))
        assert (await client.message())[0].startswith("HTTP/1.1 413")


async def test_route_that_raises_is_a_500(behind: Behind, caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: Request) -> Response:
        raise ZeroDivisionError

    route = Route(answer=answer)
    async with Gateway(behind.address, routes=lambda *_: route).running(drain_seconds=0) as gateway:
        client = await behind.connect(gateway)
        await client.send(post(b"x"))
        assert (await client.message())[0] == "HTTP/1.1 500 Internal Server Error"
        assert "ZeroDivisionError" in caplog.text


# Readiness, and the way out.


@pytest.mark.parametrize(
    ("probe", "is_ready", "status"),
    [(b"queue", True, "200"), (b"queue", False, "503"), (b"queue", None, "200"), (b"activator", True, "400")],
)
async def test_probe_is_answered_by_the_gateway(
    behind: Behind, probe: bytes, is_ready: bool | None, status: str
) -> None:
    async def asked() -> bool:
        return is_ready is True

    ready = None if is_ready is None else asked
    async with Gateway(behind.address, is_ready=ready).running(drain_seconds=0) as gateway:
        client = await behind.connect(gateway)
        await client.send(b"GET / HTTP/1.1\r\nhost: m\r\nK-Network-Probe: %b\r\n\r\n" % probe)
        first, _, body = await client.message()
        assert first.split()[1] == status
        assert status != "200" or body == b"queue"
        assert behind.connections.empty()


async def test_drain_ends_with_the_last_request(behind: Behind) -> None:
    gateway = Gateway(behind.address)
    await gateway.start()
    busy, idle = await behind.connect(gateway), await behind.connect(gateway)
    await busy.send(post(b"last"))
    server = await behind.accept()
    await server.message()
    stopping = asyncio.create_task(gateway.stop(30))
    assert await idle.rest() == b""
    assert not stopping.done()
    with pytest.raises(OSError, match=r"refused|111"):
        await behind.connect(gateway)
    await server.send(ok(b"answer"))
    _, headers, body = await busy.message()
    assert (headers["connection"], body, await busy.rest()) == ("close", b"answer", b"")
    await asyncio.wait_for(stopping, 5)


async def test_drain_cuts_what_does_not_end(behind: Behind) -> None:
    gateway = Gateway(behind.address)
    await gateway.start()
    busy = await behind.connect(gateway)
    await busy.send(post(b"hangs"))
    server = await behind.accept()
    await server.message()
    await gateway.stop(0.1)
    with contextlib.suppress(ConnectionError):
        assert await busy.rest() == b""
    assert await server.rest() == b""


async def test_unix_socket_is_as_good(behind: Behind, tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok(b"by a path"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(tmp_path / "s"))
    async with Gateway(Address(path=tmp_path / "s")).running(drain_seconds=0) as gateway:
        client = await behind.connect(gateway)
        await client.send(b"GET / HTTP/1.1\r\nhost: m\r\n\r\n")
        assert (await client.message())[2] == b"by a path"
        client.cut()
    server.close()


# Who does not read.


async def test_client_that_reads_no_answers_is_not_asked_for_more(client: Peer, behind: Behind) -> None:
    # Each is small enough to be written at once: only the connection's buffer says that nobody reads.
    body, count = b"z" * 30_000, 2000
    await client.send(post(b"x") * count)
    server = await behind.accept()
    served = 0

    async def serve() -> None:
        nonlocal served
        for _ in range(count):
            await server.message()
            served += 1
            await server.send(ok(body))

    serving = asyncio.create_task(serve())
    await until(lambda: served > 20)
    before = -1
    while served > before:
        before = served
        for _ in range(500):
            await asyncio.sleep(0)
    # What the system buffers for two sockets, and no more.
    assert served < count // 2
    for _ in range(count):
        assert (await client.message())[2] == body
    await serving


class _Wire(asyncio.Transport):
    """A transport that is full after so many bytes."""

    def __init__(self, room: int = 1 << 30) -> None:
        super().__init__({"peername": ("10.0.0.9", 1)})
        self.room, self.is_paused, self.written = room, False, b""
        self.protocol: asyncio.BaseProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)
        if len(self.written) > self.room and self.protocol is not None:
            self.protocol.pause_writing()

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass


async def test_connection_whose_last_piece_filled_a_client_serves_the_next_one(gateway: Gateway) -> None:
    down, up = Downstream(gateway), Upstream(gateway.pool)
    client, server = _Wire(room=250), _Wire()
    client.protocol = down
    down.connection_made(client)
    up.connection_made(server)
    gateway.pool.give_back(up)
    down.data_received(post(b"x"))
    up.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 200\r\n\r\n")
    assert up.caller is down
    up.data_received(b"z" * 200)
    assert up.caller is None
    assert not server.is_paused
    assert gateway.pool.take() is up
    gateway.leave(down)


async def test_tunnel_is_not_timed(behind: Behind) -> None:
    limits = GatewayLimits(idle_seconds=0.01, answer_seconds=0.01, read_seconds=0.2)
    async with Gateway(behind.address, limits=limits).running(drain_seconds=0) as gateway:
        client = await behind.connect(gateway)
        await client.send(b"GET /ws HTTP/1.1\r\nhost: m\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        server = await behind.accept()
        await server.head()
        await server.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n")
        await client.head()
        # Enough for both sides to have been full.
        sending = asyncio.create_task(server.send(b"z" * 20_000_000))
        await client.read(20_000_000)
        await sending
        silent = await behind.connect(gateway)
        # By then every deadline that there was has been looked at.
        assert await silent.rest() == b""
        await client.send(b"still")
        assert await server.read(5) == b"still"
