"""One call of a model: several requests become one, and its answer several again."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse, RequestError, batch

from servery_predictor.batching.tickets import Ability, Outcome
from servery_predictor.errors import ModelFailed

logger = logging.getLogger(__name__)

PredictMany: TypeAlias = Callable[[Sequence[InferRequest]], Sequence[InferResponse | ServeryError]]


@dataclass(frozen=True, slots=True)
class Called:
    """What came of a call.

    Attributes:
        outcomes: One for each request, in order.
        started: Of ``time.perf_counter``.
        seconds: Merging, computing and taking apart.
        cpu_seconds: Of them, those that its thread worked.
        waited: Whether its thread gave the processor away by itself, as one does that reads or sleeps.
    """

    outcomes: list[Outcome]
    started: float
    seconds: float
    cpu_seconds: float
    waited: bool


def merged(requests: list[InferRequest], ability: Ability) -> Called:
    """Ask once for all of ``requests``, which have one key; one after another where that fails."""
    return _measured(lambda: _merged(requests, ability))


def gathered(requests: list[InferRequest], predict_many: PredictMany) -> Called:
    """Hand all of ``requests`` over as they are."""
    return _measured(lambda: _gathered(requests, predict_many))


def _measured(answers: Callable[[], list[Outcome]]) -> Called:
    waits, started, cpu_started = _waits(), time.perf_counter(), time.thread_time()
    outcomes = answers()
    seconds, cpu_seconds = time.perf_counter() - started, time.thread_time() - cpu_started
    return Called(outcomes, started, seconds, cpu_seconds, waited=_waits() > waits)


def _waits() -> int:
    """Return how often this thread has given the processor away; it has a number for that on Linux."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _merged(requests: list[InferRequest], ability: Ability) -> list[Outcome]:
    try:
        if len(requests) == 1:
            (request,) = requests
            return [_addressed(ability(request), request)]
        # The queue has compared their keys; the policy kept to max_rows.
        whole = batch.merged_alike(requests)
        answer = wanted(ability(whole.request), whole.request)
        if isinstance(answer, ServeryError):
            return [answer] * len(requests)
        answers = batch.split(answer, whole.offsets)
        for answer, request in zip(answers, requests, strict=True):
            answer.model, answer.id = request.model, request.id
        return list(answers)
    except BaseException as error:
        # BaseException: a model may call sys.exit(), and the queue would wait for this call's end for ever.
        # One bad request must not fail its neighbours: each is asked alone.
        if len(requests) > 1:
            return [answer for request in requests for answer in _merged([request], ability)]
        return [_failure(requests[0], error)]


def _gathered(requests: list[InferRequest], predict_many: PredictMany) -> list[Outcome]:
    try:
        answers = predict_many(requests)
        if len(answers) != len(requests):
            words = f"model {requests[0].model!r} gave {len(answers)} answers to {len(requests)} requests"
            return [ModelFailed(words) for _ in requests]
    except BaseException as error:
        # Likewise; it has seen all of them, and asking again might do twice what should be done once.
        return [_failure(request, error) for request in requests]
    return [
        answer if isinstance(answer, ServeryError) else _addressed(answer, request)
        for answer, request in zip(answers, requests, strict=True)
    ]


def _addressed(answer: InferResponse, request: InferRequest) -> Outcome:
    found = wanted(answer, request)
    if isinstance(found, ServeryError):
        return found
    # A new one, for a model may keep its own; ``replace`` would take ten times as long.
    return InferResponse(
        request.model, found.outputs, found.version, request.id, found.parameters, found.rows_are_objects
    )


def wanted(answer: InferResponse, request: InferRequest) -> Outcome:
    """Return ``answer`` with the outputs that ``request`` names, all where it names none; or which there is not."""
    if not request.outputs:
        return answer
    by_name = {output.name: output for output in answer.outputs}
    missing = [name for name in request.outputs if name not in by_name]
    if missing:
        return RequestError(f"model {request.model!r} has no output {', '.join(missing)}; it has: {', '.join(by_name)}")
    return replace(answer, outputs=tuple([by_name[name] for name in request.outputs]))


def _failure(request: InferRequest, error: BaseException) -> ServeryError:
    if isinstance(error, ServeryError):
        return error
    logger.error("model failed", exc_info=error, extra={"model": request.model})
    failure = ModelFailed(f"model {request.model!r} failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
