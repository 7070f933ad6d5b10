from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from batches import HeldExecutor, ask, numbers
from servery_predictor.batching.loop import QUICK_SECONDS, Batcher, Ran
from servery_predictor.batching.placement import SLOW_SECONDS
from servery_predictor.errors import ModelFailed, TooLate
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor


class Doubling:
    """Doubles, and remembers what each call was given."""

    def __init__(self) -> None:
        self.calls: list[list[float]] = []

    def __call__(self, request: InferRequest) -> InferResponse:
        data = request.inputs[0].data
        self.calls.append(data.ravel().tolist())
        return InferResponse(model="m", outputs=(Tensor(name="y", data=data * 2, datatype=Datatype.FP64),))


@pytest.fixture
def model() -> Doubling:
    return Doubling()


async def turn() -> None:
    """Let everything happen that needs no time."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_comes_while_the_model_computes_goes_as_one(executor: HeldExecutor, model: Doubling) -> None:
    batcher = Batcher(model, executor=executor)
    first = batcher.submit(ask(1, id="one"))
    await turn()
    others = [batcher.submit(ask(2, 3)), batcher.submit(ask(4, id="four"))]
    await turn()
    assert len(executor.held) == 1
    executor.release()
    await turn()
    executor.release()
    assert numbers(await first) == [2]
    assert [numbers(await other) for other in others] == [[4, 6], [8]]
    assert model.calls == [[1], [2, 3, 4]]
    assert [(await answer).id for answer in (first, *others)] == ["one", None, "four"]


async def test_outputs_that_are_not_there_are_told_to_each_without_asking_again(
    executor: HeldExecutor, model: Doubling
) -> None:
    batcher = Batcher(model, executor=executor)
    answers = [batcher.submit(replace(ask(number), outputs=("z",))) for number in (1, 2)]
    await turn()
    executor.release()
    for outcome in await asyncio.gather(*answers, return_exceptions=True):
        assert str(outcome) == "model 'm' has no output z; it has: y"
    assert model.calls == [[1, 2]]


async def test_different_inputs_are_never_merged(executor: HeldExecutor, model: Doubling) -> None:
    batcher = Batcher(model, executor=executor)
    answers = [batcher.submit(ask(1)), batcher.submit(ask(2, name="z"))]
    for _ in answers:
        await turn()
        executor.release()
    assert [numbers(await answer) for answer in answers] == [[2], [4]]
    assert model.calls == [[1], [2]]


async def test_a_model_that_is_not_batchable_is_asked_one_by_one(executor: HeldExecutor, model: Doubling) -> None:
    batcher = Batcher(model, executor=executor, batchable=False)
    answers = [batcher.submit(ask(1)), batcher.submit(ask(2))]
    for _ in answers:
        await turn()
        executor.release()
    assert [numbers(await answer) for answer in answers] == [[2], [4]]
    assert model.calls == [[1], [2]]


async def test_drained_returns_only_when_the_last_answer_is_out(executor: HeldExecutor, model: Doubling) -> None:
    batcher = Batcher(model, executor=executor)
    await batcher.drained()
    answer = batcher.submit(ask(1))
    drained = asyncio.create_task(batcher.drained())
    await turn()
    assert not drained.done()
    executor.release()
    await drained
    assert answer.done()


async def test_a_model_measured_quick_is_called_without_the_executor(
    executor: HeldExecutor, model: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def tick() -> float:
        nonlocal now
        now += QUICK_SECONDS / 10
        return now

    monkeypatch.setattr("servery_predictor.batching.loop.time.perf_counter", tick)
    batcher = Batcher(model, executor=executor)
    measured = 0
    for number in range(10):
        answer = batcher.submit(ask(number))
        await turn()
        measured += len(executor.held)
        executor.release()
        assert numbers(await answer) == [number * 2]
    assert 0 < measured < 10


ENDS = [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]


class Ending(Doubling):
    """Raises what would end the process when a negative number is among its inputs."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def __call__(self, request: InferRequest) -> InferResponse:
        if (request.inputs[0].data < 0).any():
            raise self._error
        return super().__call__(request)


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
async def test_a_model_that_would_end_the_process_fails_its_request_only(
    executor: HeldExecutor, error: BaseException
) -> None:
    batcher = Batcher(Ending(error), executor=executor)
    bad, neighbour = batcher.submit(ask(-1)), batcher.submit(ask(2))
    await turn()
    executor.release()
    with pytest.raises(ModelFailed, match=f"model 'm' failed: {type(error).__name__}"):
        await bad
    assert numbers(await neighbour) == [4]
    later = batcher.submit(ask(3))
    await turn()
    executor.release()
    assert numbers(await later) == [6]
    await batcher.drained()


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
async def test_a_quick_model_that_would_end_the_process_does_not_end_the_loop(
    executor: HeldExecutor, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("servery_predictor.batching.loop.time.perf_counter", lambda: 0.0)
    batcher = Batcher(Ending(error), executor=executor)
    for number in range(6):
        measured = batcher.submit(ask(number))
        await turn()
        executor.release()
        await measured
    # From here on nobody releases anything: the model runs on the loop itself.
    with pytest.raises(ModelFailed, match=type(error).__name__):
        await batcher.submit(ask(-1))
    assert numbers(await batcher.submit(ask(3))) == [6]


async def test_a_quick_model_that_turns_slow_leaves_the_loop_within_one_call(
    executor: HeldExecutor, model: Doubling, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, step = 0.0, 0.0

    def tick() -> float:
        nonlocal now
        now += step
        return now

    monkeypatch.setattr("servery_predictor.batching.loop.time.thread_time", tick)
    batcher = Batcher(model, executor=executor)
    for number in range(5):
        measured = batcher.submit(ask(number))
        await turn()
        executor.release()
        await measured
    assert numbers(await batcher.submit(ask(6))) == [12]
    step = QUICK_SECONDS * 100
    assert numbers(await batcher.submit(ask(7))) == [14]
    later = batcher.submit(ask(8))
    await turn()
    assert len(executor.held) == 1
    executor.release()
    assert numbers(await later) == [16]


class Turning:
    """Quick until it is told to work, and remembers the thread of each call."""

    def __init__(self) -> None:
        self.works_seconds = 0.0
        self.threads: list[int] = []

    def __call__(self, request: InferRequest) -> InferResponse:
        self.threads.append(threading.get_ident())
        end = time.thread_time() + self.works_seconds
        while time.thread_time() < end:
            pass
        return InferResponse(model="m", outputs=request.inputs)


async def test_a_model_that_turned_slow_holds_the_loop_up_once_and_comes_back_when_it_is_quick() -> None:
    model, loop_thread = Turning(), threading.get_ident()
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(model, executor=executor)
        while loop_thread not in model.threads:
            await batcher.submit(ask(1))
        model.works_seconds = 2 * SLOW_SECONDS
        model.threads.clear()
        for _ in range(4):
            await batcher.submit(ask(1))
        assert [thread == loop_thread for thread in model.threads] == [True, False, False, False]
        model.works_seconds = 0.0
        model.threads.clear()
        while loop_thread not in model.threads:
            await batcher.submit(ask(1))
        # It has to show more often than at first that it is quick again.
        assert len(model.threads) > 10


async def test_who_waits_too_long_is_told_and_the_others_are_not_late(executor: HeldExecutor, model: Doubling) -> None:
    batcher = Batcher(model, executor=executor, timeout_seconds=0.05)
    running = batcher.submit(ask(1))
    await turn()
    waiting = batcher.submit(ask(2))
    with pytest.raises(TooLate, match=r"model 'm' did not answer in 0.05 s"):
        await running
    with pytest.raises(TooLate):
        await waiting
    executor.release()
    await batcher.drained()
    in_time = batcher.submit(ask(3))
    await turn()
    executor.release()
    assert numbers(await in_time) == [6]
    assert model.calls == [[1], [3]]
    await batcher.drained()


async def test_every_call_is_told_with_what_its_requests_waited(executor: HeldExecutor, model: Doubling) -> None:
    told: list[Ran] = []
    lengths: list[int] = []
    batcher = Batcher(model, executor=executor, on_batch=told.append, on_wait=lengths.append)
    answers = [batcher.submit(ask(1, 2)), batcher.submit(ask(3))]
    await turn()
    executor.release()
    await asyncio.gather(*answers)
    (ran,) = told
    assert (len(ran.waits), ran.rows) == (2, 3)
    assert min(ran.waits) >= 0
    assert lengths == [1, 2, 0]
