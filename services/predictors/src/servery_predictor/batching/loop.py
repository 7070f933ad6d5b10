"""Waits and runs what ``policy`` chooses: one batch at a time for each model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse, batch
from servery_sdk.serving import InputError, Unimplemented

from servery_predictor.batching.policy import Waiting, next_batch
from servery_predictor.errors import ModelFailed, QueueFull

logger = logging.getLogger(__name__)

QUICK_SECONDS = 0.0005
"""A call under this runs on the event loop: handing it to a thread and back costs about as much."""

_MEASURED_CALLS = 5
"""Calls that run in the executor before one may run inline: the first ones warm caches and lie."""

_WEIGHT = 0.2
"""Of the newest call in the running mean."""


@dataclass(slots=True)
class _Entry:
    request: InferRequest
    waiting: Waiting
    answer: asyncio.Future[InferResponse]
    ability: Callable[[InferRequest], InferResponse] | None


class Batcher:
    """The queue in front of one model.

    Args:
        predict: The model's own ``predict``.
        executor: Where slow calls run; one thread per model, for a model answers one call at a time.
        batchable: Whether requests may be merged at all.
        max_rows: Of one call.
        max_requests: That may wait.
        on_batch: Told of every call: requests, rows, seconds.
    """

    def __init__(
        self,
        predict: Callable[[InferRequest], InferResponse],
        *,
        executor: Executor,
        batchable: bool = True,
        max_rows: int = 1024,
        max_requests: int = 1000,
        on_batch: Callable[[int, int, float], None] = lambda requests, rows, seconds: None,
    ) -> None:
        self._predict = predict
        self._executor = executor
        self._batchable = batchable
        self._max_rows = max_rows
        self._max_requests = max_requests
        self._on_batch = on_batch
        self._queue: list[_Entry] = []
        self._busy = False
        self._scheduled = False
        self._mean_seconds = QUICK_SECONDS
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(
        self, request: InferRequest, ability: Callable[[InferRequest], InferResponse] | None = None
    ) -> asyncio.Future[InferResponse]:
        """Return the future answer; cancelling it while it waits takes the request out of the queue.

        Args:
            request: For the model.
            ability: Another than ``predict``: called for this request alone, and never on the event loop.

        Raises:
            QueueFull: Too many wait.
        """
        if len(self._queue) >= self._max_requests:
            raise QueueFull(
                f"model {request.model!r}: {len(self._queue)} requests wait; try again",
                retry_after_seconds=max(1.0, self._mean_seconds * len(self._queue)),
            )
        loop = asyncio.get_running_loop()
        key: Hashable = batch.key(request) if self._batchable and ability is None else None
        answer: asyncio.Future[InferResponse] = loop.create_future()
        self._queue.append(_Entry(request, Waiting(key, batch.rows(request) or 1), answer, ability))
        self._idle.clear()
        self._schedule(loop)
        return answer

    async def drained(self) -> None:
        """Return when nothing waits and nothing runs."""
        await self._idle.wait()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not now but when this turn of the loop ends: what other sockets hold ready goes in the same batch.
        if not self._busy and not self._scheduled:
            self._scheduled = True
            loop.call_soon(self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._scheduled = False
        self._queue = [entry for entry in self._queue if not entry.answer.cancelled()]
        chosen = next_batch([entry.waiting for entry in self._queue], max_rows=self._max_rows)
        if not chosen:
            self._idle.set()
            return
        picked = set(chosen)
        entries = [self._queue[index] for index in chosen]
        self._queue = [entry for index, entry in enumerate(self._queue) if index not in picked]
        self._busy = True
        if entries[0].ability is None and self._calls >= _MEASURED_CALLS and self._mean_seconds < QUICK_SECONDS:
            self._finish(loop, entries, self._run(entries))
            return
        running = loop.run_in_executor(self._executor, self._run, entries)
        running.add_done_callback(lambda done: self._finish(loop, entries, done.result()))

    def _run(self, entries: list[_Entry]) -> tuple[list[InferResponse | ServeryError], float]:
        started = time.perf_counter()
        answers = self._answers([entry.request for entry in entries], entries[0].ability or self._predict)
        return answers, time.perf_counter() - started

    def _answers(
        self, requests: list[InferRequest], ask: Callable[[InferRequest], InferResponse]
    ) -> list[InferResponse | ServeryError]:
        try:
            # The policy kept to max_rows; a single request may be larger.
            merged = batch.merge(requests, max_batch_rows=self._max_rows)
            response = ask(merged.request)
            return list(batch.split(response, merged.offsets)) if len(requests) > 1 else [response]
        except BaseException as error:
            # BaseException: a model may call sys.exit(), and the queue would wait for this call's end for ever.
            # One bad request must not fail its neighbours: each is asked alone.
            if len(requests) > 1:
                return [answer for request in requests for answer in self._answers([request], ask)]
            return [_failure(requests[0], error)]

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        entries: list[_Entry],
        outcome: tuple[list[InferResponse | ServeryError], float],
    ) -> None:
        answers, seconds = outcome
        self._busy = False
        if entries[0].ability is None:
            self._calls += 1
            self._mean_seconds += _WEIGHT * (seconds - self._mean_seconds)
            self._on_batch(len(entries), sum(entry.waiting.rows for entry in entries), seconds)
        for entry, answer in zip(entries, answers, strict=True):
            if entry.answer.done():
                continue
            if isinstance(answer, ServeryError):
                entry.answer.set_exception(answer)
            else:
                entry.answer.set_result(replace(answer, model=entry.request.model, id=entry.request.id))
        if self._queue:
            self._schedule(loop)
        else:
            self._idle.set()


def _failure(request: InferRequest, error: BaseException) -> ServeryError:
    if isinstance(error, InputError | Unimplemented):
        return error
    logger.error("model failed", exc_info=error, extra={"model": request.model})
    failure = ModelFailed(f"model {request.model!r} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
