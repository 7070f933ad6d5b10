"""Which waiting requests go next. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request as the policy sees it; a ``key`` of None stands alone."""

    key: Hashable
    rows: int


def next_batch(waiting: Sequence[Waiting], *, max_rows: int) -> list[int]:
    """Return the indices to send together: the oldest, and all later ones that may go with it and still fit.

    A request that does not fit is passed over, but never by another of its own key: order within a key holds.
    One request alone may exceed ``max_rows``; requests are never split.
    """
    if not waiting:
        return []
    first = waiting[0]
    chosen, rows = [0], first.rows
    if first.key is None:
        return chosen
    for index in range(1, len(waiting)):
        if waiting[index].key != first.key:
            continue
        if rows + waiting[index].rows > max_rows:
            break
        chosen.append(index)
        rows += waiting[index].rows
    return chosen
