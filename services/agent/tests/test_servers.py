"""A predictor that has the v2 repository API only, with an index of its models or without one, as KServe's have it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from servery_agent.puller.decider import Served, ServedState
from servery_agent.puller.ports import Refused, Unreachable
from servery_agent.puller.servers import V2Repository
from servery_http.messages import Handler, Request, Response
from servery_http.server import Server

PATIENCE_SECONDS = 20
WITH_AND_WITHOUT_INDEX = pytest.mark.parametrize("has_index", [True, False], ids=["index", "no index"])


class Site:
    """Loads any model but ``broken``.

    Attributes:
        may_look: Set while looks at it are answered.
    """

    def __init__(self) -> None:
        self.has_index = True
        self.loaded: set[str] = set()
        self.may_look = asyncio.Event()
        self.may_look.set()
        self.looked: asyncio.Queue[None] = asyncio.Queue()

    def hot(self, _method: str, _path: str) -> Handler:
        return self.answer

    async def answer(self, request: Request) -> Response:
        match request.path.strip("/").split("/"):
            case ["v2", "repository", "index"] if self.has_index:
                found = [{"name": name, "state": "READY"} for name in sorted(self.loaded)]
                found.append({"name": "lies-there", "state": "UNAVAILABLE"})
                await self._look()
                return Response(body=json.dumps(found).encode())
            case ["v2", "models", name, "ready"]:
                is_ready = name in self.loaded
                await self._look()
                return Response(200 if is_ready else 404)
            case ["v2", "repository", "models", "broken", "load"]:
                return Response(400, b'{"error": "no such format"}')
            case ["v2", "repository", "models", name, "load"]:
                self.loaded.add(name)
                return Response()
            case ["v2", "repository", "models", name, "unload"]:
                status = 200 if name in self.loaded else 404
                self.loaded.discard(name)
                return Response(status)
        return Response(404)

    async def _look(self) -> None:
        self.looked.put_nowait(None)
        await self.may_look.wait()


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
async def server(site: Site) -> AsyncIterator[Server]:
    async with asyncio.timeout(PATIENCE_SECONDS), Server(site.hot, drain_seconds=0).running() as server:
        yield server


@pytest.fixture
async def repository(server: Server) -> AsyncIterator[V2Repository]:
    async with V2Repository("127.0.0.1", server.port) as repository:
        yield repository


def loaded(**tags: str) -> dict[str, Served]:
    return {name: Served(state=ServedState.LOADED, tag=tag) for name, tag in tags.items()}


@WITH_AND_WITHOUT_INDEX
async def test_what_is_loaded_and_unloaded_is_told_at_once(
    has_index: bool, site: Site, repository: V2Repository
) -> None:
    site.has_index = has_index
    async with contextlib.aclosing(repository.watch()) as told:
        assert await anext(told) == {}
        await repository.load("red", "1")
        assert await anext(told) == loaded(red="1")
        await repository.load("red", "2")
        assert await anext(told) == loaded(red="2")
        await repository.unload("red")
        assert await anext(told) == {}
        await repository.unload("red")


async def test_model_that_somebody_else_loaded_has_no_tag(site: Site, repository: V2Repository) -> None:
    site.loaded.add("theirs")
    assert await anext(repository.watch()) == loaded(theirs="")


@WITH_AND_WITHOUT_INDEX
async def test_server_that_came_up_anew_has_nothing_of_ours(
    has_index: bool, site: Site, repository: V2Repository
) -> None:
    site.has_index = has_index
    await repository.load("red", "1")
    assert await anext(repository.watch()) == loaded(red="1")
    site.loaded.clear()
    assert await anext(repository.watch()) == {}
    site.loaded.add("red")
    assert await anext(repository.watch()) == (loaded(red="") if has_index else {})


@WITH_AND_WITHOUT_INDEX
async def test_load_during_a_look_is_not_forgotten(has_index: bool, site: Site, repository: V2Repository) -> None:
    site.has_index = has_index
    await repository.load("first", "1")
    site.may_look.clear()
    async with contextlib.aclosing(repository.watch()) as told:
        looking = asyncio.ensure_future(anext(told))
        await site.looked.get()
        await repository.load("red", "1")
        site.may_look.set()
        assert await looking == loaded(first="1")
        assert await anext(told) == loaded(first="1", red="1")


async def test_refusal_is_told_in_the_servers_words(repository: V2Repository) -> None:
    with pytest.raises(Refused, match="400: no such format"):
        await repository.load("broken", "1")


async def test_nobody_there_is_unreachable(server: Server, repository: V2Repository) -> None:
    await server.stop()
    with pytest.raises(Unreachable):
        await anext(repository.watch())
