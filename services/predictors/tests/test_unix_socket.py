"""REST at a path beside the port: what an agent in the same pod asks."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest
from servery_http.address import Address
from servery_http.client import Client
from servery_http.gateway.server import Gateway
from servery_http.server import bound_path
from servery_predictor.server import Predictor

BODY = orjson.dumps({"instances": [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]})


async def test_path_answers_as_the_port_does_hot_routes_and_others(
    start: Callable[..., Awaitable[Predictor]], iris: Path, tmp_path: Path
) -> None:
    path = tmp_path / "rest.sock"
    # What a predictor that was killed has left.
    bound_path(path).close()
    predictor = await start(iris, http_socket=path)
    async with Client() as client, Gateway(Address(path=path)).running(drain_seconds=0) as gateway:
        for port in (predictor.http.port, gateway.port):
            answer = await client.request("POST", f"http://127.0.0.1:{port}/v1/models/iris:predict", body=BODY)
            assert (answer.status, orjson.loads(answer.body)) == (200, {"predictions": [1, 1]})
            assert (await client.request("GET", f"http://127.0.0.1:{port}/v2/models/iris")).status == 200


def test_what_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OSError, match="in use"):
        bound_path(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_every_user_may_connect(tmp_path: Path) -> None:
    with bound_path(tmp_path / "s") as made:
        assert made.family is socket.AF_UNIX
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o666
