"""A lane for each model and protocol: what waits, what is with the predictor, and what is asked once more, alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from servery_agent.batcher.counts import Counts
from servery_agent.batcher.policy import BatchLimits, going

logger = logging.getLogger(__name__)

_APART_SECONDS = 60.0
"""That requests go alone after an answer to some like them could not be taken apart."""
_FAILING_SECONDS = 10.0
"""That they go alone after a batch that failed, and each of its requests alone as well: the predictor, which is not well,
is asked no more often then than if there were no batches."""
_MOST_APART = 1000

GiveUp: TypeAlias = Callable[[], object]


class Asked:
    """A request of one caller.

    Attributes:
        key: What requests must have equal to go together; None for one that goes alone.
        rows: That it has of a batch's most.
        came: By the loop's clock.
        is_over: It is answered, or nobody waits for that any more.
    """

    __slots__ = ("call", "came", "is_over", "key", "rows")

    def __init__(self, key: Hashable, rows: int) -> None:
        self.key = key
        self.rows = rows
        self.came = 0.0
        self.is_over = False
        self.call: _Call | None = None

    def give_up(self) -> None:
        """Wait no more: what has not gone to the predictor does not go, and what nobody waits for is cut."""
        self.is_over = True
        if self.call is not None:
            self.call.on_given_up()


A = TypeVar("A", bound=Asked)
O = TypeVar("O")  # noqa: E741  # of "outcome"


class Apart:
    """Instead of outcomes: each request of the batch is to be asked alone.

    Args:
        why: For the log and the metrics: ``wrong``, where the predictor says so of its input, ``whole``, where its
            answer cannot be taken apart, or ``failed``, where one of them may have made the model fail.
    """

    def __init__(self, why: str) -> None:
        self.why = why


C = TypeVar("C", bound=Asked, contravariant=True)


class Wire(Protocol[C, O]):
    """How requests of one protocol are sent and answered."""

    def alone(self, asked: C, done: Callable[[O], None]) -> GiveUp:
        """Send one request as it came."""

    def together(self, asked: Sequence[C], done: Callable[[Sequence[O] | Apart], None]) -> GiveUp:
        """Send requests of one key as one."""

    def answer(self, asked: C, outcome: O) -> None:
        """Answer the caller."""

    def is_failure(self, outcome: O) -> bool:
        """Return whether the predictor failed, whatever it was asked."""

    def late(self, seconds: float) -> O:
        """Return the answer to who waited in vain."""

    def full(self, most: int) -> O:
        """Return the answer to one too many."""


class _Call:
    """Requests that are with the predictor as one; ``lane`` is None for what was not asked together with others."""

    __slots__ = ("asked", "give_up", "lane", "timer")

    def __init__(self, asked: Sequence[Asked], lane: _Lane[Any, Any] | None) -> None:
        self.asked = asked
        self.lane = lane
        self.give_up: GiveUp | None = None
        self.timer: asyncio.TimerHandle | None = None

    def on_given_up(self) -> None:
        """Cut it, where nobody waits for it any more."""
        if all(asked.is_over for asked in self.asked):
            give_up = self.give_up
            self.end()
            if give_up is not None:
                give_up()

    def end(self) -> None:
        """Let go of everything: bodies are long, and should not wait for the collector."""
        if self.timer is not None:
            self.timer.cancel()
        self.asked, self.give_up = (), None
        lane, self.lane = self.lane, None
        if lane is not None:
            lane.leave(self)


class Lanes(Generic[A, O]):
    """All of one protocol's."""

    def __init__(self, wire: Wire[A, O], limits: BatchLimits, counts: Counts) -> None:
        self.wire = wire
        self.limits = limits
        self.counts = counts
        self.loop = asyncio.get_running_loop()
        self._lanes: dict[Hashable, _Lane[A, O]] = {}
        self._apart: dict[tuple[Hashable, Hashable], float] = {}

    def submit(self, name: Hashable, asked: A) -> None:
        """Have it answered, not before this returns."""
        asked.came = self.loop.time()
        if asked.key is None or self._stands_apart((name, asked.key), asked.came):
            self.ask_alone(asked)
            return
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(self, name)
        lane.submit(asked)

    def ask_alone(self, asked: A, trial: Trial | None = None) -> None:
        """Send one at once, as it came."""
        call = asked.call = _Call((asked,), None)

        def done(outcome: O) -> None:
            call.end()
            if trial is not None:
                trial.on_outcome(is_failure=self.wire.is_failure(outcome))
            self.finish(asked, outcome)

        call.give_up = self.wire.alone(asked, done)

    def finish(self, asked: A, outcome: O) -> None:
        """Answer, unless nobody waits any more."""
        # Each holds the other: neither should wait for the collector.
        asked.call = None
        if not asked.is_over:
            asked.is_over = True
            self.wire.answer(asked, outcome)

    def set_apart(self, name: Hashable, key: Hashable, why: str) -> None:
        """Ask for nothing like this together with others for a while."""
        if len(self._apart) >= _MOST_APART:
            self._apart.clear()
        seconds, words = _REASONS[why]
        self._apart[name, key] = self.loop.time() + seconds
        logger.warning(words, extra={"lane": name, "seconds": seconds})

    def _stands_apart(self, kind: tuple[Hashable, Hashable], now: float) -> bool:
        if not self._apart:
            return False
        if self._apart.get(kind, now) > now:
            return True
        self._apart.pop(kind, None)
        return False

    def forget(self, name: Hashable) -> None:
        """Drop a lane in which nothing is."""
        self._lanes.pop(name, None)


class Trial:
    """Requests of a failed batch that are asked alone: it was nobody's input where all of them fail again.

    Args:
        asked: So many.
        on_vain: Called once where that is so. Those whose callers went away count as neither.
    """

    def __init__(self, asked: int, on_vain: Callable[[], None]) -> None:
        self._left = asked
        self._on_vain = on_vain

    def on_outcome(self, *, is_failure: bool) -> None:
        """Learn what came of one."""
        self._left -= is_failure
        if is_failure and not self._left:
            self._on_vain()


class _Lane(Generic[A, O]):
    def __init__(self, lanes: Lanes[A, O], name: Hashable) -> None:
        self._lanes = lanes
        self._name = name
        self._queue: list[A] = []
        self._rows: dict[Hashable, int] = {}
        self._calls: set[_Call] = set()
        self._is_scheduled = False
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, asked: A) -> None:
        lanes, limits = self._lanes, self._lanes.limits
        if len(self._queue) >= limits.max_requests:
            self._queue = [one for one in self._queue if not one.is_over]
            if len(self._queue) >= limits.max_requests:
                lanes.loop.call_soon(lanes.finish, asked, lanes.wire.full(limits.max_requests))
                return
        self._queue.append(asked)
        rows = self._rows[asked.key] = self._rows.get(asked.key, 0) + asked.rows
        if len(self._calls) < limits.busy_batches or rows >= limits.max_rows:
            self._schedule()
        elif self._timer is None:
            self._timer = lanes.loop.call_later(limits.max_wait_seconds, self._flush)

    def _schedule(self) -> None:
        # Not now but when this turn of the loop ends: what other sockets hold ready goes in the same batch.
        if not self._is_scheduled:
            self._is_scheduled = True
            self._lanes.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        lanes, limits = self._lanes, self._lanes.limits
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        queue = [asked for asked in self._queue if not asked.is_over]
        now = lanes.loop.time()
        while chosen := going(queue, limits, now=now, is_free=len(self._calls) < limits.busy_batches):
            if len(chosen) == len(queue):
                asked, queue = queue, []
            else:
                picked = set(chosen)
                asked = [queue[index] for index in chosen]
                queue = [one for index, one in enumerate(queue) if index not in picked]
            self._send(asked, now)
        self._queue = queue
        self._rows = {}
        for one in queue:
            self._rows[one.key] = self._rows.get(one.key, 0) + one.rows
        if queue:
            self._timer = lanes.loop.call_at(queue[0].came + limits.max_wait_seconds, self._flush)
        elif not self._calls:
            lanes.forget(self._name)

    def _send(self, asked: list[A], now: float) -> None:
        lanes = self._lanes
        lanes.counts.on_batch(asked, now)
        call = _Call(asked, self)
        self._calls.add(call)
        for one in asked:
            one.call = call
        if lanes.limits.timeout_seconds is not None:
            call.timer = lanes.loop.call_later(lanes.limits.timeout_seconds, self._on_late, call, asked)
        if len(asked) == 1:
            call.give_up = lanes.wire.alone(asked[0], lambda outcome: self._on_done(call, asked, (outcome,)))
        else:
            call.give_up = lanes.wire.together(asked, lambda outcomes: self._on_done(call, asked, outcomes))

    def _on_late(self, call: _Call, asked: list[A]) -> None:
        give_up, call.give_up = call.give_up, None
        if give_up is not None:
            give_up()
        seconds = self._lanes.limits.timeout_seconds or 0.0
        self._on_done(call, asked, [self._lanes.wire.late(seconds) for _ in asked])

    def _on_done(self, call: _Call, asked: list[A], outcomes: Sequence[O] | Apart) -> None:
        lanes = self._lanes
        call.end()
        if isinstance(outcomes, Apart):
            self._ask_apart(asked, outcomes.why)
            return
        for one, outcome in zip(asked, outcomes, strict=True):
            lanes.finish(one, outcome)

    def _ask_apart(self, asked: Sequence[A], why: str) -> None:
        lanes, name, key = self._lanes, self._name, asked[0].key
        lanes.counts.on_apart(why)
        if why == WHOLE:
            lanes.set_apart(name, key, why)
        waiting = [one for one in asked if not one.is_over]
        trial = Trial(len(waiting), lambda: lanes.set_apart(name, key, why)) if why == FAILED else None
        for one in waiting:
            lanes.ask_alone(one, trial)

    def leave(self, call: _Call) -> None:
        """Count a call no more."""
        self._calls.discard(call)
        if self._queue:
            self._schedule()
        elif not (self._calls or self._is_scheduled):
            self._lanes.forget(self._name)


WRONG, WHOLE, FAILED = "wrong", "whole", "failed"

_REASONS = {
    WHOLE: (_APART_SECONDS, "an answer cannot be taken apart: such requests go one by one"),
    FAILED: (_FAILING_SECONDS, "a batch failed, and each of its requests alone: such requests go one by one"),
}
