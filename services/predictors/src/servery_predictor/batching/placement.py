"""Whether a model is called on the event loop or in its thread. Pure."""

from __future__ import annotations

from dataclasses import dataclass

QUICK_SECONDS = 0.001
"""A call under this may run on the event loop: a thread costs 0.1 ms, and more where both want the interpreter."""

SLOW_SECONDS = 4 * QUICK_SECONDS
"""A call on the loop that takes longer sends the model back to its thread, at once."""

_LOCK_SECONDS = 0.005
"""What a quick call in a thread may wait for the interpreter's lock, beside its own time (sys.getswitchinterval)."""

_FIRST_CALLS = 5
_MOST_CALLS = 640


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a model's next call runs, and what decides that.

    Attributes:
        is_inline: On the event loop.
        quick_calls: In a row, in the thread.
        needed_calls: Quick ones in a row that bring the model to the loop: few at first, for the first calls warm
            caches and lie; twice as many each time that it had to leave.
    """

    is_inline: bool = False
    quick_calls: int = 0
    needed_calls: int = _FIRST_CALLS

    def after(self, *, seconds: float, cpu_seconds: float, waited: bool) -> Placement:
        """Return the placement of the next call.

        Args:
            seconds: That the last call took.
            cpu_seconds: Of them, those that its thread worked. In a thread a call also waits for the interpreter's
                lock, and a quick model of a busy server would never look quick.
            waited: Whether it gave the processor away by itself, as one does that reads or sleeps. A call that did
                not, and took long without working, was kept from running: a thread would have been, too.
        """
        if self.is_inline:
            if max(cpu_seconds, seconds if waited else 0.0) <= SLOW_SECONDS:
                return self
            return Placement(needed_calls=min(2 * self.needed_calls, _MOST_CALLS))
        if cpu_seconds >= QUICK_SECONDS or seconds >= QUICK_SECONDS + _LOCK_SECONDS:
            return Placement(needed_calls=self.needed_calls)
        quick = self.quick_calls + 1
        return Placement(quick >= self.needed_calls, quick, self.needed_calls)
