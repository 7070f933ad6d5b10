"""A request's place in a queue, and what becomes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import TypeAlias

from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse

Outcome: TypeAlias = InferResponse | ServeryError
Ability: TypeAlias = Callable[[InferRequest], InferResponse]
"""What a model can be asked for."""


class Ticket:
    """A request's place in the queue. A subclass says who is told.

    Args:
        protocol: What it came as.
        ability: What is asked for; None is ``predict``.

    Attributes:
        came: Of ``time.perf_counter``.
        is_over: It is answered, or nobody asks any more.
        recall: Called when it is over without its answer, while the model works on it.
        key: With what others it may be merged, and ``rows`` of it: the queue's to say.
    """

    __slots__ = ("ability", "came", "is_over", "key", "protocol", "recall", "request", "rows")

    def __init__(self, request: InferRequest, protocol: str, ability: Ability | None = None) -> None:
        self.request = request
        self.protocol = protocol
        self.ability = ability
        self.came = time.perf_counter()
        self.is_over = False
        self.key: Hashable = None
        self.recall: Callable[[], None] | None = None
        self.rows = 1

    def tell(self, outcome: Outcome) -> None:
        """Hand the answer to who asked; called once at most. It must not raise."""
        raise NotImplementedError

    def cancel(self, msg: object = None) -> bool:
        """Ask for no answer, as one cancels a task: what still waits is not computed. Returns whether anybody asked."""
        if self.is_over:
            return False
        self.is_over = True
        self.recalled()
        return True

    def recalled(self) -> None:
        """Have the model stop, if it works on it and can."""
        if self.recall is not None:
            self.recall()
            self.recall = None

    def finish(self, outcome: Outcome) -> None:
        """Tell who asked, unless nobody does any more."""
        if not self.is_over:
            self.is_over = True
            self.tell(outcome)

    def fail(self, failure: ServeryError) -> None:
        """Tell who asked that no call of the model answers it."""
        self.finish(failure)
