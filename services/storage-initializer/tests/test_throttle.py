from __future__ import annotations

import pytest
from servery_sdk.errors import Transient
from servery_storage.backoff import delay_seconds
from servery_storage.throttle import Throttle


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False

    def __call__(self) -> float:
        return self.now


def test_bytes_pass_at_the_rate_and_no_faster() -> None:
    clock = Clock()
    throttle = Throttle(100, clock.wait, clock)
    for _ in range(10):
        throttle.passed(50)
    assert clock.now == pytest.approx(5.0)


def test_what_was_not_used_is_not_saved_up() -> None:
    clock = Clock()
    throttle = Throttle(100, clock.wait, clock)
    clock.now = 60.0
    throttle.passed(200)
    assert clock.now == pytest.approx(62.0)


def test_no_bound_waits_for_nothing() -> None:
    clock = Clock()
    Throttle(0, clock.wait, clock).passed(10**12)
    assert clock.now == 0.0


@pytest.mark.parametrize(("tries", "jitter", "wait"), [(1, 0.5, 1.0), (3, 0.5, 4.0), (3, 0.0, 2.0), (3, 1.0, 6.0)])
def test_waits_double_and_are_spread(tries: int, jitter: float, wait: float) -> None:
    assert delay_seconds(tries, Transient("x"), first_seconds=1.0, jitter=jitter) == wait


def test_wait_that_is_asked_for_counts_where_it_is_longer() -> None:
    asked = Transient("x", retry_after_seconds=7.0)
    assert delay_seconds(1, asked, first_seconds=1.0, jitter=0.5) == 7.0
    assert delay_seconds(5, asked, first_seconds=1.0, jitter=0.5) == 16.0
