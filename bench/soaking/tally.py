"""What the clients of one server found."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 20


@dataclass(slots=True)
class Tally:
    """Counts of exchanges.

    Attributes:
        right: By kind of exchange; answered as it had to be.
        left: By kind; where the client went away first, and no answer was due.
        lost: By kind; asked, and never answered.
        wrong: By kind; answered otherwise than it had to be.
        words: The first of the lost and wrong ones, in words.
    """

    right: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def lose(self, kind: str, why: str) -> None:
        """Count a lost answer."""
        self.lost[kind] += 1
        self._say(f"lost  {kind}: {why}")

    def err(self, kind: str, why: str) -> None:
        """Count a wrong answer."""
        self.wrong[kind] += 1
        self._say(f"wrong {kind}: {why}")

    def _say(self, words: str) -> None:
        if len(self.words) < SHOWN:
            self.words.append(words[:500])

    def add(self, other: Tally) -> None:
        """Add what another found."""
        for mine, theirs in (
            (self.right, other.right),
            (self.left, other.left),
            (self.lost, other.lost),
            (self.wrong, other.wrong),
        ):
            mine.update(theirs)
        self.words = [*self.words, *other.words][:SHOWN]
