"""Words and tables as Markdown has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

BREAK = "<br>"


def words(text: str) -> str:
    """Return ``text`` in one line, fit for a cell."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def code(text: str) -> str:
    """Return ``text`` as code, fit for a cell."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}".replace("|", "\\|")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))
