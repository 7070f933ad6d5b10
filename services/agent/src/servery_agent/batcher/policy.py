"""Which waiting requests go to the predictor now. Pure.

A predictor that is idle gets what there is at once. While it computes, requests gather: they go when it is free, when
they fill a batch, or when the oldest has waited as long as it may.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from servery_sdk.protocol.gathering import Queued, next_batch


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLimits:
    """What a batch may be.

    Attributes:
        max_rows: Of one; a request is never split, and one alone may have more.
        max_wait_seconds: Of a request, for others to come or for the predictor to be free.
        timeout_seconds: From a batch's call to its answer; None for as long as the agent waits for any.
        busy_batches: Batches of one model, not full, that keep the next from going before it must.
        max_requests: That may wait for one model.
    """

    max_rows: int = 32
    max_wait_seconds: float = 5.0
    timeout_seconds: float | None = None
    busy_batches: int = 1
    max_requests: int = 1000


class Waiting(Queued, Protocol):
    """A request that waits; ``came`` is when it did."""

    @property
    def came(self) -> float: ...


def going(waiting: Sequence[Waiting], limits: BatchLimits, *, now: float, is_free: bool) -> list[int]:
    """Return the indices of what goes now as one batch, empty where all wait on. No key is None."""
    if not waiting:
        return []
    if is_free or now - waiting[0].came >= limits.max_wait_seconds:
        return next_batch(waiting, max_rows=limits.max_rows)
    rows: dict[Hashable, int] = {}
    for one in waiting:
        rows[one.key] = rows.get(one.key, 0) + one.rows
        if rows[one.key] >= limits.max_rows:
            alike = [index for index, other in enumerate(waiting) if other.key == one.key]
            return [alike[at] for at in next_batch([waiting[index] for index in alike], max_rows=limits.max_rows)]
    return []
