"""The Hugging Face provider, as Servery finds it. Its SDK is imported when the first URI is met."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from servery_sdk.errors import Permanent
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Sink, StorageEntry, StorageProvider, StorageUri, path_below

from servery_storage_hf.uris import Place, place_of

ENDPOINT = "https://huggingface.co"
TIMEOUT_SECONDS = 30.0
"""Without a byte. The caller tries again."""


class HuggingFaceProvider:
    """Models of the Hugging Face hub.

    It asks the hub's API itself, by the SDK's session, token and errors: the SDK's ``HfApi`` waits up to half a minute
    for a busy hub and forever for a silent one before it says so.

    Environment: ``HF_ENDPOINT``, and ``HF_TOKEN`` or what else the SDK takes a token from.
    """

    name = "hf"
    schemes = frozenset({"hf"})

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the file of exactly this path, or all below ``path/``, as of one commit."""
        place = place_of(uri)
        for entry in await asyncio.to_thread(lambda: list(_entries(uri, place))):
            yield entry

    async def fetch(self, entry: StorageEntry, sink: Sink, *, offset: int) -> None:
        """Read the file from ``offset`` on, of the commit that was listed."""
        if entry.size_bytes is not None and offset >= entry.size_bytes:
            return  # No server sends a range of nothing.
        await asyncio.to_thread(_fetch, entry, sink, offset)


def _entries(uri: StorageUri, place: Place) -> Iterator[StorageEntry]:
    from servery_storage_hf.failures import translated  # the SDK: a second that others need not wait

    with translated(str(uri), place):
        commit = _commit(place)
        for found in _tree(place.repository, commit):
            relative = path_below(found["path"], place.path)
            if relative is not None and found["type"] == "file":
                yield StorageEntry(
                    path=relative,
                    source=f"{place.repository}@{commit}/{found['path']}",
                    size_bytes=found["size"],
                    # What a pointer points at, or the git blob: both are sums of the content.
                    version=(found.get("lfs") or found)["oid"],
                )


def _commit(place: Place) -> str:
    url = f"{_endpoint()}/api/models/{place.repository}/revision/{quote(place.revision, safe='')}"
    return str(_get(url, {"expand": "sha"}).json()["sha"])


def _tree(repository: str, commit: str) -> Iterator[Mapping[str, Any]]:
    """Yield files and folders, page by page."""
    page = _get(f"{_endpoint()}/api/models/{repository}/tree/{commit}", {"recursive": "true"})
    yield from page.json()
    while "next" in page.links:
        page = _get(page.links["next"]["url"])
        yield from page.json()


def _get(url: str, query: Mapping[str, str] | None = None) -> Any:
    from huggingface_hub import get_session, hf_raise_for_status

    response = get_session().get(url, params=query, headers=_headers(), timeout=TIMEOUT_SECONDS)
    hf_raise_for_status(response)
    return response


def _fetch(entry: StorageEntry, sink: Sink, offset: int) -> None:
    from huggingface_hub import get_session, hf_raise_for_status

    from servery_storage_hf.failures import translated

    repository, _, below = entry.source.partition("@")
    commit, _, path = below.partition("/")
    headers = {"accept-encoding": "identity", **({"range": f"bytes={offset}-"} if offset else {})}
    with translated(f"hf://{entry.source}", Place(repository=repository, revision=commit, path=path)):
        url = f"{_endpoint()}/{repository}/resolve/{commit}/{quote(path)}"
        # The session takes the token off when the hub sends it to its store of large files.
        with get_session().stream("GET", url, headers=_headers() | headers, timeout=TIMEOUT_SECONDS) as response:
            hf_raise_for_status(response)
            skip = offset if response.status_code == 200 else 0
            # As it comes: what is gathered to larger pieces would be lost when the connection breaks.
            for chunk in response.iter_raw():
                skipped = min(skip, len(chunk))
                skip -= skipped
                sink.write(chunk[skipped:])


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
    return {"user-agent": "servery", **({"authorization": f"Bearer {token}"} if token else {})}


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute the Hugging Face hub."""
    yield HuggingFaceProvider()
