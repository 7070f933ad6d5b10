"""Which waiting requests go next. Pure."""

from __future__ import annotations

import itertools
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Which calls are worth a wait.

    Attributes:
        preferred_rows: Of a call; empty where only the largest is worth it.
        max_delay_seconds: From the oldest request's coming.
    """

    preferred_rows: tuple[int, ...] = ()
    max_delay_seconds: float = 0.0


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


def hold_seconds(
    waiting: Sequence[Queued], chosen: list[int], patience: Patience, *, waited_seconds: float, max_rows: int
) -> float:
    """Cut ``chosen`` down to the most requests of a preferred number of rows; return how long it may wait for more.

    Zero where it goes now: it has a preferred number of rows, or all that fit, or the oldest waited long enough. A
    request that goes alone gains nothing by waiting.

    Source: Triton, "Dynamic Batcher": preferred sizes go at once, others when the delay is over.
    """
    rows = list(itertools.accumulate(waiting[index].rows for index in chosen))
    preferred = [count for count, total in enumerate(rows, 1) if total in patience.preferred_rows]
    if preferred:
        del chosen[preferred[-1] :]
        return 0.0
    is_full = not chosen or waiting[chosen[0]].key is None or rows[-1] >= max(patience.preferred_rows or (max_rows,))
    return 0.0 if is_full else max(0.0, patience.max_delay_seconds - waited_seconds)
