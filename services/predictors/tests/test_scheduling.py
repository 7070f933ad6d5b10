"""A model's wishes for its queue: preferred sizes, a delay, several calls at once, requests as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from batches import HeldExecutor, ask, numbers
from hypothesis import given
from hypothesis import strategies as st
from servery_predictor.batching.loop import Batcher
from servery_predictor.errors import ModelFailed
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.protocol.gathering import Patience, Waiting, hold_seconds, next_batch


@pytest.mark.parametrize(
    ("rows", "preferred", "waited", "sent", "hold"),
    [
        pytest.param([1, 1, 1], (), 0.0, 3, 0.01, id="below-the-largest-waits"),
        pytest.param([4, 4], (), 0.0, 2, 0.0, id="the-largest-goes"),
        pytest.param([1, 1, 1], (), 0.02, 3, 0.0, id="whoever-waited-long-enough-goes"),
        pytest.param([1, 1, 1], (), 0.004, 3, 0.006, id="the-rest-of-the-delay"),
        pytest.param([1, 1, 1], (2, 4), 0.0, 2, 0.0, id="cut-down-to-a-preferred-size"),
        pytest.param([1, 1, 1, 1, 1], (2, 4), 0.0, 4, 0.0, id="the-largest-preferred-size"),
        pytest.param([3], (2, 4), 0.0, 1, 0.01, id="between-preferred-sizes-waits"),
        pytest.param([5], (2, 4), 0.0, 1, 0.0, id="beyond-the-largest-goes"),
    ],
)
def test_patience(rows: list[int], preferred: tuple[int, ...], waited: float, sent: int, hold: float) -> None:
    waiting = [Waiting("a", count) for count in rows]
    chosen = next_batch(waiting, max_rows=8)
    patience = Patience(preferred_rows=preferred, max_delay_seconds=0.01)
    found = hold_seconds(waiting, chosen, patience, waited_seconds=waited, max_rows=8)
    assert (len(chosen), found) == (sent, pytest.approx(hold))


def test_a_request_that_goes_alone_does_not_wait() -> None:
    waiting = [Waiting(None, 1), Waiting(None, 1)]
    chosen = next_batch(waiting, max_rows=8)
    assert hold_seconds(waiting, chosen, Patience(max_delay_seconds=1.0), waited_seconds=0.0, max_rows=8) == 0.0
    assert chosen == [0]


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 5)), min_size=1, max_size=12),
    st.lists(st.integers(1, 8), max_size=3),
    st.floats(0, 1),
)
def test_patience_keeps_the_oldest_and_ends(
    waiting: list[tuple[str | None, int]], preferred: list[int], waited: float
) -> None:
    queue = [Waiting(key, rows) for key, rows in waiting]
    whole = next_batch(queue, max_rows=8)
    chosen = list(whole)
    patience = Patience(preferred_rows=tuple(preferred), max_delay_seconds=0.5)
    hold = hold_seconds(queue, chosen, patience, waited_seconds=waited, max_rows=8)
    assert chosen == whole[: len(chosen)] != []
    assert 0 <= hold <= max(0.0, 0.5 - waited)


def doubled(request: InferRequest) -> InferResponse:
    data = request.inputs[0].data * 2
    return InferResponse(model="m", outputs=(Tensor(name="y", data=data, datatype=Datatype.FP64),))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_request_waits_for_the_preferred_size_and_no_longer(executor: HeldExecutor) -> None:
    batcher = Batcher(doubled, executor=executor, patience=Patience(preferred_rows=(3,), max_delay_seconds=60.0))
    first = batcher.submit(ask(1))
    await turn()
    assert executor.held == []
    others = batcher.submit(ask(2, 3))
    await turn()
    assert len(executor.held) == 1
    executor.release()
    assert [numbers(await answer) for answer in (first, others)] == [[2], [4, 6]]
    await batcher.drained()


async def test_the_delay_ends_the_wait(executor: HeldExecutor) -> None:
    batcher = Batcher(doubled, executor=executor, patience=Patience(preferred_rows=(3,), max_delay_seconds=0.001))
    answer = batcher.submit(ask(1))
    async with asyncio.timeout(20):
        while not executor.held:  # noqa: ASYNC110  # what it looks at has no event
            await asyncio.sleep(0.001)
    executor.release()
    assert numbers(await answer) == [2]


async def test_a_request_that_is_given_up_while_it_waits_leaves_the_queue(executor: HeldExecutor) -> None:
    batcher = Batcher(doubled, executor=executor, patience=Patience(preferred_rows=(3,), max_delay_seconds=0.001))
    batcher.submit(ask(1)).cancel()
    async with asyncio.timeout(20):
        await batcher.drained()
    assert executor.held == []


async def test_as_many_calls_run_at_once_as_the_model_takes(executor: HeldExecutor) -> None:
    batcher = Batcher(doubled, executor=executor, batchable=False, parallel_calls=2)
    answers = [batcher.submit(ask(number)) for number in (1, 2, 3)]
    await turn()
    assert len(executor.held) == 2
    executor.release()
    await turn()
    assert len(executor.held) == 1
    assert not batcher._idle.is_set()
    executor.release()
    assert [numbers(await answer) for answer in answers] == [[2], [4], [6]]
    await batcher.drained()


async def test_requests_are_given_as_they_are_where_the_model_gathers(executor: HeldExecutor) -> None:
    seen: list[list[str | None]] = []

    def many(requests: Sequence[InferRequest]) -> list[InferResponse | ServeryError]:
        seen.append([request.id for request in requests])
        wrong = ServeryError("no two", code=ErrorCode.NOT_FOUND)
        return [wrong if request.id == "2" else doubled(request) for request in requests]

    batcher = Batcher(doubled, executor=executor, predict_many=many)
    answers = [batcher.submit(ask(number, id=str(number))) for number in (1, 2, 3)]
    await turn()
    executor.release()
    await turn()
    assert seen == [["1", "2", "3"]]
    assert [answer.exception() and str(answer.exception()) for answer in answers] == [None, "no two", None]
    assert [(numbers(answers[at].result()), answers[at].result().id) for at in (0, 2)] == [([2], "1"), ([6], "3")]


async def test_a_model_is_told_of_requests_that_it_has_and_nobody_waits_for(executor: HeldExecutor) -> None:
    recalled: list[str | None] = []
    batcher = Batcher(
        doubled,
        executor=executor,
        predict_many=lambda requests: [doubled(request) for request in requests],
        recall=lambda request: recalled.append(request.id),
        timeout_seconds=0.05,
    )
    given_up, answered, late = (batcher.submit(ask(number, id=str(number))) for number in (1, 2, 3))
    await turn()
    waiting = batcher.submit(ask(4, id="4"))
    waiting.cancel()
    assert recalled == []
    given_up.cancel()
    assert recalled == ["1"]
    with pytest.raises(ServeryError, match="did not answer in"):
        await late
    assert recalled == ["1", "2", "3"]
    assert isinstance(answered.exception(), ServeryError)
    executor.release()
    await batcher.drained()
    after = batcher.submit(ask(5, id="5"))
    await turn()
    executor.release()
    assert numbers(await after) == [10]
    after.cancel()
    assert recalled == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("many", "words"),
    [
        (lambda requests: 1 / 0, "model 'm' failed: ZeroDivisionError"),
        (lambda requests: [], "model 'm' gave 0 answers to 2 requests"),
    ],
    ids=["raises", "too-few"],
)
async def test_what_fails_for_all_is_asked_once_and_is_the_answer_of_all(
    executor: HeldExecutor, many: Any, words: str
) -> None:
    calls: list[int] = []

    def counted(requests: Sequence[InferRequest]) -> Any:
        calls.append(len(requests))
        return many(requests)

    batcher = Batcher(doubled, executor=executor, predict_many=counted)
    answers = [batcher.submit(ask(number)) for number in (1, 2)]
    await turn()
    executor.release()
    for answer in answers:
        with pytest.raises(ModelFailed, match=words):
            await answer
    assert calls == [2]


async def test_requests_of_any_parameters_go_together_in_order_where_the_model_says_so(executor: HeldExecutor) -> None:
    seen: list[list[str | None]] = []

    def many(requests: Sequence[InferRequest]) -> list[InferResponse | ServeryError]:
        seen.append([request.id for request in requests])
        return [doubled(request) for request in requests]

    batcher = Batcher(doubled, executor=executor, predict_many=many, together=True, max_rows=3)
    asked = [replace(ask(*range(1 + n % 2), id=str(n)), parameters={"sequence_id": n}) for n in range(4)]
    answers = [batcher.submit(request) for request in asked]
    await turn()
    executor.release()
    await turn()
    executor.release()
    assert [(await answer).id for answer in answers] == ["0", "1", "2", "3"]
    assert seen == [["0", "1", "2"], ["3"]]
