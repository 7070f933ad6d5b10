"""Which waiting requests go next. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Queued(Protocol):
    """A request as the policy sees it; a ``key`` of None stands alone."""

    @property
    def key(self) -> Hashable: ...

    @property
    def rows(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nothing but what the policy sees."""

    key: Hashable
    rows: int


def next_batch(waiting: Sequence[Queued], *, max_rows: int) -> list[int]:
    """Return the indices to send together: the oldest, and all later ones that may go with it and still fit.

    A request that does not fit is passed over, but never by another of its own key: order within a key holds.
    One request alone may exceed ``max_rows``; requests are never split.
    """
    if not waiting:
        return []
    first = waiting[0]
    chosen, rows, key = [0], first.rows, first.key
    if key is None:
        return chosen
    for index in range(1, len(waiting)):
        other = waiting[index]
        if other.key != key:
            continue
        rows += other.rows
        if rows > max_rows:
            break
        chosen.append(index)
    return chosen
