"""What the clients of one server found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 3
"""Of each kind, in words."""


@dataclass(slots=True)
class Tally:
    """Counts of exchanges.

    Attributes:
        right: By kind of exchange; answered as it had to be.
        left: By kind; where the client went away first, and no answer was due.
        lost: By kind; asked, and never answered.
        wrong: By kind; answered otherwise than it had to be.
        words: The first lost and wrong ones of each kind, in words.
    """

    right: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def lose(self, kind: str, why: str) -> None:
        """Count a lost answer."""
        self.lost[kind] += 1
        if self.lost[kind] <= SHOWN:
            self.words.append(f"lost  {kind}: {why}"[:500])

    def err(self, kind: str, why: str) -> None:
        """Count a wrong answer."""
        self.wrong[kind] += 1
        if self.wrong[kind] <= SHOWN:
            self.words.append(f"wrong {kind}: {why}"[:500])

    def add(self, other: Tally) -> None:
        """Add what another found."""
        for mine, theirs in (
            (self.right, other.right),
            (self.left, other.left),
            (self.lost, other.lost),
            (self.wrong, other.wrong),
        ):
            mine.update(theirs)
        self.words.extend(other.words)
