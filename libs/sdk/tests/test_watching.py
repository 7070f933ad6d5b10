"""Those who wait for changes hear of each state that is new, and of nothing twice."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from servery_sdk.watching import Watchers

PATIENCE_SECONDS = 10


async def test_follower_sees_what_is_and_then_what_changes() -> None:
    watchers, state = Watchers(), ["a"]
    async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(watchers.follow(lambda: state[0])) as looks:
        assert await anext(looks) == "a"
        state[0] = "b"
        watchers.tell()
        assert await anext(looks) == "b"


async def test_change_between_two_looks_is_not_missed_and_many_are_one() -> None:
    watchers, state = Watchers(), [0]
    async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(watchers.follow(lambda: state[0])) as looks:
        await anext(looks)
        for state[0] in (1, 2, 3):
            watchers.tell()
        assert await anext(looks) == 3
        state[0] = 4
        watchers.tell()
        assert await anext(looks) == 4


async def test_telling_without_a_change_tells_nobody() -> None:
    watchers, state, looked = Watchers(), ["a"], asyncio.Queue[None]()

    def look() -> str:
        looked.put_nowait(None)
        return state[0]

    async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(watchers.follow(look)) as looks:
        await anext(looks)
        await looked.get()
        waiting = asyncio.ensure_future(anext(looks))
        watchers.tell()
        await looked.get()
        assert not waiting.done()
        state[0] = "b"
        watchers.tell()
        assert await waiting == "b"


async def test_every_follower_is_told_until_it_is_closed() -> None:
    watchers, state = Watchers(), ["a"]
    one, other = watchers.follow(lambda: state[0]), watchers.follow(lambda: state[0])
    async with asyncio.timeout(PATIENCE_SECONDS), contextlib.aclosing(one):
        assert [await anext(one), await anext(other)] == ["a", "a"]
        state[0] = "b"
        watchers.tell()
        assert [await anext(one), await anext(other)] == ["b", "b"]
        await other.aclose()
        state[0] = "c"
        watchers.tell()
        assert await anext(one) == "c"
        with pytest.raises(StopAsyncIteration):
            await anext(other)
