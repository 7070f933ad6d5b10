"""How many requests may be with the server behind us at once, and how many wait for that: KServe's ``containerConcurrency``."""

from __future__ import annotations

from collections.abc import Callable


class Gate:
    """Counts requests in and out; those that wait are let in first-come first-served.

    Args:
        most: In at once; None for any number.
        most_waiting: Beyond it one is turned away.

    Attributes:
        inside: Requests that are with the server now.
        held_bytes: Of bodies that wait over HTTP/2, whose flow control stops one stream and not the connection.
    """

    __slots__ = ("_most", "_most_waiting", "_waiting", "held_bytes", "inside")

    def __init__(self, most: int | None = None, most_waiting: int = 0) -> None:
        self._most = most
        self._most_waiting = most_waiting
        self._waiting: dict[Callable[[], None], None] = {}
        self.inside = 0
        self.held_bytes = 0

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def enter(self, let_in: Callable[[], None]) -> bool | None:
        """Return True where the caller is in, False where it waits for ``let_in``, None where it is turned away."""
        if self._most is None or self.inside < self._most:
            self.inside += 1
            return True
        if len(self._waiting) >= self._most_waiting:
            return None
        self._waiting[let_in] = None
        return False

    def give_up(self, let_in: Callable[[], None]) -> None:
        """Wait no longer."""
        self._waiting.pop(let_in, None)

    def leave(self) -> None:
        """Make room for the next."""
        if self._waiting:
            let_in = next(iter(self._waiting))
            del self._waiting[let_in]
            let_in()
        else:
            self.inside -= 1
