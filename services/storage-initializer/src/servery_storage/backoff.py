"""How long to wait before the next try: pure but for the jitter, which is given."""

from __future__ import annotations

from servery_sdk.errors import Transient


def delay_seconds(tries: int, error: Transient, *, first_seconds: float, jitter: float) -> float:
    """Return the wait after ``tries`` failures: doubling, never below what the other side asked for.

    Args:
        first_seconds: After the first failure.
        jitter: From 0 to 1, evenly spread: from half to one and a half of the wait, so that many pods that failed
            together do not come back together.
    """
    return max(first_seconds * 2.0 ** (tries - 1) * (0.5 + jitter), error.retry_after_seconds or 0.0)
