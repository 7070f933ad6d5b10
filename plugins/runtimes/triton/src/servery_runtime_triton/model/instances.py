"""The instances of one version of a model: as many calls run at once as there are instances."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

from servery_sdk.errors import ErrorCode

from servery_runtime_triton.model.backends import Backend
from servery_runtime_triton.model.failures import ModelError

_held: ContextVar[tuple[Instances, ...]] = ContextVar("instances that this call and its callers hold", default=())


class Instances:
    """Lends an instance to each call.

    Args:
        model: Name, for errors.
        made: The instances; one that answers several threads may be in it more than once.
    """

    def __init__(self, model: str, made: Sequence[Backend]) -> None:
        self._model = model
        self._made = tuple(made)
        self._free: queue.SimpleQueue[Backend] = queue.SimpleQueue()
        for instance in self._made:
            self._free.put(instance)

    @property
    def gathers(self) -> bool:
        """Whether a call takes several requests as they are."""
        return self._made[0].gathers

    @contextlib.contextmanager
    def lent(self) -> Iterator[Backend]:
        """Wait for a free instance and hold it.

        Raises:
            ModelError: The callers of this call hold all of them: none would ever be free.
        """
        held = _held.get()
        if held.count(self) >= len(self._made):
            raise ModelError(
                f"model {self._model!r} calls itself, and all of its {len(self._made)} instances wait for that; "
                "raise the count of its instance_group",
                code=ErrorCode.RESOURCE_EXHAUSTED,
            )
        instance = self._free.get()
        token = _held.set((*held, self))
        try:
            yield instance
        finally:
            _held.reset(token)
            self._free.put(instance)

    @property
    def distinct(self) -> tuple[Backend, ...]:
        """The instances, each once."""
        return tuple({id(instance): instance for instance in self._made}.values())

    def close(self) -> None:
        """Give every instance back."""
        for instance in self.distinct:
            instance.close()
