"""What a storage provider must do: list a model's objects, and say where each is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qsl, unquote, urlsplit

from servery_sdk.digests import Digest
from servery_sdk.errors import Permanent, Transient


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
        digest: Of the whole object, where listing tells it.
        has_ranges: Whether the source sends a part of it.
    """

    path: str
    source: str
    size_bytes: int | None = None
    version: str | None = None
    digest: Digest | None = None
    has_ranges: bool = True


def path_below(key: str, prefix: str) -> str | None:
    """Return an object's path below ``prefix``: its name for the object of that very key, None for a sibling whose name
    only begins like it (``llm-other`` for ``llm``).
    """
    if not prefix:
        return key
    if key == prefix:
        return key.rpartition("/")[2]
    return key.removeprefix(f"{prefix}/") if key.startswith(f"{prefix}/") else None


class StorageProvider(Protocol):
    """One kind of source; it is ``Addressed`` or ``Streamed`` as well.

    Raises ``errors.Transient`` or ``errors.Permanent``, nothing else of its own.
    """

    @property
    def name(self) -> str:
        """The provider's own name, ``s3``."""

    @property
    def schemes(self) -> frozenset[str]:
        """URI schemes that it answers for."""

    def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield every object under ``uri``: the exact object, or all below ``uri/``, never a sibling prefix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Whom an HTTPS connection trusts, and what it shows of itself; equal values share connections."""

    verify: bool = True
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where an object is read by HTTP ``GET``, whole or by ``Range``.

    Attributes:
        url: Absolute, with its query already encoded.
        headers: Lower-case names. ``if-match`` holds an object to the version that was listed; credentials
            (``authorization``, ``cookie``, ``x-amz-*``) are not sent on to another host by a redirect.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls = Tls()  # frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An HTTP answer that is not the object.

    Attributes:
        url: That answered, after redirects.
        headers: Lower-case names.
        body: Its beginning, 64 KiB at most.
    """

    url: str
    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    def failure(self, what: str, advice: str = "") -> Transient | Permanent:
        """Return what the status means by HTTP's own words: to be tried again, or final."""
        said = f"{what}: the server answered {self.status} {self.reason}".rstrip() + (f"; {advice}" if advice else "")
        if self.status in _TRANSIENT:
            return Transient(said, retry_after_seconds=self.retry_after_seconds)
        if self.status == HTTPStatus.PRECONDITION_FAILED:
            return Permanent(f"{said}; the object changed during the download")
        return Permanent(said)

    @property
    def retry_after_seconds(self) -> float | None:
        """What the server asks to wait, in seconds or until a date, told from its own clock."""
        value = self.headers.get("retry-after", "")
        if value.isdigit():
            return float(value)
        try:
            wanted, now = parsedate_to_datetime(value), parsedate_to_datetime(self.headers["date"])
        except (KeyError, ValueError):
            return None
        return max(0.0, (wanted - now).total_seconds())


_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


@runtime_checkable
class Addressed(Protocol):
    """A provider whose objects HTTP reads: it says where, and the engine moves the bytes, many ranges at once.

    The three are called from several threads at once, and may wait for the network.
    """

    def locate(self, entry: StorageEntry) -> Location:
        """Return where ``entry`` is read. Called for each request, so a signature or a token need not last."""

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what an answer other than 200 and 206 means; ``Refusal.failure`` knows HTTP's own words.

        A Transient of credentials that have run out makes the next ``locate`` find new ones.
        """

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return the whole object's sum, of what listing and an answer's headers (lower-case names) tell."""


class Sink(Protocol):
    """Where a provider writes one entry's bytes."""

    def write(self, chunk: bytes) -> None:
        """Append ``chunk``; may raise OSError (a full disk), which a provider lets pass."""


@runtime_checkable
class Streamed(Protocol):
    """A provider that moves the bytes itself."""

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Write the bytes of ``entry`` from ``offset`` on to ``sink``."""
