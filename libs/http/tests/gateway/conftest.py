"""A gateway between two ends, on asyncio's own loop, which tells more of mistakes, and on uvloop, which services run on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop
from behind import Behind, Peer, listening
from servery_http.gateway.heads import AnswerHead, RequestHead
from servery_http.gateway.limits import GatewayLimits
from servery_http.gateway.server import Gateway


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Notes:
    """Statuses that were counted, and what a watcher saw."""

    to_server = b"x-seen: on the way\r\n"
    to_client = b"x-seen: on the way back\r\n"

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.seen: list[object] = []
        self.ended = asyncio.Event()

    def observe(self, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.statuses.append(status)

    def watch(self, head: RequestHead, request_id: bytes) -> Notes:
        self.seen += [head.method, head.path, request_id]
        return self

    def on_request_piece(self, piece: bytes) -> None:
        self.seen.append(piece)

    def on_answer_head(self, status: int, answer: AnswerHead | None) -> None:
        self.seen += [status, answer is None]

    def on_answer_piece(self, piece: bytes) -> None:
        self.seen.append(piece)

    def on_end(self, *, is_complete: bool) -> None:
        self.seen.append(is_complete)
        self.ended.set()


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
async def behind() -> AsyncIterator[Behind]:
    async with listening() as behind:
        yield behind


@pytest.fixture
async def gateway(behind: Behind, notes: Notes) -> AsyncIterator[Gateway]:
    async with Gateway(behind.address, limits=GatewayLimits(max_body_bytes=100_000), observe=notes.observe).running(
        drain_seconds=0
    ) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Gateway, behind: Behind) -> Peer:
    return await behind.connect(gateway)
