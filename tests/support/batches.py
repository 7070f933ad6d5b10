"""Doubles for the tests of the queue in front of a model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor


class HeldExecutor(Executor):
    """Runs what it was given when the test says so: time stands still in between."""

    def __init__(self) -> None:
        self.held: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, call: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.held.append((future, lambda: call(*args, **kwargs)))
        return future

    def release(self) -> None:
        held, self.held = self.held, []
        for future, call in held:
            future.set_result(call())


def ask(*numbers: float, name: str = "x", id: str | None = None) -> InferRequest:  # noqa: A002  # the field's name
    return InferRequest(
        model="m", id=id, inputs=(Tensor(name=name, data=np.array(numbers, float), datatype=Datatype.FP64),)
    )


def numbers(response: InferResponse) -> list[float]:
    return list(response.outputs[0].data.tolist())
