from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_http import asgi
from servery_http.compression import WrongCoding, accepted, compression, inflated
from servery_http.cross_origin import cross_origin
from servery_http.front import no_application
from servery_http.limits import Limits
from servery_http.messages import Later, Request, Response
from servery_http.server import Server

LIMIT = 10_000
WORDS = b"words and words " * 100
PAGE = "https://page.example"


def raw_deflate(data: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return encoder.compress(data) + encoder.flush()


def echo(request: Request) -> Response:
    return Response(body=request.body, headers=((b"x-was", b"%d" % len(request.headers)),))


def soon(request: Request) -> Later:
    later = Later()
    asyncio.get_running_loop().call_soon(lambda: later.answer(Response(body=request.body)))
    return later


async def awaited(request: Request) -> Response:
    return Response(body=request.body)


async def pieces() -> AsyncIterator[bytes]:
    yield WORDS


def streamed(request: Request) -> Response:
    return Response(stream=pieces())  # type: ignore[arg-type]  # an async generator


def coded(request: Request) -> Response:
    return Response(body=b"as it is" * 100, headers=((b"content-encoding", b"br"),))


ROUTES = {
    "/echo": echo,
    "/soon": soon,
    "/awaited": awaited,
    "/streamed": streamed,
    "/coded": coded,
}
MANNERS = (cross_origin([PAGE]), compression(max_body_bytes=LIMIT, min_answer_bytes=500))


@pytest.fixture(params=["front", "asgi"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    def hot(method: str, path: str) -> Any:
        return ROUTES.get(path)

    limits = Limits(max_body_bytes=LIMIT)
    if request.param == "asgi":
        transport = httpx.ASGITransport(asgi.application(hot, no_application, limits, MANNERS))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
            yield made
        return
    server = Server(hot, limits=limits, manners=MANNERS)
    async with server.running(), httpx.AsyncClient(base_url=server.url) as made:
        yield made


def plain(client: httpx.AsyncClient) -> httpx.AsyncClient:
    client.headers["accept-encoding"] = "identity"
    return client


@pytest.mark.parametrize("path", ["/echo", "/soon", "/awaited"])
@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("GZip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate)],
    ids=["gzip", "in any case", "deflate", "bare deflate"],
)
async def test_bodies_that_come_compressed_are_read(
    client: httpx.AsyncClient, path: str, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    answer = await plain(client).post(path, content=compress(WORDS), headers={"content-encoding": coding})
    assert (answer.status_code, answer.content) == (200, WORDS)
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("coding", "body", "status", "words"),
    [
        ("gzip", gzip.compress(bytes(LIMIT + 1)), 413, f"is longer than {LIMIT} bytes"),
        ("deflate", zlib.compress(bytes(1000 * LIMIT)), 413, f"is longer than {LIMIT} bytes"),
        ("gzip", b"words", 400, "the body is not gzip: "),
        ("gzip", gzip.compress(WORDS)[:-9], 400, "it is cut short"),
        ("gzip", gzip.compress(b"a") * 2, 400, "more follows"),
        ("deflate", b"\xff\xff", 400, "the body is not deflate: "),
        ("br", b"words", 415, "'br' is none of: deflate, gzip"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"a")), 415, "'gzip, gzip' is none of"),
    ],
    ids=["gzip too long", "deflate too long", "no gzip", "cut short", "two files", "no deflate", "brotli", "twice"],
)
async def test_a_body_that_cannot_be_decompressed_is_refused(
    client: httpx.AsyncClient, coding: str, body: bytes, status: int, words: str
) -> None:
    answer = await client.post("/echo", content=body, headers={"content-encoding": coding})
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert answer.headers.get("accept-encoding") == ("gzip, deflate" if status == 415 else None)


async def test_a_body_of_just_the_limit_is_read(client: httpx.AsyncClient) -> None:
    body = gzip.compress(bytes(LIMIT))
    answer = await client.post("/echo", content=body, headers={"content-encoding": "gzip"})
    assert answer.content == bytes(LIMIT)


async def test_nothing_is_nothing_whatever_its_coding(client: httpx.AsyncClient) -> None:
    answer = await client.post("/echo", content=b"", headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("path", ["/echo", "/soon", "/awaited"])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_long_answers_go_compressed_to_who_asks(client: httpx.AsyncClient, path: str, coding: str) -> None:
    answer = await client.post(path, content=WORDS, headers={"accept-encoding": coding})
    assert (answer.content, answer.headers["content-encoding"]) == (WORDS, coding)
    assert int(answer.headers["content-length"]) < len(WORDS) / 10
    assert answer.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize(
    ("path", "body", "asked"),
    [
        ("/echo", WORDS[:499], "gzip"),
        ("/echo", WORDS, "br"),
        ("/echo", WORDS, "gzip;q=0, deflate;q=0"),
        ("/streamed", b"", "gzip"),
    ],
    ids=["short", "another coding", "none wanted", "streamed"],
)
async def test_other_answers_go_as_they_are(client: httpx.AsyncClient, path: str, body: bytes, asked: str) -> None:
    answer = await client.post(path, content=body, headers={"accept-encoding": asked})
    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers


async def test_an_answer_that_is_coded_already_is_left_alone(client: httpx.AsyncClient) -> None:
    async with client.stream("POST", "/coded", content=b"", headers={"accept-encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "br"
        assert [piece async for piece in answer.aiter_raw()] == [b"as it is" * 100]


async def test_pages_of_allowed_origins_may_read_answers(client: httpx.AsyncClient) -> None:
    for origin, told in ((PAGE, PAGE), ("https://other.example", None)):
        answer = await client.post("/soon", content=b"a", headers={"origin": origin})
        assert (answer.content, answer.headers.get("access-control-allow-origin")) == (b"a", told)
        assert answer.headers["vary"] == "origin"
    assert "vary" not in (await client.post("/soon", content=b"a")).headers


async def test_any_page_may_where_the_origin_is_a_star() -> None:
    server = Server(lambda method, path: echo, manners=(cross_origin(["*"]),))
    async with server.running(), httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/", headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_client_that_goes_away_is_heard_through_manners() -> None:
    asked, given_up = asyncio.Event(), asyncio.Event()

    def never(request: Request) -> Later:
        asked.set()
        return Later(given_up.set)

    async with Server(lambda method, path: never, manners=MANNERS).running() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: h\r\naccept-encoding: gzip\r\ncontent-length: 0\r\n\r\n")
        async with asyncio.timeout(20):
            await asked.wait()
            writer.close()
            await given_up.wait()


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (b"", None),
        (b"gzip, deflate, br", b"gzip"),
        (b"deflate", b"deflate"),
        (b"DEFLATE;q=0.5, gzip;q=0.1", b"deflate"),
        (b"*", b"gzip"),
        (b"gzip;q=0, *;q=0.5", b"deflate"),
        (b"gzip;q=lots", None),
        (b"identity", None),
    ],
)
def test_a_client_gets_the_coding_it_likes_best(asked: bytes, chosen: bytes | None) -> None:
    assert accepted(asked) == chosen


@given(st.binary(max_size=3000), st.sampled_from([(gzip.compress, b"gzip"), (zlib.compress, b"deflate")]))
def test_inflating_undoes_compressing(data: bytes, way: Any) -> None:
    compress, coding = way
    assert inflated(compress(data), coding, max_bytes=len(data)) == data


@given(st.binary(min_size=1, max_size=300), st.sampled_from([b"gzip", b"deflate"]), st.integers())
def test_anything_is_inflated_or_refused(noise: bytes, coding: bytes, seed: int) -> None:
    chance = random.Random(seed)
    mutated = bytearray(gzip.compress(noise) if coding == b"gzip" else zlib.compress(noise))
    mutated[chance.randrange(len(mutated))] = chance.randrange(256)
    for body in (noise, bytes(mutated)):
        with contextlib.suppress(WrongCoding):
            assert len(inflated(body, coding, max_bytes=1000)) <= 1000
