"""What a storage provider must do: list a model's objects, and say where each is read."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import parse_qsl, unquote, urlsplit

from servery_sdk.digests import Digest
from servery_sdk.errors import Permanent, Transient

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


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
        """Return the parts of ``text``; a plain path has the scheme ``file``. MLflow's URIs have one slash and no host:
        ``models:/iris/1``.
        """
        if not _SCHEME.match(text):
            return cls("file", "", text.lstrip("/"), (), text)
        parts = urlsplit(text)
        return cls(
            parts.scheme.lower(), parts.netloc, unquote(parts.path).lstrip("/"), tuple(parse_qsl(parts.query)), text
        )

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpack:
    """Makes an object the part of the model that it holds as a tar archive, plain or compressed by gzip or zstd, instead
    of a file.

    Attributes:
        order: A model's archives are unpacked from the lowest on; what a later one has replaces an earlier one's.
        below: Only members below this directory are taken, by their path below it; empty takes all.
        has_whiteouts: Names that begin with ``.wh.`` delete what earlier archives had, as in an image's layers.
    """

    order: int
    below: str = ""
    has_whiteouts: bool = False


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
        unpack: It is an archive of some of the model's files; ``path`` is then no path of the model, and patterns speak
            of the members.
    """

    path: str
    source: str
    size_bytes: int | None = None
    version: str | None = None
    digest: Digest | None = None
    has_ranges: bool = True
    unpack: Unpack | None = None


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


@runtime_checkable
class Claiming(Protocol):
    """A provider of URIs whose scheme others answer for too, as the ``https`` of an Azure account's blobs."""

    def claims(self, uri: StorageUri) -> bool:
        """Return whether the URI is this provider's, whoever answers for its scheme."""


def provider_of(uri: StorageUri, providers: Collection[StorageProvider]) -> StorageProvider | None:
    """Return who claims ``uri``, or else who answers for its scheme, or else None; the first of several."""
    found = [provider for provider in providers if isinstance(provider, Claiming) and provider.claims(uri)]
    return next(iter(found or (provider for provider in providers if uri.scheme in provider.schemes)), None)


@runtime_checkable
class Resolving(Protocol):
    """A provider of names: what they name may lie with another provider."""

    async def resolve(self, uri: StorageUri) -> StorageUri:
        """Return where the model lies now: another provider's URI, or one of its own that resolves to itself."""


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
    tls: Tls = Tls()


class HttpAnswer(Protocol):
    """An answer of the HTTP library that an SDK brings along, its body read, as ``httpx`` has it."""

    @property
    def url(self) -> object:
        """Of the last request, after redirects."""

    @property
    def status_code(self) -> int:
        """The status."""

    @property
    def reason_phrase(self) -> str:
        """The status in words."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in any case."""

    @property
    def content(self) -> bytes:
        """The body."""


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

    @classmethod
    def of(cls, answer: HttpAnswer) -> Refusal:
        """Return what a provider's own request, not the engine's, was answered."""
        return cls(
            url=str(answer.url),
            status=answer.status_code,
            reason=answer.reason_phrase,
            headers={name.lower(): value for name, value in answer.headers.items()},
            body=answer.content,
        )

    def failure(self, what: str, advice: str = "") -> Transient | Permanent:
        """Return what the status means by HTTP's own words: to be tried again, or final."""
        said = f"{what}: the server answered {self.status} {self.reason}".rstrip() + (f"; {advice}" if advice else "")
        if self.status in _TRANSIENT:
            return Transient(said, retry_after_seconds=self.retry_after_seconds)
        if self.status == HTTPStatus.PRECONDITION_FAILED:
            return Permanent(f"{said}; the object changed during the download")
        return Permanent(said)

    def word(self, name: str) -> str:
        """Return what a field of the body's JSON object says; empty where the body is none, or has none."""
        try:
            return str(json.loads(self.body)[name])
        except (ValueError, LookupError, TypeError):
            return ""

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
