"""Durations as Go spells them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:ns|us|µs|ms|s|m|h))+")
_UNIT_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(duration: str) -> float | None:
    """Return how long ``1m30s`` is, None where it is no duration."""
    if not _DURATION.fullmatch(duration):
        return None
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in re.findall(r"([\d.]+)([a-zµ]+)", duration))


def _validated(value: object) -> object:
    # What is no duration may be a number of seconds: whoever validates behind us says so.
    found = seconds_of(value) if isinstance(value, str) else None
    return value if found is None else found


GoSeconds = Annotated[float, BeforeValidator(_validated)]
"""Seconds, that may be spelled as a duration."""
