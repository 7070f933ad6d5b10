"""Weights as they are written, and the whole percents that they mean."""

from __future__ import annotations

from collections.abc import Sequence

DEFAULT_WEIGHT = 100
"""Of a predictor that says nothing, which is KubeDL's."""

WHOLE = 100


def percents(weights: Sequence[int]) -> tuple[int, ...]:
    """Return each weight's share in whole percents that sum to 100, by largest remainder, ties to the first.

    Args:
        weights: None is negative, and one of several is above 0.

    Source: KubeDL computePredictorTrafficRatios, which rounds down: 33, 33, 33 there lose a request in a hundred.
    """
    if len(weights) == 1:
        return (WHOLE,)
    total = sum(weights)
    shares = [weight * WHOLE // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda index: -(weights[index] * WHOLE % total))
    for index in by_remainder[: WHOLE - sum(shares)]:
        shares[index] += 1
    return tuple(shares)
