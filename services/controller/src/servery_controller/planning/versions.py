"""Whether a runtime's version of something answers a model's.

Source: OME pkg/modelver: one to three numbers, an optional ``v``, pre-release and build behind; versions of another
precision or prefix are not compared, and unofficial ones only for equality.
"""

from __future__ import annotations

import re

from servery_sdk.model import VersionRule

_VERSION = re.compile(r"(v?)(\d+(?:\.\d+){0,2})([-+.].*)?")


def answers(offered: str | None, rule: VersionRule, asked: str | None) -> bool:
    """Return whether ``offered`` stands in ``rule`` to ``asked``; one that is missing answers only another such."""
    if offered is None or asked is None:
        return offered == asked
    ours, theirs = _VERSION.fullmatch(offered), _VERSION.fullmatch(asked)
    if ours is None or theirs is None:
        return False
    numbers = [[int(part) for part in found[2].split(".")] for found in (ours, theirs)]
    if ours[1] != theirs[1] or len(numbers[0]) != len(numbers[1]):
        return False
    if ours[3] or theirs[3] or rule is VersionRule.EQUAL:
        return offered == asked
    return numbers[0] > numbers[1] if rule is VersionRule.GREATER else numbers[0] >= numbers[1]
