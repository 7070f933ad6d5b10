"""In what order the ports open."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from ports import free_port
from servery_http.server import Server
from servery_predictor.server import Predictor


async def test_who_finds_rest_open_may_call_grpc(
    start: Callable[..., Awaitable[Predictor]], iris: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Probes ask by REST, and the first call of gRPC may come with their answer.
    port = free_port()
    opened: list[bool] = []
    start_rest = Server.start

    async def looked(server: Server) -> None:
        with socket.socket() as caller:
            opened.append(caller.connect_ex(("127.0.0.1", port)) == 0)
        await start_rest(server)

    monkeypatch.setattr(Server, "start", looked)
    await start(iris, grpc_port=port)
    assert opened == [True]
