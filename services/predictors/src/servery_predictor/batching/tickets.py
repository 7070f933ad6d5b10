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
    """A request's place in the queue.

    Args:
        done: Called with the answer, once; it must not raise.
        ability: What is asked for; None is ``predict``.

    Attributes:
        came: Of ``time.perf_counter``.
        is_over: It is answered, or nobody asks any more.
        recall: Called when it is over without its answer, while the model works on it.
        key: With what others it may be merged, and ``rows`` of it: the queue's to say.
    """

    __slots__ = ("_done", "ability", "came", "is_over", "key", "recall", "request", "rows")

    def __init__(self, request: InferRequest, done: Done, ability: Ability | None = None) -> None:
        self.request = request
        self.ability = ability
        self.came = time.perf_counter()
        self.is_over = False
        self.key: Hashable = None
        self.recall: Callable[[], None] | None = None
        self.rows = 1
        self._done = done

    def cancel(self) -> None:
        """Ask for no answer: what still waits is not computed."""
        self.is_over = True
        self.recalled()

    def recalled(self) -> None:
        """Have the model stop, if it works on it and can."""
        if self.recall is not None:
            self.recall()
            self.recall = None

    def finish(self, outcome: Outcome) -> None:
        """Tell who asked, unless nobody does any more."""
        if not self.is_over:
            self.is_over = True
            self._done(outcome)
