"""The ModelScope provider, as Servery finds it.

Its SDK downloads, and does not list without it; the two requests that it makes for that are made here, with httpx.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.hubs import Hub, HubPlace
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageProvider, StorageUri, path_below

if TYPE_CHECKING:
    import httpx

HUB = Hub("modelscope", default_revision="master")
ENDPOINT = "https://modelscope.cn"
TIMEOUT_SECONDS = 30.0
"""Without a byte. The caller tries again."""

MAX_LISTED = 3000
"""Files and folders that the server lists at once; it does not say that there are more.

Source: modelscope_hub.constants, REPO_FILES_TRUNCATION_LIMIT.
"""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ModelScopeProvider:
    """Models of ModelScope. A branch that moves meanwhile is noticed by the files' sums.

    Environment: ``MODELSCOPE_API_TOKEN``, ``MODELSCOPE_ENDPOINT``, or ``MODELSCOPE_DOMAIN`` of older SDKs.
    """

    name = "modelscope"
    schemes = frozenset({"modelscope"})

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the file of exactly this path, or all below ``path/``."""
        import httpx

        place = HUB.place_of(uri)
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=True, headers=self._headers()) as client:
            async for found in self._tree(client, place, str(uri)):
                relative = path_below(found["Path"], place.path)
                if relative is not None:
                    yield _entry(
                        relative, f"{place.repository}:{quote(place.revision, safe='')}/{found['Path']}", found
                    )

    def locate(self, entry: StorageEntry) -> Location:
        """Return the file's URL of the revision that was listed."""
        place = HUB.place_of(StorageUri.parse(f"modelscope://{entry.source}"))
        query = urlencode({"Revision": place.revision, "FilePath": entry.source.split("/", 2)[2]})
        return Location(
            url=f"{self._endpoint()}/api/v1/models/{place.repository}/repo?{query}", headers=self._headers()
        )

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what the server's answer means."""
        return refusal.failure(f"modelscope://{entry.source}", self._advice(refusal.status))

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return the sum that the listing told."""
        return entry.digest

    async def _tree(self, client: httpx.AsyncClient, place: HubPlace, what: str) -> AsyncIterator[Mapping[str, Any]]:
        """Yield all files; a tree that is larger than what is listed at once is walked folder by folder."""
        folders = [""]
        while folders:
            folder = folders.pop()
            found = await self._files(client, place, folder, what, is_recursive=True)
            if len(found) >= MAX_LISTED:
                found = await self._files(client, place, folder, what, is_recursive=False)
                if len(found) >= MAX_LISTED:
                    raise Permanent(f"{what}: /{folder} has {MAX_LISTED} files or more, and ModelScope lists no more")
                folders += [entry["Path"] for entry in found if entry["Type"] == "tree"]
            for entry in found:
                if entry["Type"] != "tree":
                    yield entry

    async def _files(
        self, client: httpx.AsyncClient, place: HubPlace, folder: str, what: str, *, is_recursive: bool
    ) -> tuple[Mapping[str, Any], ...]:
        import httpx

        query = {"Revision": place.revision, "Recursive": str(is_recursive), **({"Root": folder} if folder else {})}
        url = f"{self._endpoint()}/api/v1/models/{place.repository}/repo/files"
        try:
            answer = await client.get(url, params=query)
        except httpx.TransportError as error:
            raise Transient(f"{what}: cannot reach {self._endpoint()}: {type(error).__name__}: {error}") from error
        except httpx.HTTPError as error:
            raise Permanent(f"{what}: {type(error).__name__}: {error}") from error
        if not answer.is_success:
            refusal = Refusal.of(answer)
            words = filter(None, (refusal.word("Message"), self._advice(refusal.status)))
            raise refusal.failure(what, "; ".join(words))
        try:
            return tuple(answer.json()["Data"]["Files"] or ())
        except (ValueError, LookupError, TypeError) as error:
            said = f"{type(error).__name__}: {error}"
            raise Permanent(f"{what}: MODELSCOPE_ENDPOINT does not answer as ModelScope does: {said}") from error

    def _endpoint(self) -> str:
        endpoint = (
            self._environment.get("MODELSCOPE_ENDPOINT") or self._environment.get("MODELSCOPE_DOMAIN") or ENDPOINT
        )
        return (endpoint if "://" in endpoint else f"https://{endpoint}").rstrip("/")

    def _headers(self) -> Mapping[str, str]:
        token = self._environment.get("MODELSCOPE_API_TOKEN")
        # The server knows tokens as it knows its own pages' sessions.
        return {
            "user-agent": "servery",
            "accept-encoding": "identity",
            **({"cookie": f"m_session_id={token}"} if token else {}),
        }

    def _advice(self, status: int) -> str:
        if status not in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            return ""
        if self._environment.get("MODELSCOPE_API_TOKEN"):
            return "the token that was sent (MODELSCOPE_API_TOKEN) may not read it"
        return "a private model needs a token: set MODELSCOPE_API_TOKEN, or give the service account a secret with it"


def _entry(path: str, source: str, found: Mapping[str, Any]) -> StorageEntry:
    digest = str(found.get("Sha256") or "")
    known = Digest.of_hex(DigestAlgorithm.SHA256, digest) if _SHA256.fullmatch(digest) else None
    return StorageEntry(
        path=path, source=source, size_bytes=int(found["Size"]), version=digest or found.get("Revision"), digest=known
    )


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute ModelScope."""
    yield ModelScopeProvider()
