"""The Hugging Face provider, as Servery finds it. Its SDK is imported when the first URI is met."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.hubs import HubPlace
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageProvider, StorageUri, path_below

from servery_storage_hf.offline import CachedHub, is_offline
from servery_storage_hf.uris import HUB

ENDPOINT = "https://huggingface.co"
TIMEOUT_SECONDS = 30.0
"""Without a byte. The caller tries again."""

FRESH_SECONDS = 60.0
"""The store signs for longer than that: what it refuses of a younger signature, it refuses for good."""

_MAX_REDIRECTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Where a large file is read; ``since`` in seconds of a monotonic clock."""

    url: str
    is_hub: bool
    since: float


class HuggingFaceProvider:
    """Models of the Hugging Face hub.

    It asks the hub's API itself, by the SDK's session and token: the SDK's ``HfApi`` waits up to half a minute for a
    busy hub and forever for a silent one before it says so.

    Files that the hub keeps in its chunked store (Xet) are read by plain ranges as well: the hub resolves them to a
    bridge that answers ranges, and says the SHA-256 of the whole. What the chunks would save is a second download of
    nearly the same file on one machine; the node's cache saves that of the very same one.

    Environment: ``HF_ENDPOINT``, and ``HF_TOKEN`` or what else the SDK takes a token from.
    """

    name = "hf"
    schemes = frozenset({"hf"})

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[str, _Found] = {}
        self._finding: dict[str, threading.Lock] = {}

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the file of exactly this path, or all below ``path/``, as of one commit."""
        place = HUB.place_of(uri)
        for entry in await asyncio.to_thread(lambda: list(_entries(uri, place))):
            yield entry

    def locate(self, entry: StorageEntry) -> Location:
        """Return the file's URL in the commit that was listed; of a large one, the store's own.

        The hub counts who asks it where a large file is, and refuses who asks too often: it is asked once for each
        file, not for each range, as long as the store takes the signature.
        """
        url = f"{_endpoint()}/{_resolve_path(entry)}"
        if entry.digest is None:
            return Location(url=url, headers=_headers())
        # One asks and the others wait for the answer.
        with self._finding.setdefault(entry.source, threading.Lock()):
            found = self._found.get(entry.source)
            if found is None:
                found = self._found[entry.source] = self._find(entry, url)
        return Location(url=found.url, headers=_headers() if found.is_hub else {"accept-encoding": "identity"})

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what the hub or its store says; a signature of the store that ran out is found anew."""
        from servery_storage_hf.failures import failure

        found = self._found.get(entry.source)
        is_hub = urlsplit(refusal.url).netloc == urlsplit(_endpoint()).netloc
        if refusal.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN} and not is_hub and found is not None:
            if found.url != refusal.url:
                return Transient(f"hf://{entry.source}: the store's signature ran out")  # and was found anew already
            if self._clock() - found.since > FRESH_SECONDS:
                self._found.pop(entry.source, None)
                return Transient(f"hf://{entry.source}: the store's signature ran out")
        return failure(f"hf://{entry.source}", _place(entry), refusal, is_hub=is_hub)

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return the sum that the listing told: the hub knows that of large files. The others' is git's, of a header
        and the content, and they are too small to be worth it.
        """
        return entry.digest

    def _find(self, entry: StorageEntry, url: str) -> _Found:
        """Follow the hub's redirects until they leave it."""
        from huggingface_hub import get_session

        from servery_storage_hf.failures import failure, translated

        hub = urlsplit(url).netloc
        with translated(f"hf://{entry.source}"):
            for _ in range(_MAX_REDIRECTS):
                answer = get_session().head(url, headers=_headers(), timeout=TIMEOUT_SECONDS, follow_redirects=False)
                if answer.is_error:
                    raise failure(f"hf://{entry.source}", _place(entry), Refusal.of(answer), is_hub=True)
                if not answer.has_redirect_location:
                    return _Found(url=url, is_hub=True, since=self._clock())
                url = urljoin(url, answer.headers["location"])
                if urlsplit(url).netloc != hub:
                    return _Found(url=url, is_hub=False, since=self._clock())
        raise Permanent(f"hf://{entry.source}: the hub redirects without an end, at last to {url}")


def _entries(uri: StorageUri, place: HubPlace) -> Iterator[StorageEntry]:
    from servery_storage_hf.failures import translated  # the SDK: a second that others need not wait

    with translated(str(uri)):
        commit = _commit(uri, place)
        for found in _tree(uri, place, commit):
            relative = path_below(found["path"], place.path)
            if relative is not None and found["type"] == "file":
                large = found.get("lfs")
                yield StorageEntry(
                    path=relative,
                    source=f"{place.repository}@{commit}/{found['path']}",
                    size_bytes=found["size"],
                    # What a pointer points at, or the git blob: both are sums of the content.
                    version=(large or found)["oid"],
                    digest=Digest.of_hex(DigestAlgorithm.SHA256, large["oid"]) if large else None,
                )


def _commit(uri: StorageUri, place: HubPlace) -> str:
    url = f"{_endpoint()}/api/models/{place.repository}/revision/{quote(place.revision, safe='')}"
    return str(_get(uri, place, url, {"expand": "sha"}).json()["sha"])


def _tree(uri: StorageUri, place: HubPlace, commit: str) -> Iterator[Mapping[str, Any]]:
    """Yield files and folders, page by page."""
    page = _get(uri, place, f"{_endpoint()}/api/models/{place.repository}/tree/{commit}", {"recursive": "true"})
    yield from page.json()
    while "next" in page.links:
        page = _get(uri, place, page.links["next"]["url"])
        yield from page.json()


def _get(uri: StorageUri, place: HubPlace, url: str, query: Mapping[str, str] | None = None) -> Any:
    from huggingface_hub import get_session

    from servery_storage_hf.failures import failure

    answer = get_session().get(url, params=query, headers=_headers(), timeout=TIMEOUT_SECONDS)
    if answer.is_error:
        raise failure(str(uri), place, Refusal.of(answer), is_hub=True)
    return answer


def _place(entry: StorageEntry) -> HubPlace:
    repository, _, below = entry.source.partition("@")
    commit, _, path = below.partition("/")
    return HubPlace(repository=repository, revision=commit, path=path)


def _resolve_path(entry: StorageEntry) -> str:
    place = _place(entry)
    return f"{place.repository}/resolve/{place.revision}/{quote(place.path)}"


def _endpoint() -> str:
    """Return the hub's URL, without a slash at its end.

    Raises:
        Permanent: ``HF_ENDPOINT`` is none.
    """
    endpoint = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    try:
        parts = urlsplit(endpoint)
        is_url = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, or of brackets
        is_url = False
    if not is_url:
        raise Permanent(f"HF_ENDPOINT: {endpoint!r} is no URL of a hub; such is {ENDPOINT}")
    return endpoint


def _headers() -> dict[str, str]:
    from huggingface_hub import get_token

    token = get_token()
    credentials = {"authorization": f"Bearer {token}"} if token else {}
    return {"user-agent": "servery", "accept-encoding": "identity", **credentials}


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute the Hugging Face hub, or what its client keeps of it where there is no network."""
    yield CachedHub() if is_offline(os.environ) else HuggingFaceProvider()
