"""Python's collector of cycles, held back while a fetch runs.

It looks at all that has been imported each time that so many new objects have outlived a few others: an SDK's models and
a listing of thousands make it do so again and again, in twice the time that reading them takes, and find nothing.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = (100_000, 50, 100)
"""So many objects may be garbage until it looks: some ten MiB."""
_lock = threading.Lock()
_usual: list[tuple[int, int, int]] = []


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Let the collector run seldom until the last of those who ask for it has ended."""
    with _lock:
        _usual.append(_usual[-1] if _usual else gc.get_threshold())
        gc.set_threshold(*SELDOM)
    try:
        yield
    finally:
        with _lock:
            usual = _usual.pop()
            if not _usual:
                gc.set_threshold(*usual)
