"""What a model's users see while it changes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.repository import Repository
from servery_sdk.model import ModelState
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import LoadError

PATIENCE_SECONDS = 20
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
REQUEST = InferRequest(model="m", inputs=(Tensor(name="x", data=np.zeros((1, 1)), datatype=Datatype.FP64),))


class Held:
    """A model that answers when it is let go."""

    def __init__(self) -> None:
        self.asked, self.let_go = threading.Event(), threading.Event()

    def load(self, artifact: Path) -> None:
        pass

    def predict(self, request: InferRequest) -> InferResponse:
        self.asked.set()
        assert self.let_go.wait(PATIENCE_SECONDS)
        return InferResponse(model=request.model, outputs=request.inputs)


class Sequenced(Held):
    """A model that says whether it keeps sequences."""

    def __init__(self, *, is_sequenced: bool) -> None:
        super().__init__()
        self.is_sequenced = is_sequenced
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("workers", "is_sequenced", "is_served"),
    [
        pytest.param(1, True, True, id="one worker"),
        pytest.param(2, False, True, id="no sequences"),
        pytest.param(2, True, False, id="sequences over two workers"),
    ],
)
async def test_sequences_are_served_by_one_worker_only(
    workers: int, is_sequenced: bool, is_served: bool, tmp_path: Path
) -> None:
    model = Sequenced(is_sequenced=is_sequenced)

    class Factory:
        def models(self, name: str, artifact: Path) -> Mapping[str, Callable[[], Held]]:
            return {name: lambda: model}

        def program(self, name: str, artifact: Path) -> None:
            return None

    made = Repository(Factory(), Metrics(CollectorRegistry()), max_batch_rows=8, max_queue_requests=8, workers=workers)
    made.add("m", tmp_path)
    with contextlib.nullcontext() if is_served else pytest.raises(LoadError, match=r"'m' keeps sequences.*--workers=1"):
        await made.load("m")
    assert (made.entry("m").state is ModelState.LOADED, model.is_closed) == (is_served, not is_served)


async def test_a_reload_leaves_no_moment_in_which_nobody_answers(tmp_path: Path, eventually: Eventually) -> None:
    made: list[Held] = []

    class Factory:
        def models(self, name: str, artifact: Path) -> Mapping[str, Callable[[], Held]]:
            return {name: self.make}

        def program(self, name: str, artifact: Path) -> None:
            return None

        def make(self) -> Held:
            made.append(Held())
            return made[-1]

    repository = Repository(Factory(), Metrics(CollectorRegistry()), max_batch_rows=8, max_queue_requests=8)
    repository.add("m", tmp_path)
    await repository.load("m")
    in_flight = repository.batcher("m", None).submit(REQUEST)
    assert await asyncio.to_thread(made[0].asked.wait, PATIENCE_SECONDS)
    loading = asyncio.create_task(repository.load("m"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await eventually(lambda: repository.entry("m").model is not made[0])
        made[1].let_go.set()
        await repository.batcher("m", None).submit(REQUEST)
        assert not in_flight.done()
        made[0].let_go.set()
        await in_flight
        await loading
    await repository.close()
