"""Waits and runs what ``policy`` chooses, where ``placement`` says: mostly one batch at a time for each model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse, batch
from servery_sdk.protocol.gathering import Patience, hold_seconds, next_batch

from servery_predictor.batching import calls
from servery_predictor.batching.placement import QUICK_SECONDS, Placement
from servery_predictor.batching.tickets import Ability, Outcome, Ticket
from servery_predictor.errors import QueueFull, TooLate

_WEIGHT = 0.2
"""Of the newest call in the running mean."""


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


class _Answer(asyncio.Future[InferResponse]):
    """A future whose ticket is cancelled with it."""

    ticket: Ticket | None = None

    def cancel(self, msg: object = None) -> bool:
        if self.ticket is not None:
            self.ticket.cancel()
        return super().cancel(msg)


class _Awaited(Ticket):
    """A place whose answer is a future."""

    __slots__ = ("_answer",)

    def __init__(self, request: InferRequest, answer: _Answer) -> None:
        super().__init__(request, "")
        self._answer = answer

    def tell(self, outcome: Outcome) -> None:
        if isinstance(outcome, ServeryError):
            self._answer.set_exception(outcome)
        else:
            self._answer.set_result(outcome)


class Batcher:
    """The queue in front of one model.

    Args:
        predict: The model's own ``predict``.
        executor: Where slow calls run; a thread for each call that the model takes at a time.
        predict_many: Called with the requests of a batch as they are, instead of ``predict`` with them merged.
        batchable: Whether requests may be merged at all.
        together: Whether a call of ``predict_many`` takes any requests of one version, each as one row.
        max_rows: Of one call.
        patience: Which calls are worth a wait; None where a call is made as soon as the model takes one.
        max_requests: That may wait.
        parallel_calls: That may run at once.
        waits: Calls are never made on the event loop.
        timeout_seconds: That a request may wait for its answer; None for any time.
        recall: Told of a request that the model has and nobody waits for any more.
        on_batch: Told of every call.
        on_wait: Told how many requests wait, when that changes.
        on_call: Told of every call with its requests, before they are answered.
    """

    def __init__(
        self,
        predict: Ability,
        *,
        executor: Executor,
        predict_many: calls.PredictMany | None = None,
        batchable: bool = True,
        together: bool = False,
        max_rows: int = 1024,
        patience: Patience | None = None,
        max_requests: int = 1000,
        parallel_calls: int = 1,
        waits: bool = False,
        timeout_seconds: float | None = None,
        recall: Callable[[InferRequest], None] | None = None,
        on_batch: Callable[[Ran], None] = lambda ran: None,
        on_wait: Callable[[int], None] = lambda requests: None,
        on_call: Callable[[Sequence[Ticket], calls.Called], None] = lambda tickets, called: None,
    ) -> None:
        self._predict = predict
        self._predict_many = predict_many
        self._executor = executor
        self._batchable = batchable
        self._together = together
        self._likeness: Callable[[InferRequest], Hashable] = _version_of if together else batch.likeness
        self._max_rows = max_rows
        self._patience = patience
        self._max_requests = max_requests
        self._parallel_calls = parallel_calls
        self._waits = waits
        self._timeout_seconds = timeout_seconds
        self._recall = recall
        self._on_batch = on_batch
        self._on_wait = on_wait
        self._on_call = on_call
        self._queue: list[Ticket] = []
        self._running: list[list[Ticket]] = []
        self._scheduled = False
        self._holding: asyncio.TimerHandle | None = None
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
        answer.ticket = _Awaited(request, answer)
        self.enqueue(answer.ticket)
        return answer

    def enqueue(self, ticket: Ticket) -> None:
        """Finish ``ticket`` with the answer, never before this returns.

        One with an ability is asked for alone, and never on the event loop.

        Raises:
            QueueFull: Too many wait.
        """
        request = ticket.request
        if len(self._queue) >= self._max_requests:
            self._queue = [ticket for ticket in self._queue if not ticket.is_over]
        if len(self._queue) >= self._max_requests:
            raise QueueFull(
                f"model {request.model!r}: {len(self._queue)} requests wait; try again",
                retry_after_seconds=max(1.0, self._mean_seconds * len(self._queue)),
            )
        rows = 1 if self._together else batch.rows(request)
        if rows is not None:
            ticket.rows = rows or 1
            if self._batchable and ticket.ability is None:
                ticket.key = self._likeness(request)
        self._queue.append(ticket)
        self._on_wait(len(self._queue))
        # Most come while others wait, and have nothing left to set going.
        if len(self._queue) == 1 or self._timer is None or not self._scheduled:
            self._wake(asyncio.get_running_loop())

    async def drained(self) -> None:
        """Return when nothing waits and nothing runs."""
        await self._idle.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        self._idle.clear()
        if self._timer is None and self._timeout_seconds is not None:
            self._timer = loop.call_later(self._timeout_seconds, self._expire, loop, self._timeout_seconds)
        self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not now but when this turn of the loop ends: what other sockets hold ready goes in the same batch.
        if len(self._running) < self._parallel_calls and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop, timeout_seconds: float) -> None:
        # One timer for all: they wait equally long, so those that came first are late first.
        self._timer = None
        now = time.perf_counter()
        for ticket in (*(ticket for tickets in self._running for ticket in tickets), *self._queue):
            if ticket.is_over:
                continue
            left = ticket.came + timeout_seconds - now
            if left > 0:
                self._timer = loop.call_later(left, self._expire, loop, timeout_seconds)
                break
            ticket.fail(TooLate(f"model {ticket.request.model!r} did not answer in {timeout_seconds:g} s"))
            ticket.recalled()

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        queue = [ticket for ticket in self._queue if not ticket.is_over]
        chosen = next_batch(queue, max_rows=self._max_rows)
        if self._patience is not None and self._holds(loop, queue, chosen, self._patience):
            return
        if not chosen:
            self._queue = []
            self._on_wait(0)
            self._rest()
            return
        if len(chosen) == len(queue):
            tickets, self._queue = queue, []
        else:
            picked = set(chosen)
            tickets = [queue[index] for index in chosen]
            self._queue = [ticket for index, ticket in enumerate(queue) if index not in picked]
        self._running.append(tickets)
        self._on_wait(len(self._queue))
        started = time.perf_counter()
        if self._placement.is_inline and not self._waits and tickets[0].ability is None:
            self._finish(loop, tickets, started, self._call(tickets))
            return
        if self._recall is not None:
            for ticket in tickets:
                ticket.recall = partial(self._recall, ticket.request)
        running = loop.run_in_executor(self._executor, self._call, tickets)
        running.add_done_callback(lambda done: self._finish(loop, tickets, started, done.result()))
        if self._queue:
            # Another call may run beside this one.
            self._schedule(loop)

    def _holds(
        self, loop: asyncio.AbstractEventLoop, queue: Sequence[Ticket], chosen: list[int], patience: Patience
    ) -> bool:
        """Return whether what is ``chosen`` waits for more; if not, cut it down to what ``patience`` likes best."""
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        if not chosen:
            return False
        waited = time.perf_counter() - queue[0].came
        hold = hold_seconds(queue, chosen, patience, waited_seconds=waited, max_rows=self._max_rows)
        if hold > 0:
            self._holding = loop.call_later(hold, self._flush, loop)
        return hold > 0

    def _call(self, tickets: Sequence[Ticket]) -> calls.Called:
        requests, ability = [ticket.request for ticket in tickets], tickets[0].ability
        if ability is None and self._predict_many is not None:
            return calls.gathered(requests, self._predict_many)
        return calls.merged(requests, ability or self._predict)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, tickets: list[Ticket], started: float, called: calls.Called
    ) -> None:
        self._running.remove(tickets)
        if self._recall is not None:
            for ticket in tickets:
                ticket.recall = None
        if tickets[0].ability is None:
            self._count(started, tickets, called)
        self._on_call(tickets, called)
        for ticket, answer in zip(tickets, called.outcomes, strict=True):
            ticket.finish(answer)
        if self._queue:
            self._schedule(loop)
        else:
            self._rest()

    def _rest(self) -> None:
        if not self._running:
            self._idle.set()

    def _count(self, started: float, tickets: Sequence[Ticket], called: calls.Called) -> None:
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


def _version_of(request: InferRequest) -> Hashable:
    # Not None, which stands alone.
    return (request.version,)
