"""One process, and one task of it, at a time: the kernel's file locks, which end with who holds them."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

POLL_SECONDS = 0.05
"""The loop must go on meanwhile, and nothing tells it that a lock is free."""


@asynccontextmanager
async def held(path: Path, waits: Callable[[], None] = lambda: None) -> AsyncIterator[int]:
    """Hold the lock of the directory ``path``, which is made, and which its last holder may take away; yield its descriptor.

    Args:
        waits: Called once if somebody else has it.
    """
    descriptor = -1
    has_waited = False
    while descriptor < 0:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = _is_still(descriptor, path)
        except BlockingIOError:
            is_held = False
            if not has_waited:
                waits()
            has_waited = True
        if not is_held:
            os.close(descriptor)
            descriptor = -1
            await asyncio.sleep(POLL_SECONDS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether what was locked is what lies there: who held it before may have taken it away."""
    try:
        there, locked = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino)
