"""What comes again need not be parsed again, and means what it meant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servery_http.heads import CHUNKED, Head, Heads
from servery_http.messages import Request, Response
from servery_http.server import Server

Connect = Callable[[], Awaitable["Wire"]]  # type: ignore[name-defined]  # noqa: F821

REQUEST = b"POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi"
HEAD = Head(
    method="POST",
    url=b"/echo",
    path="/echo",
    query=b"",
    version="1.1",
    headers=[(b"host", b"h"), (b"content-length", b"2")],
    asked=[],
    keep_alive=True,
    expect_continue=False,
    body_bytes=2,
)


@pytest.fixture
def heads() -> Heads:
    heads = Heads()
    heads.learn(REQUEST, replace(HEAD))
    return heads


def test_head_that_came_before_is_known_whatever_its_body(heads: Heads) -> None:
    known = heads.of(REQUEST[:-2] + b"ho")
    assert known == replace(HEAD, size=len(REQUEST) - 2)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(REQUEST[:-1], id="part-of-a-body"),
        pytest.param(REQUEST[:20], id="part-of-a-head"),
        pytest.param(REQUEST * 2, id="two-requests"),
        pytest.param(REQUEST.replace(b"host: h", b"host: g"), id="another-header"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_only_one_whole_request_is_known(heads: Heads, data: bytes) -> None:
    assert heads.of(data) is None


@pytest.mark.parametrize(
    ("data", "head"),
    [
        pytest.param(REQUEST * 2, HEAD, id="two-requests"),
        pytest.param(REQUEST[:-1], HEAD, id="part-of-a-body"),
        pytest.param(REQUEST, replace(HEAD, body_bytes=CHUNKED), id="chunks"),
        pytest.param(REQUEST, replace(HEAD, keep_alive=False), id="last-of-its-connection"),
        pytest.param(REQUEST, replace(HEAD, expect_continue=True), id="waits-for-100-continue"),
        pytest.param(b"POST /" + b"a" * 5000 + REQUEST[10:], HEAD, id="long"),
    ],
)
def test_what_means_more_than_itself_is_not_learned(data: bytes, head: Head) -> None:
    heads = Heads()
    heads.learn(data, replace(head))
    assert [heads.of(each) for each in (REQUEST, data)] == [None, None]


def test_memory_is_bounded(heads: Heads) -> None:
    others = [REQUEST.replace(b"echo", b"%04d" % number) for number in range(256)]
    for other in others:
        heads.learn(other, replace(HEAD))
    assert heads.of(REQUEST) is None
    assert heads.of(others[-1]) is not None


async def test_each_connection_gets_its_own_answers_to_equal_heads(connect: Connect) -> None:
    wires = [await connect() for _ in range(3)]
    for turn in range(3):
        for number, wire in enumerate(wires):
            await wire.send(REQUEST[:-2] + b"%d%d" % (turn, number))
        assert [(await wire.answer())[2] for wire in wires] == [b"hot %d%d" % (turn, n) for n in range(3)]


async def test_known_request_inside_a_body_is_a_body(connect: Connect) -> None:
    wire = await connect()
    await wire.send(REQUEST)
    await wire.answer()
    await wire.send(b"POST /echo HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\nx" % (len(REQUEST) + 1))
    # Looks that the first part has been read, and nothing is answered yet.
    other = await connect()
    await other.send(REQUEST)
    await other.answer()
    await wire.send(REQUEST)
    assert (await wire.answer())[2] == b"hot x" + REQUEST


async def test_known_request_behind_the_last_one_is_not_answered(connect: Connect) -> None:
    wire = await connect()
    await wire.send(REQUEST)
    await wire.answer()
    await wire.send(REQUEST.replace(b"host: h", b"host: h\r\nconnection: close"))
    assert (await wire.answer())[2] == b"hot hi"
    assert await wire.closed()


async def test_known_requests_wait_behind_a_slow_one(connect: Connect, site) -> None:  # type: ignore[no-untyped-def]
    wire = await connect()
    await wire.send(REQUEST)
    await wire.answer()
    await wire.send(REQUEST.replace(b"echo", b"later"))
    await site.entered.wait()
    await wire.send(REQUEST)
    other = await connect()
    await other.send(REQUEST)
    assert (await other.answer())[2] == b"hot hi"
    site.release.set()
    assert [(await wire.answer())[2] for _ in range(2)] == [b"later hi", b"hot hi"]


@pytest.mark.parametrize("path", [b"/cold", b"/broken"])
async def test_every_kind_of_route_answers_a_head_that_comes_again(connect: Connect, path: bytes) -> None:
    wire = await connect()
    answers = set()
    for _ in range(3):
        await wire.send(REQUEST.replace(b"/echo", path).replace(b"HTTP/1.1", b"HTTP/1.1\r\nx: y"))
        if path == b"/cold":
            answers.add(await wire.reader.readuntil(b"0\r\n\r\n"))
        else:
            answers.add((await wire.answer())[2])
    assert len(answers) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=st.lists(
        st.tuples(st.sampled_from((b"", b"hi", REQUEST)), st.booleans(), st.booleans()), min_size=1, max_size=8
    )
)
async def test_answers_do_not_depend_on_what_came_before(
    connect: Connect, sent: list[tuple[bytes, bool, bool]]
) -> None:
    wire = await connect()
    for body, is_chunked, is_cut in sent:
        length = b"transfer-encoding: chunked" if is_chunked else b"content-length: %d" % len(body)
        if is_chunked:
            chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        data = b"POST /echo HTTP/1.1\r\nhost: h\r\n" + length + b"\r\n\r\n" + (chunked if is_chunked else body)
        if is_cut:
            await wire.send(data[:-3])
            data = data[-3:]
        await wire.send(data)
        assert (await wire.answer())[2] == b"hot " + body


async def test_stream_to_http_1_0_has_no_chunks_although_its_client_keeps_connections() -> None:
    async def pieces() -> AsyncGenerator[bytes, None]:
        yield b"one "
        yield b"two"

    def streamed(request: Request) -> Response:
        return Response(content_type=b"text/plain", stream=pieces())

    async with Server(lambda _method, _path: streamed).running() as server:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert answer.endswith(b"\r\n\r\none two")
