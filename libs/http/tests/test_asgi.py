from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from servery_http.asgi import application
from servery_http.front import no_application
from servery_http.incoming import BodyBroke
from servery_http.limits import Limits
from servery_http.messages import Handler, Request, Response, Streamed


class Pieces:
    def __init__(self) -> None:
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    async def aclose(self) -> None:
        self.closed += 1


PIECES = Pieces()


def echo(request: Request) -> Response:
    seen = b"|".join((request.method.encode(), request.path.encode(), request.query, request.body))
    return Response(201, seen, b"text/plain", ((b"x-seen", dict(request.headers)[b"x-sent"]),))


async def later(request: Request) -> Response:
    return Response(body=request.body[::-1])


def streamed(request: Request) -> Response:
    return Response(stream=PIECES, content_type=b"text/plain")


ROUTES: dict[str, Handler | Streamed] = {"/echo%2F": echo, "/later": Streamed(later), "/stream": streamed}


async def behind(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"cold"})


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = application(lambda method, path: ROUTES.get(path), behind, Limits(max_body_bytes=10))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as made:
        yield made


async def test_hot_route_gets_the_request_as_it_came(client: httpx.AsyncClient) -> None:
    answer = await client.post("/echo%2F?a=b", content=b"body", headers={"x-sent": "yes"})
    assert (answer.status_code, answer.content) == (201, b"POST|/echo%2F|a=b|body")
    assert (answer.headers["x-seen"], answer.headers["content-length"]) == ("yes", str(len(answer.content)))


async def test_handler_may_take_its_time(client: httpx.AsyncClient) -> None:
    assert (await client.post("/later", content=b"abc")).content == b"cba"


async def test_stream_is_sent_in_pieces_and_closed(client: httpx.AsyncClient) -> None:
    before = PIECES.closed
    answer = await client.get("/stream")
    assert answer.content == b"one two"
    assert "content-length" not in answer.headers
    assert PIECES.closed == before + 1


async def test_body_beyond_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/later", content=b"a" * 11)
    assert (answer.status_code, answer.json()) == (413, {"error": "the body is longer than 10 bytes"})


async def test_all_others_go_to_the_application_behind(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).status_code == 418


async def test_client_that_goes_away_ends_the_request() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/later", "headers": []}
    with pytest.raises(BodyBroke):
        await application(lambda method, path: later, no_application)(scope, receive, send)


async def test_nothing_behind_answers_404_and_lets_a_server_start() -> None:
    app = application(lambda method, path: None, no_application)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/")).status_code == 404
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup" if not sent else "lifespan.shutdown"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
