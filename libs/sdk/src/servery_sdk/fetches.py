"""What an init container leaves of its fetches when it ends, as its termination message, and the controller reads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

_MESSAGE = "fetched"
_UNITS = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchReport:
    """What fetching took. Reports of several models add up.

    Attributes:
        files: Objects of the model, as the source listed them.
        fetched_bytes: That came from the source, those that had to come again included.
        cached_files: Objects that this node's cache had.
        cached_bytes: Of those.
        kept_bytes: That an earlier process had brought.
        retries: Tries that failed and were followed by another.
        seconds: From the first request to the model in its place.
    """

    files: int = 0
    fetched_bytes: int = 0
    cached_files: int = 0
    cached_bytes: int = 0
    kept_bytes: int = 0
    retries: int = 0
    seconds: float = 0.0

    def __add__(self, other: FetchReport) -> FetchReport:
        return FetchReport(**{of.name: getattr(self, of.name) + getattr(other, of.name) for of in fields(self)})

    def text(self) -> str:
        """Return the report as ``parse`` reads it: one line of JSON."""
        return json.dumps({"message": _MESSAGE, **asdict(self)})

    @classmethod
    def parse(cls, text: str) -> FetchReport | None:
        """Return the report that ``text`` is, or None where it is none: a container may leave any words."""
        try:
            found = json.loads(text)
        except ValueError:
            return None
        if not isinstance(found, dict) or found.get("message") != _MESSAGE:
            return None
        numbers = {of.name: found.get(of.name, 0) for of in fields(cls)}
        is_sound = all(isinstance(number, int | float) and number >= 0 for number in numbers.values())
        return cls(**numbers) if is_sound else None

    @property
    def words(self) -> str:
        """For people."""
        parts = [f"{self.files} {'file' if self.files == 1 else 'files'} in {self.seconds:.1f} s"]
        if self.fetched_bytes:
            rate = f" at {_size(self.fetched_bytes / self.seconds)}/s" if self.seconds else ""
            parts.append(f"{_size(self.fetched_bytes)} from the source{rate}")
        if self.cached_files:
            parts.append(f"{_size(self.cached_bytes)} ({self.cached_files} files) from this node's cache")
        if self.kept_bytes:
            parts.append(f"{_size(self.kept_bytes)} were there already")
        if self.retries:
            parts.append(f"{self.retries} {'try' if self.retries == 1 else 'tries'} failed before one went well")
        return ", ".join(parts)


def _size(size_bytes: float) -> str:
    power = 0
    while size_bytes >= 1000 and power < len(_UNITS) - 1:
        size_bytes, power = size_bytes / 1000, power + 1
    return f"{size_bytes:.{1 if power else 0}f} {_UNITS[power]}"
