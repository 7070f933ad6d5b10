"""When a worker that died comes back. Pure."""

from __future__ import annotations

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A worker that has lived this long died of something new."""


def deaths_in_a_row(before: int, *, lived_seconds: float) -> int:
    """Return how many workers of one place have died soon after their start, the one that died now among them."""
    return 1 if lived_seconds >= STEADY_SECONDS else before + 1


def delay_seconds(deaths: int) -> float:
    """Return how long the place stays empty: nothing after the first death, then twice as long each time."""
    return 0.0 if deaths <= 1 else min(FIRST_SECONDS * 2.0 ** (deaths - 2), LONGEST_SECONDS)
