"""Numbers that outlive their process: a file of counters, mapped into memory, so that one costs no system call.

The system keeps what was written to the map when its process is killed; only the machine's own end loses it.
"""

from __future__ import annotations

import enum
import mmap
import struct
from pathlib import Path

_SLOT = struct.Struct("<Q")
_BYTES = 4096


class Count(enum.IntEnum):
    """What is counted. Each has one writer: the agent's loop, its spool's thread, or the process that delivers."""

    ACCEPTED = 0
    """The last event's number; the loop's."""
    DROPPED_QUEUE_FULL = 1
    DROPPED_CRASH = 2
    """Accepted, and not on disk when the process was killed: known when the next one starts."""
    ACCOUNTED = 3
    """The last event's number that was written or dropped; the thread's, as what follows."""
    SPOOLED_BYTES = 4
    DROPPED_SPOOL_FULL = 5
    DROPPED_DISK = 6
    SETTLED = 7
    """The last event's number before which all were delivered or put aside; the deliverer's, as what follows."""
    DELIVERED = 8
    DEAD = 9
    """Put aside, for the sink refused them for good."""
    DEAD_LOST = 10
    """Put aside, and let go since."""
    FAILED_ATTEMPTS = 11
    IS_FAILING = 12
    """1 from a failed attempt to one that succeeds."""
    WITHHELD = 13
    BEGUN = 14
    """The last event's number when this agent began, which knows of all that came since how it was written; the loop's."""


class Ledger:
    """The counters of one file, all 0 where it is new. Two processes may have it open at once."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_BYTES)
            self._map = mmap.mmap(file.fileno(), _BYTES)

    def __getitem__(self, count: Count) -> int:
        """Return a counter."""
        found: int = _SLOT.unpack_from(self._map, count * _SLOT.size)[0]
        return found

    def __setitem__(self, count: Count, value: int) -> None:
        """Set one."""
        _SLOT.pack_into(self._map, count * _SLOT.size, value)

    def add(self, count: Count, more: int = 1) -> None:
        """Add to one."""
        self[count] += more

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
