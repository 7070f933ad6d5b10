"""What a storage provider must do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import parse_qsl, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class StorageUri:
    """A parsed storage URI. ``path`` has no leading slash."""

    scheme: str
    host: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    text: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str) -> StorageUri:
        """Return the parts of ``text``; a plain path has the scheme ``file``."""
        if "://" not in text:
            return cls("file", "", text.lstrip("/"), (), text)
        parts = urlsplit(text)
        return cls(
            parts.scheme.lower(), parts.netloc, unquote(parts.path).lstrip("/"), tuple(parse_qsl(parts.query)), text
        )

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageEntry:
    """One object of a model.

    Attributes:
        path: Relative POSIX path in the target directory.
        size_bytes: None where the source does not say.
        version: ETag or generation; two fetches of one version give equal bytes.
        source: The provider's own key.
    """

    path: str
    source: str
    size_bytes: int | None = None
    version: str | None = None


def path_below(key: str, prefix: str) -> str | None:
    """Return an object's path below ``prefix``: its name for the object of that very key, None for a sibling whose name
    only begins like it (``llm-other`` for ``llm``).
    """
    if not prefix:
        return key
    if key == prefix:
        return key.rpartition("/")[2]
    return key.removeprefix(f"{prefix}/") if key.startswith(f"{prefix}/") else None


class Sink(Protocol):
    """Where a provider writes one entry's bytes."""

    def write(self, chunk: bytes) -> None:
        """Append ``chunk``; may raise OSError (a full disk), which a provider lets pass."""


class StorageProvider(Protocol):
    """One kind of source. Raises ``errors.Transient`` or ``errors.Permanent``, nothing else of its own."""

    @property
    def name(self) -> str:
        """The provider's own name, ``s3``."""

    @property
    def schemes(self) -> frozenset[str]:
        """URI schemes that it answers for."""

    def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield every object under ``uri``: the exact object, or all below ``uri/``, never a sibling prefix."""

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Write the bytes of ``entry`` from ``offset`` on to ``sink``."""
