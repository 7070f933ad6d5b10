"""A queue of keys: each waits once, is worked on by one worker at a time, and backs off when it fails."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)


class WorkQueue(Generic[_K]):
    """Keys to be worked on.

    Args:
        first_retry_seconds: After the first failure of a key; doubles with each one.
        max_retry_seconds: Upper bound of that.
    """

    def __init__(self, *, first_retry_seconds: float = 0.05, max_retry_seconds: float = 60.0) -> None:
        self._first_retry_seconds = first_retry_seconds
        self._max_retry_seconds = max_retry_seconds
        self._ready: deque[_K] = deque()
        self._waiting: set[_K] = set()
        self._working: set[_K] = set()
        self._again: set[_K] = set()
        self._failures: dict[_K, int] = {}
        self._timers: dict[_K, asyncio.TimerHandle] = {}
        self._wakened = asyncio.Event()

    def add(self, key: _K, *, after_seconds: float = 0.0) -> None:
        """Have ``key`` worked on, once however often it is added before that happens."""
        if after_seconds > 0:
            loop = asyncio.get_running_loop()
            timer = self._timers.get(key)
            if timer is None or timer.when() > loop.time() + after_seconds:
                if timer is not None:
                    timer.cancel()
                self._timers[key] = loop.call_later(after_seconds, self._due, key)
        elif key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.append(key)
            self._wakened.set()

    def _due(self, key: _K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def get(self) -> _K:
        """Return the next key; call ``done`` or ``retry`` for it."""
        while not self._ready:
            self._wakened.clear()
            await self._wakened.wait()
        key = self._ready.popleft()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: _K) -> None:
        """The work on ``key`` succeeded."""
        self._failures.pop(key, None)
        self._release(key)

    def retry(self, key: _K, *, after_seconds: float | None = None) -> None:
        """The work on ``key`` failed: again, later with every failure."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._release(key)
        backoff = min(self._max_retry_seconds, self._first_retry_seconds * 2 ** (count - 1))
        self.add(key, after_seconds=backoff if after_seconds is None else after_seconds)

    def _release(self, key: _K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """Forget what is to come."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
