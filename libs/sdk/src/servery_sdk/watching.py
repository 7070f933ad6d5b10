"""Those who wait for something to change: each is told, looks, and hears of what is new."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

T = TypeVar("T")


class Watchers:
    """Of one thing, on one event loop."""

    def __init__(self) -> None:
        self._changed: set[asyncio.Event] = set()

    def tell(self) -> None:
        """Have everybody look again."""
        for changed in self._changed:
            changed.set()

    async def follow(self, look: Callable[[], T]) -> AsyncGenerator[T]:
        """Yield what ``look`` returns now, and again whenever somebody tells and it returns something else.

        Changes that come faster than they are taken are seen as one. Never ends; close it (``contextlib.aclosing``) to
        be told no more.
        """
        changed = asyncio.Event()
        self._changed.add(changed)
        try:
            seen = look()
            yield seen
            while True:
                await changed.wait()
                changed.clear()
                found = look()
                if found != seen:
                    seen = found
                    yield found
        finally:
            self._changed.discard(changed)
