"""A bound on bytes per second, shared by threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Throttle:
    """Lets ``bytes_per_second`` through; 0 is no bound.

    Args:
        wait: Waits for so many seconds; true ends the wait for good.
    """

    def __init__(
        self, bytes_per_second: int, wait: Callable[[float], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate, self._wait, self._clock = bytes_per_second, wait, clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def passed(self, size_bytes: int) -> None:
        """Wait until ``size_bytes`` that came are paid for: what is not read, the sender's window holds back."""
        if not self._rate:
            return
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + size_bytes / self._rate
            ahead = self._free_at - now
        self._wait(ahead)
