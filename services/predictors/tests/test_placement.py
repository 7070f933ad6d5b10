"""Where a model is called: pure, with hysteresis."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_predictor.batching.placement import QUICK_SECONDS, SLOW_SECONDS, Placement

QUICK = {"seconds": QUICK_SECONDS / 2, "cpu_seconds": QUICK_SECONDS / 2, "waited": False}
BETWEEN = {"seconds": (QUICK_SECONDS + SLOW_SECONDS) / 2, "cpu_seconds": QUICK_SECONDS, "waited": False}
SLOW = {"seconds": SLOW_SECONDS * 2, "cpu_seconds": SLOW_SECONDS * 2, "waited": False}
SLEEPY = {"seconds": 0.05, "cpu_seconds": 0.0, "waited": True}
PREEMPTED = {"seconds": 0.05, "cpu_seconds": QUICK_SECONDS / 2, "waited": False}
WAITED_FOR_THE_LOCK = {"seconds": 0.005, "cpu_seconds": QUICK_SECONDS / 2, "waited": True}

Call = dict[str, Any]


def after(*calls: Call, start: Placement | None = None) -> Placement:
    placement = start or Placement()
    for call in calls:
        placement = placement.after(**call)
    return placement


@pytest.mark.parametrize(
    ("calls", "is_inline"),
    [
        pytest.param([], False, id="nothing-is-known"),
        pytest.param([QUICK] * 4, False, id="first-calls-lie"),
        pytest.param([QUICK] * 5, True, id="quick-in-a-row"),
        pytest.param([SLOW, *[QUICK] * 5], True, id="the-first-call-may-be-slow"),
        pytest.param([QUICK, QUICK, QUICK, QUICK, SLOW, QUICK], False, id="not-in-a-row"),
        pytest.param([SLEEPY] * 100, False, id="a-model-that-waits-is-not-quick"),
        pytest.param([WAITED_FOR_THE_LOCK] * 5, True, id="waiting-for-the-interpreter-is-not-the-models-fault"),
        pytest.param([*[QUICK] * 5, SLOW], False, id="one-slow-call-and-it-leaves"),
        pytest.param([*[QUICK] * 5, SLEEPY], False, id="one-that-waits-and-it-leaves"),
        pytest.param([*[QUICK] * 5, PREEMPTED], True, id="kept-from-running-it-stays"),
        pytest.param([*[QUICK] * 5, BETWEEN], True, id="between-the-bounds-it-stays"),
        pytest.param([*[QUICK] * 5, SLOW, *[QUICK] * 9], False, id="it-comes-back-later"),
        pytest.param([*[QUICK] * 5, SLOW, *[QUICK] * 10], True, id="it-comes-back"),
    ],
)
def test_a_model_is_called_on_the_loop(calls: list[Call], is_inline: bool) -> None:
    assert after(*calls).is_inline is is_inline


def test_a_model_that_keeps_turning_slow_is_ever_more_seldom_on_the_loop() -> None:
    placement, stays = Placement(), []
    for _ in range(12):
        calls = 0
        while not placement.is_inline:
            placement = placement.after(**QUICK)
            calls += 1
        stays.append(calls)
        placement = placement.after(**SLOW)
    assert stays[:4] == [5, 10, 20, 40]
    assert stays[-1] == stays[-2] == 640


@given(st.lists(st.sampled_from([QUICK, BETWEEN, SLOW, SLEEPY, PREEMPTED, WAITED_FOR_THE_LOCK]), max_size=200))
def test_no_slow_call_is_ever_followed_by_one_on_the_loop(calls: list[Call]) -> None:
    placement = Placement()
    for call in calls:
        placement = placement.after(**call)
        assert not (placement.is_inline and call in (SLOW, SLEEPY))
