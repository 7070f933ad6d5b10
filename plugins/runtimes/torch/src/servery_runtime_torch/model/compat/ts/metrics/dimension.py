"""Labels of metrics."""

from __future__ import annotations


class Dimension:
    """A label and its value."""

    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value
