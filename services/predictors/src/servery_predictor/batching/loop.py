"""Waits and runs what ``policy`` chooses, where ``placement`` says: one batch at a time for each model."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TypeAlias

from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse, batch
from servery_sdk.serving import InputError, Unimplemented

from servery_predictor.batching.placement import QUICK_SECONDS, Placement
from servery_predictor.batching.policy import next_batch
from servery_predictor.errors import ModelFailed, QueueFull, TooLate

logger = logging.getLogger(__name__)

_WEIGHT = 0.2
"""Of the newest call in the running mean."""

Outcome: TypeAlias = InferResponse | ServeryError
Done: TypeAlias = Callable[[Outcome], None]
Ability: TypeAlias = Callable[[InferRequest], InferResponse]
"""What a model can be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """One call of the model.

    Attributes:
        waits: Seconds that each of its requests waited.
        rows: Of all of them.
        seconds: Merging, computing and taking apart.
    """

    waits: Sequence[float]
    rows: int
    seconds: float


class Ticket:
    """A request's place in the queue; an ``ability`` of None is ``predict``."""

    __slots__ = ("_done", "ability", "came", "is_over", "key", "request", "rows")

    def __init__(self, request: InferRequest, key: Hashable, rows: int, done: Done, ability: Ability | None) -> None:
        self.request = request
        self.key = key
        self.rows = rows
        self.ability = ability
        self.came = time.perf_counter()
        self.is_over = False
        self._done = done

    def cancel(self) -> None:
        """Ask for no answer: what still waits is not computed."""
        self.is_over = True

    def finish(self, outcome: Outcome) -> None:
        """Tell who asked, unless nobody does any more."""
        if not self.is_over:
            self.is_over = True
            self._done(outcome)


class _Answer(asyncio.Future[InferResponse]):
    """A future whose ticket is cancelled with it."""

    ticket: Ticket | None = None

    def settle(self, outcome: Outcome) -> None:
        if isinstance(outcome, ServeryError):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)

    def cancel(self, msg: object = None) -> bool:
        if self.ticket is not None:
            self.ticket.cancel()
        return super().cancel(msg)


@dataclass(frozen=True, slots=True)
class _Called:
    outcomes: list[Outcome]
    seconds: float
    cpu_seconds: float
    waited: bool


def _waits() -> int:
    """Return how often this thread has given the processor away; it has a number for that on Linux."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Batcher:
    """The queue in front of one model.

    Args:
        predict: The model's own ``predict``.
        executor: Where slow calls run; one thread per model, for a model answers one call at a time.
        batchable: Whether requests may be merged at all.
        max_rows: Of one call.
        max_requests: That may wait.
        timeout_seconds: That a request may wait for its answer; None for any time.
        on_batch: Told of every call.
        on_wait: Told how many requests wait, when that changes.
    """

    def __init__(
        self,
        predict: Ability,
        *,
        executor: Executor,
        batchable: bool = True,
        max_rows: int = 1024,
        max_requests: int = 1000,
        timeout_seconds: float | None = None,
        on_batch: Callable[[Ran], None] = lambda ran: None,
        on_wait: Callable[[int], None] = lambda requests: None,
    ) -> None:
        self._predict = predict
        self._executor = executor
        self._batchable = batchable
        self._max_rows = max_rows
        self._max_requests = max_requests
        self._timeout_seconds = timeout_seconds
        self._on_batch = on_batch
        self._on_wait = on_wait
        self._queue: list[Ticket] = []
        self._running: list[Ticket] = []
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._mean_seconds = QUICK_SECONDS
        self._placement = Placement()
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, request: InferRequest) -> asyncio.Future[InferResponse]:
        """Return the future answer; cancelling it while it waits takes the request out of the queue.

        Raises:
            QueueFull: Too many wait.
        """
        answer = _Answer()
        answer.ticket = self.enqueue(request, answer.settle)
        return answer

    def enqueue(self, request: InferRequest, done: Done, ability: Ability | None = None) -> Ticket:
        """Call ``done`` with the answer, once and never before this returns; it must not raise.

        Args:
            ability: Another than ``predict``: asked for this request alone, and never on the event loop.

        Raises:
            QueueFull: Too many wait.
        """
        if len(self._queue) >= self._max_requests:
            self._queue = [ticket for ticket in self._queue if not ticket.is_over]
        if len(self._queue) >= self._max_requests:
            raise QueueFull(
                f"model {request.model!r}: {len(self._queue)} requests wait; try again",
                retry_after_seconds=max(1.0, self._mean_seconds * len(self._queue)),
            )
        loop = asyncio.get_running_loop()
        key: Hashable = batch.key(request) if self._batchable and ability is None else None
        ticket = Ticket(request, key, batch.rows(request) or 1, done, ability)
        self._queue.append(ticket)
        self._on_wait(len(self._queue))
        self._idle.clear()
        if self._timer is None and self._timeout_seconds is not None:
            self._timer = loop.call_later(self._timeout_seconds, self._expire, loop, self._timeout_seconds)
        self._schedule(loop)
        return ticket

    async def drained(self) -> None:
        """Return when nothing waits and nothing runs."""
        await self._idle.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not now but when this turn of the loop ends: what other sockets hold ready goes in the same batch.
        if not self._running and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop, timeout_seconds: float) -> None:
        # One timer for all: they wait equally long, so those that came first are late first.
        self._timer = None
        now = time.perf_counter()
        for ticket in (*self._running, *self._queue):
            if ticket.is_over:
                continue
            left = ticket.came + timeout_seconds - now
            if left > 0:
                self._timer = loop.call_later(left, self._expire, loop, timeout_seconds)
                break
            ticket.finish(TooLate(f"model {ticket.request.model!r} did not answer in {timeout_seconds:g} s"))

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        queue = [ticket for ticket in self._queue if not ticket.is_over]
        chosen = next_batch(queue, max_rows=self._max_rows)
        if not chosen:
            self._queue = []
            self._on_wait(0)
            self._idle.set()
            return
        if len(chosen) == len(queue):
            self._running, self._queue = queue, []
        else:
            picked = set(chosen)
            self._running = [queue[index] for index in chosen]
            self._queue = [ticket for index, ticket in enumerate(queue) if index not in picked]
        self._on_wait(len(self._queue))
        requests = [ticket.request for ticket in self._running]
        ability = self._running[0].ability
        started = time.perf_counter()
        if self._placement.is_inline and ability is None:
            self._finish(loop, started, self._run(requests, self._predict))
            return
        running = loop.run_in_executor(self._executor, self._run, requests, ability or self._predict)
        running.add_done_callback(lambda done: self._finish(loop, started, done.result()))

    def _run(self, requests: list[InferRequest], ability: Ability) -> _Called:
        waits, started, cpu_started = _waits(), time.perf_counter(), time.thread_time()
        answers = self._answers(requests, ability)
        return _Called(
            answers, time.perf_counter() - started, time.thread_time() - cpu_started, waited=_waits() > waits
        )

    def _answers(self, requests: list[InferRequest], ability: Ability) -> list[Outcome]:
        try:
            if len(requests) == 1:
                (request,) = requests
                return [replace(ability(request), model=request.model, id=request.id)]
            # The queue has compared their keys; the policy kept to max_rows.
            merged = batch.merged_alike(requests)
            answers = batch.split(ability(merged.request), merged.offsets)
            for answer, request in zip(answers, requests, strict=True):
                answer.model, answer.id = request.model, request.id
            return list(answers)
        except BaseException as error:
            # BaseException: a model may call sys.exit(), and the queue would wait for this call's end for ever.
            # One bad request must not fail its neighbours: each is asked alone.
            if len(requests) > 1:
                return [answer for request in requests for answer in self._answers([request], ability)]
            return [_failure(requests[0], error)]

    def _finish(self, loop: asyncio.AbstractEventLoop, started: float, called: _Called) -> None:
        tickets, self._running = self._running, []
        if tickets[0].ability is None:
            self._count(started, tickets, called)
        for ticket, answer in zip(tickets, called.outcomes, strict=True):
            ticket.finish(answer)
        if self._queue:
            self._schedule(loop)
        else:
            self._idle.set()

    def _count(self, started: float, tickets: Sequence[Ticket], called: _Called) -> None:
        """Learn from a ``predict``, before its answers: who has one may look at what was counted."""
        self._placement = self._placement.after(
            seconds=called.seconds, cpu_seconds=called.cpu_seconds, waited=called.waited
        )
        self._mean_seconds += _WEIGHT * (called.seconds - self._mean_seconds)
        self._on_batch(
            Ran(
                waits=[started - ticket.came for ticket in tickets],
                rows=sum([ticket.rows for ticket in tickets]),
                seconds=called.seconds,
            )
        )


def _failure(request: InferRequest, error: BaseException) -> ServeryError:
    if isinstance(error, InputError | Unimplemented):
        return error
    logger.error("model failed", exc_info=error, extra={"model": request.model})
    failure = ModelFailed(f"model {request.model!r} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
