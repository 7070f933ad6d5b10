"""How long to wait before a sink that failed is asked again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SECONDS = 0.1
MOST_SECONDS = 10.0
_DOUBLINGS = 10


@dataclass(slots=True)
class Patience:
    """Of one sink: all that is sent to it shares one count of failures, since a sink that is down is down for all."""

    failures: int = 0

    def succeeded(self) -> None:
        """Begin anew."""
        self.failures = 0

    def failed(self, luck: float, retry_after_seconds: float | None = None) -> float:
        """Return how many seconds to wait.

        Args:
            luck: From 0 to 1, by chance: those who failed together do not come back together.
            retry_after_seconds: What the sink asked for, which counts where it is longer; up to a minute.
        """
        most = min(FIRST_SECONDS * float(1 << min(self.failures, _DOUBLINGS)), MOST_SECONDS)
        self.failures += 1
        return max(most * (0.5 + luck / 2), min(retry_after_seconds or 0.0, 60.0))
