"""Which of a model's files are wanted.

Source: KServe's STORAGE_ALLOW_PATTERNS and STORAGE_IGNORE_PATTERNS, JSON lists or comma separated, fnmatch on the path.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from glob import escape


@dataclass(frozen=True, slots=True)
class Patterns:
    """Allowed and ignored paths; no allowed pattern allows all."""

    allow: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Patterns:
        """Return what KServe's two variables say."""
        return cls(
            _listed(environment.get("STORAGE_ALLOW_PATTERNS", "")),
            _listed(environment.get("STORAGE_IGNORE_PATTERNS", "")),
        )

    def but(self, paths: Iterable[str]) -> Patterns:
        """Return the same without some files."""
        return replace(self, ignore=(*self.ignore, *map(escape, paths)))

    def wants(self, path: str) -> bool:
        """Return whether the file at the relative ``path`` is wanted."""
        if self.allow and not any(fnmatch(path, pattern) for pattern in self.allow):
            return False
        return not any(fnmatch(path, pattern) for pattern in self.ignore)


def _listed(text: str) -> tuple[str, ...]:
    if text.strip().startswith("["):
        return tuple(map(str, json.loads(text)))
    return tuple(part.strip() for part in text.split(",") if part.strip())
