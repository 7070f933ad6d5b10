"""A request's place in a queue, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TypeAlias

from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse

Outcome: TypeAlias = InferResponse | ServeryError
Done: TypeAlias = Callable[[Outcome], None]
Ability: TypeAlias = Callable[[InferRequest], InferResponse]
"""What a model can be asked for."""


class Ticket:
    """A request's place in the queue; an ``ability`` of None is ``predict``, ``came`` is of ``time.perf_counter``."""

    __slots__ = ("_done", "ability", "came", "is_over", "key", "request", "rows")

    def __init__(self, request: InferRequest, key: Hashable, rows: int, done: Done, ability: Ability | None) -> None:
        self.request = request
        self.key = key
        self.rows = rows
        self.ability = ability
        self.came = time.perf_counter()
        self.is_over = False
        self._done = done

    def cancel(self) -> None:
        """Ask for no answer: what still waits is not computed."""
        self.is_over = True

    def finish(self, outcome: Outcome) -> None:
        """Tell who asked, unless nobody does any more."""
        if not self.is_over:
            self.is_over = True
            self._done(outcome)
