"""What gets a service's requests passes those for explanations on, where nothing routes them."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from answering import answering
from servery_predictor.server import Predictor

Start = Callable[..., Awaitable[Predictor]]
ROWS = {"instances": [[6.8, 2.8, 4.8, 1.4]]}


@pytest.mark.parametrize("path", ["/v1/models/iris:explain", "/v2/models/iris/explain", "/v1/models/other:explain"])
async def test_explanations_come_from_the_explainer(start: Start, iris: Path, path: str) -> None:
    with answering(lambda body: (418, {"explanations": body})) as explainer:
        predictor = await start(iris, explainer_host=explainer.host)
        async with httpx.AsyncClient(base_url=predictor.http.url) as http:
            headers = {"authorization": "Bearer me", "host": "iris.example.com"}
            answer = await http.post(path, json=ROWS, headers=headers)
            assert (answer.status_code, answer.json()) == (418, {"explanations": ROWS})
            assert (await http.post("/v1/models/iris:predict", json=ROWS)).json() == {"predictions": [1]}
        ((asked, sent, _),) = explainer.asked
    assert asked == path
    # Gateways go by the host.
    assert (sent["host"], sent["authorization"]) == (explainer.host, "Bearer me")


async def test_an_explainer_that_is_away_is_named(start: Start, iris: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        predictor = await start(iris, explainer_host=host, request_timeout_seconds=0.05)
        async with httpx.AsyncClient(base_url=predictor.http.url) as http:
            late: Any = await http.post("/v1/models/iris:explain", json=ROWS)
    assert (late.status_code, late.json()) == (504, {"error": f"explainer {host} did not answer in 0.05 s"})
    predictor = await start(iris, explainer_host=host)
    async with httpx.AsyncClient(base_url=predictor.http.url) as http:
        away = await http.post("/v1/models/iris:explain", json=ROWS)
    assert (away.status_code, f"explainer {host}: " in away.json()["error"]) == (503, True)
