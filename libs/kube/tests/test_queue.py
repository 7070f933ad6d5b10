from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

import pytest
from servery_kube.queue import WorkQueue


class VirtualTime:
    """Timers that fire when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Callable[..., None], Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., None], *arguments: Any) -> Any:
        entry = (self.now + delay, len(self._timers), callback, arguments)
        heapq.heappush(self._timers, entry)
        outer = self

        class Handle:
            def cancel(self) -> None:
                if entry in outer._timers:
                    outer._timers.remove(entry)
                    heapq.heapify(outer._timers)

            def when(self) -> float:
                return entry[0]

        return Handle()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while self._timers and self._timers[0][0] <= self.now:
            _, _, callback, arguments = heapq.heappop(self._timers)
            callback(*arguments)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    clock = VirtualTime()
    monkeypatch.setattr("servery_kube.queue.asyncio.get_running_loop", lambda: clock)
    return clock


def waiting(queue: WorkQueue[str]) -> list[str]:
    found: list[str] = []
    while queue._ready:
        getting = queue.get()
        with pytest.raises(StopIteration) as stop:
            getting.send(None)
        found.append(stop.value.value)
    return found


def test_key_waits_once_however_often_it_is_added(clock: VirtualTime) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert waiting(queue) == ["a", "b"]


def test_key_that_changes_while_it_is_worked_on_comes_again_after(clock: VirtualTime) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    assert waiting(queue) == ["a"]
    queue.add("a")
    assert waiting(queue) == []
    queue.done("a")
    assert waiting(queue) == ["a"]


def test_failing_key_comes_later_and_later_until_it_succeeds(clock: VirtualTime) -> None:
    queue: WorkQueue[str] = WorkQueue(first_retry_seconds=1, max_retry_seconds=4)
    queue.add("a")
    for delay in (1, 2, 4, 4):
        assert waiting(queue) == ["a"]
        queue.retry("a")
        clock.advance(delay - 0.1)
        assert waiting(queue) == []
        clock.advance(0.2)
    assert waiting(queue) == ["a"]
    queue.done("a")
    queue.add("a")
    assert waiting(queue) == ["a"]
    queue.retry("a")
    clock.advance(1.1)
    assert waiting(queue) == ["a"]


def test_earlier_of_two_delays_counts(clock: VirtualTime) -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", after_seconds=5)
    queue.add("a", after_seconds=1)
    queue.add("a", after_seconds=9)
    clock.advance(1.5)
    assert waiting(queue) == ["a"]
    queue.done("a")
    clock.advance(20)
    assert waiting(queue) == []


async def test_waiting_worker_wakes_for_a_key() -> None:
    queue: WorkQueue[str] = WorkQueue()
    getting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    assert await asyncio.wait_for(getting, 10) == "a"
