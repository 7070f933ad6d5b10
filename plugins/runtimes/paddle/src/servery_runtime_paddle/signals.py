"""Signal handlers that a library replaces when it is imported, as paddle does: a server has its own for SIGTERM."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterator

_TAKEN = (signal.SIGTERM, signal.SIGSEGV, signal.SIGILL, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS)
_ROOM = 256
"""Bytes; ``struct sigaction`` has 152 on Linux, and less elsewhere."""


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put back at the end the handlers that there are at the start.

    Through C, because Python sets handlers on its main thread only, and models are loaded on another.
    """
    libc = ctypes.CDLL(None)
    before = {number: ctypes.create_string_buffer(_ROOM) for number in _TAKEN}
    for number, handler in before.items():
        libc.sigaction(number, None, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            libc.sigaction(number, handler, None)
