"""What a request leaves behind when it is over."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest
from servery_http.messages import Pending, Request
from servery_predictor.dataplane import DataPlane
from servery_predictor.rest import HotRoutes
from servery_predictor.server import Predictor
from servery_sdk.protocol import InferRequest, v1

BODY = b'{"instances": [[6.8, 2.8, 4.8, 1.4]]}'


@pytest.fixture
def requests() -> Iterator[Callable[[], int]]:
    """Counts those that are in memory, and lets the garbage collector rest."""
    gc.collect()
    gc.disable()
    yield lambda: sum(isinstance(held, InferRequest) for held in gc.get_objects())
    gc.enable()


async def by_rest(plane: DataPlane) -> None:
    handler = HotRoutes(plane)("POST", "/v1/models/iris:predict")
    assert handler is not None
    answer = handler(Request("POST", "/v1/models/iris:predict", b"", [], BODY))
    assert isinstance(answer, Pending)
    assert (await answer).status == 200


async def by_task(plane: DataPlane) -> None:
    await plane.infer(v1.decode_request(BODY, model="iris"), protocol="v1")


async def given_up(plane: DataPlane) -> None:
    asking = asyncio.create_task(by_task(plane))
    await asyncio.sleep(0)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    # The next one's batch looks at it and passes it over.
    await by_task(plane)


@pytest.mark.parametrize("ask", [by_rest, by_task, given_up])
async def test_a_requests_tensors_go_with_it(
    ask: Callable[[DataPlane], Awaitable[None]],
    predictor: Predictor,
    requests: Callable[[], int],
    eventually: Callable[[Callable[[], bool]], Awaitable[None]],
) -> None:
    before = requests()
    for _ in range(10):
        await ask(predictor.plane)
    # The last one's batch lives a moment longer, in the thread that computed it.
    await eventually(lambda: requests() <= before + 1)
