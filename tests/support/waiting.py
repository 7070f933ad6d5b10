"""Waiting for what nobody tells of."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator

PATIENCE_SECONDS = 20
_TURNS, _FIRST_SECONDS, _LAST_SECONDS = 100, 0.001, 0.05


def pauses() -> Iterator[float]:
    """Yield seconds between looks: none for what this loop does in its next turns, then more, so that others get on."""
    yield from itertools.repeat(0.0, _TURNS)
    pause = _FIRST_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, _LAST_SECONDS)


async def until(holds: Callable[[], bool]) -> None:
    """Return once something holds."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        for pause in pauses():
            if holds():
                return
            await asyncio.sleep(pause)
