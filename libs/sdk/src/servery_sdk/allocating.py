"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping

logger = logging.getLogger(__name__)

KEPT_BYTES = 64 << 20
"""Of freed memory, for each of the allocator's arenas; those of threads have no more in a piece."""

_SHARED_BYTES = 32 << 20
"""Blocks below are taken from what was freed, larger ones from the system: the most that the allocator takes."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SAID = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Have the process keep what a model's call frees, for the next call; returns whether it does.

    glibc gives the end of its heap back to the system as soon as a few megabytes are free there, and a network's next
    call gets the same memory page by page, each zeroed, at a fault each: a third of the time of a small network whose
    layers' results are 3.5 MB. What is kept is less than the most that was ever in use. Left alone are allocators that
    have no such setting, and one that ``environment`` has settings for.

    Source: mallopt(3), M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; malloc/arena.c, ``heap_trim``.
    """
    if any(name in environment for name in _SAID):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    # One without the other would hold the threshold of blocks at 128 KiB, which else grows by itself.
    is_kept = bool(mallopt(_TRIM_THRESHOLD, KEPT_BYTES)) and bool(mallopt(_MMAP_THRESHOLD, _SHARED_BYTES))
    logger.debug("freed memory stays with the process", extra={"bytes": KEPT_BYTES, "is_kept": is_kept})
    return is_kept
