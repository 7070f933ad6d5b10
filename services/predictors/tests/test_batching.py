from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_predictor.batching.loop import Batcher
from servery_predictor.errors import ModelFailed, QueueFull
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.protocol.gathering import Waiting, next_batch
from servery_sdk.serving import InputError


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [
        pytest.param([], [], id="nothing-waits"),
        pytest.param([("a", 1), ("a", 2)], [0, 1], id="equal-keys-go-together"),
        pytest.param([("a", 1), ("b", 1), ("a", 1)], [0, 2], id="other-keys-wait"),
        pytest.param([(None, 1), (None, 1)], [0], id="no-key-goes-alone"),
        pytest.param([("a", 3), ("a", 2)], [0], id="too-many-rows-wait"),
        pytest.param([("a", 9), ("a", 1)], [0], id="a-large-one-goes-alone"),
        pytest.param([("a", 2), ("a", 3), ("a", 1)], [0], id="order-within-a-key-holds"),
    ],
)
def test_policy_sends(waiting: list[tuple[str | None, int]], expected: list[int]) -> None:
    assert next_batch([Waiting(key, rows) for key, rows in waiting], max_rows=4) == expected


@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(1, 5)), min_size=1, max_size=20))
def test_policy_never_exceeds_the_bound_and_always_sends_the_oldest(waiting: list[tuple[str | None, int]]) -> None:
    chosen = next_batch([Waiting(key, rows) for key, rows in waiting], max_rows=6)
    assert chosen[0] == 0
    assert len(chosen) == 1 or sum(waiting[index][1] for index in chosen) <= 6
    assert {waiting[index][0] for index in chosen} == {waiting[0][0]}


class Doubler:
    """Doubles; refuses negative numbers, breaks on 13; remembers how many rows each call had."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(self, request: InferRequest) -> InferResponse:
        data = request.inputs[0].data
        self.calls.append(len(data))
        if (data < 0).any():
            raise InputError("no negative numbers")
        if (data == 13).any():
            raise ZeroDivisionError("thirteen")
        return InferResponse(model="m", outputs=(Tensor(name="o", data=data * 2, datatype=Datatype.FP64),))


def request(*values: float) -> InferRequest:
    data = np.array([[value] for value in values])
    return InferRequest(model="m", id=str(values), inputs=(Tensor(name="i", data=data, datatype=Datatype.FP64),))


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture
def batcher(doubler: Doubler, executor: Executor) -> Batcher:
    return Batcher(doubler.predict, executor=executor, max_requests=8)


async def test_requests_of_one_turn_go_as_one(batcher: Batcher, doubler: Doubler) -> None:
    answers = await asyncio.gather(*(batcher.submit(request(float(n), float(n))) for n in range(4)))
    assert doubler.calls == [8]
    assert [answer.outputs[0].data.ravel().tolist() for answer in answers] == [[2.0 * n] * 2 for n in range(4)]
    assert [answer.id for answer in answers] == [f"({float(n)}, {float(n)})" for n in range(4)]


@pytest.mark.parametrize(("bad", "error"), [(-1.0, InputError), (13.0, ModelFailed)], ids=["input", "model"])
async def test_bad_request_does_not_fail_its_neighbours(batcher: Batcher, bad: float, error: type[Exception]) -> None:
    answers = await asyncio.gather(
        *(batcher.submit(request(value)) for value in (1.0, bad, 2.0)), return_exceptions=True
    )
    assert isinstance(answers[1], error)
    assert [answers[i].outputs[0].data.tolist() for i in (0, 2)] == [[[2.0]], [[4.0]]]  # type: ignore[union-attr]


async def test_cancelled_request_is_not_computed(batcher: Batcher, doubler: Doubler) -> None:
    gone, kept = batcher.submit(request(1.0)), batcher.submit(request(2.0))
    gone.cancel()
    await kept
    assert doubler.calls == [1]


async def test_full_queue_refuses_and_says_when_to_come_back(batcher: Batcher) -> None:
    waiting = [batcher.submit(request(1.0)) for _ in range(8)]
    with pytest.raises(QueueFull, match="8 requests wait") as refused:
        batcher.submit(request(1.0))
    assert refused.value.retry_after_seconds is not None
    await asyncio.gather(*waiting)


async def test_quick_model_moves_onto_the_loop_with_equal_answers(batcher: Batcher, doubler: Doubler) -> None:
    answers = [(await batcher.submit(request(float(n)))).outputs[0].data.item() for n in range(20, 40)]
    assert answers == [2.0 * n for n in range(20, 40)]


@given(st.lists(st.lists(st.sampled_from([-1.0, 1.0, 2.0, 13.0]), min_size=1, max_size=3), min_size=1, max_size=8))
async def test_batched_answers_are_those_of_single_calls(values: list[list[float]]) -> None:
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(Doubler().predict, executor=executor, max_rows=5)
        answers = await asyncio.gather(*(batcher.submit(request(*v)) for v in values), return_exceptions=True)
    for value, answer in zip(values, answers, strict=True):
        if -1.0 in value:
            assert isinstance(answer, InputError)
        elif 13.0 in value:
            assert isinstance(answer, ModelFailed)
        else:
            assert answer.outputs[0].data.ravel().tolist() == [2 * v for v in value]  # type: ignore[union-attr]
