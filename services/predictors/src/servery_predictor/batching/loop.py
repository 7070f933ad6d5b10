"""Waits and runs what ``policy`` chooses: as many batches at a time as each model takes, mostly one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import TypeAlias

from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse, batch

from servery_predictor.batching.policy import Patience, Waiting, hold_seconds, next_batch
from servery_predictor.errors import ModelFailed, QueueFull

logger = logging.getLogger(__name__)

QUICK_SECONDS = 0.0005
"""A call under this runs on the event loop: handing it to a thread and back costs about as much."""

_MEASURED_CALLS = 5
"""Calls that run in the executor before one may run inline: the first ones warm caches and lie."""

_WEIGHT = 0.2
"""Of the newest call in the running mean."""

_PredictMany: TypeAlias = Callable[[Sequence[InferRequest]], Sequence[InferResponse | ServeryError]]


@dataclass(slots=True)
class _Entry:
    request: InferRequest
    waiting: Waiting
    answer: asyncio.Future[InferResponse]
    came: float


class Batcher:
    """The queue in front of one model.

    Args:
        predict: The model's own ``predict``.
        executor: Where slow calls run; a thread for each call that the model takes at a time.
        predict_many: Called with the requests of a batch as they are, instead of ``predict`` with them merged.
        batchable: Whether requests may be merged at all.
        max_rows: Of one call.
        preferred_rows: Of one call, see ``policy.Patience``.
        max_delay_seconds: Likewise.
        max_requests: That may wait.
        parallel_calls: That may run at once.
        on_batch: Told of every call: requests, rows, seconds.
    """

    def __init__(
        self,
        predict: Callable[[InferRequest], InferResponse],
        *,
        executor: Executor,
        predict_many: _PredictMany | None = None,
        batchable: bool = True,
        max_rows: int = 1024,
        preferred_rows: tuple[int, ...] = (),
        max_delay_seconds: float = 0.0,
        max_requests: int = 1000,
        parallel_calls: int = 1,
        on_batch: Callable[[int, int, float], None] = lambda requests, rows, seconds: None,
    ) -> None:
        self._predict = predict
        self._predict_many = predict_many
        self._executor = executor
        self._batchable = batchable
        self._max_rows = max_rows
        self._patience = Patience(preferred_rows=preferred_rows, max_delay_seconds=max_delay_seconds)
        self._max_requests = max_requests
        self._parallel_calls = parallel_calls
        self._on_batch = on_batch
        self._queue: list[_Entry] = []
        self._running = 0
        self._scheduled = False
        self._holding: asyncio.TimerHandle | None = None
        self._mean_seconds = QUICK_SECONDS
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, request: InferRequest) -> asyncio.Future[InferResponse]:
        """Return the future answer; cancelling it while it waits takes the request out of the queue.

        Raises:
            QueueFull: Too many wait.
        """
        if len(self._queue) >= self._max_requests:
            raise QueueFull(
                f"model {request.model!r}: {len(self._queue)} requests wait; try again",
                retry_after_seconds=max(1.0, self._mean_seconds * len(self._queue)),
            )
        loop = asyncio.get_running_loop()
        key: Hashable = batch.key(request) if self._batchable else None
        answer: asyncio.Future[InferResponse] = loop.create_future()
        self._queue.append(_Entry(request, Waiting(key, batch.rows(request) or 1), answer, loop.time()))
        self._idle.clear()
        self._schedule(loop)
        return answer

    async def drained(self) -> None:
        """Return when nothing waits and nothing runs."""
        await self._idle.wait()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not now but when this turn of the loop ends: what other sockets hold ready goes in the same batch.
        if self._running < self._parallel_calls and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        self._queue = [entry for entry in self._queue if not entry.answer.cancelled()]
        waiting = [entry.waiting for entry in self._queue]
        chosen = next_batch(waiting, max_rows=self._max_rows)
        if not chosen:
            self._rest()
            return
        waited = loop.time() - self._queue[0].came
        hold = hold_seconds(waiting, chosen, self._patience, waited_seconds=waited, max_rows=self._max_rows)
        if hold > 0:
            self._holding = loop.call_later(hold, self._flush, loop)
            return
        picked = set(chosen)
        entries = [self._queue[index] for index in chosen]
        self._queue = [entry for index, entry in enumerate(self._queue) if index not in picked]
        self._running += 1
        if self._calls >= _MEASURED_CALLS and self._mean_seconds < QUICK_SECONDS:
            self._finish(loop, entries, self._run(entries))
            return
        running = loop.run_in_executor(self._executor, self._run, entries)
        running.add_done_callback(lambda done: self._finish(loop, entries, done.result()))
        if self._queue:
            # Another call may run beside this one.
            self._schedule(loop)

    def _run(self, entries: list[_Entry]) -> tuple[list[InferResponse | ServeryError], float]:
        started = time.perf_counter()
        answers = self._answers([entry.request for entry in entries])
        return answers, time.perf_counter() - started

    def _answers(self, requests: list[InferRequest]) -> list[InferResponse | ServeryError]:
        if self._predict_many is not None:
            return self._gathered(requests, self._predict_many)
        try:
            # The policy kept to max_rows; a single request may be larger.
            merged = batch.merge(requests, max_batch_rows=self._max_rows)
            response = self._predict(merged.request)
            return list(batch.split(response, merged.offsets)) if len(requests) > 1 else [response]
        except BaseException as error:
            # BaseException: a model may call sys.exit(), and the queue would wait for this call's end for ever.
            # One bad request must not fail its neighbours: each is asked alone.
            if len(requests) > 1:
                return [answer for request in requests for answer in self._answers([request])]
            return [_failure(requests[0], error)]

    def _gathered(self, requests: list[InferRequest], predict_many: _PredictMany) -> list[InferResponse | ServeryError]:
        try:
            answers = list(predict_many(requests))
        except BaseException as error:
            # Likewise; it has seen all of them, and asking again might do twice what should be done once.
            return [_failure(request, error) for request in requests]
        if len(answers) == len(requests):
            return answers
        words = f"model {requests[0].model!r} gave {len(answers)} answers to {len(requests)} requests"
        return [ModelFailed(words) for _ in requests]

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        entries: list[_Entry],
        outcome: tuple[list[InferResponse | ServeryError], float],
    ) -> None:
        answers, seconds = outcome
        self._running -= 1
        self._calls += 1
        self._mean_seconds += _WEIGHT * (seconds - self._mean_seconds)
        for entry, answer in zip(entries, answers, strict=True):
            if entry.answer.done():
                continue
            if isinstance(answer, ServeryError):
                entry.answer.set_exception(answer)
            else:
                entry.answer.set_result(replace(answer, model=entry.request.model, id=entry.request.id))
        self._on_batch(len(entries), sum(entry.waiting.rows for entry in entries), seconds)
        if self._queue:
            self._schedule(loop)
        else:
            self._rest()

    def _rest(self) -> None:
        if not self._running:
            self._idle.set()


def _failure(request: InferRequest, error: BaseException) -> ServeryError:
    if isinstance(error, ServeryError):
        return error
    logger.error("model failed", exc_info=error, extra={"model": request.model})
    failure = ModelFailed(f"model {request.model!r} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
