"""The Azure provider, as Servery finds it. Its SDKs are imported when the first URI is met; they list and find
credentials, and the engine reads.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageProvider, StorageUri, path_below

from servery_storage_azure.places import HADOOP, OME, Place, Service, is_azures, place_of, without_query
from servery_storage_azure.settings import settings_of

if TYPE_CHECKING:
    from servery_storage_azure.accounts import Account

_MESSAGE = re.compile(rb"<Message>([^<\n]*)")


class AzureProvider:
    """Blobs and files of Azure Storage.

    A SAS in the URI reads; else the environment: ``AZURE_STORAGE_CONNECTION_STRING`` (of the account that it names, at
    the endpoint that it names), ``AZURE_STORAGE_SAS_TOKEN``, ``AZURE_CLIENT_ID`` with ``AZURE_TENANT_ID`` and
    ``AZURE_CLIENT_SECRET`` or ``AZURE_FEDERATED_TOKEN_FILE`` or a managed identity (``AZ_…`` are KServe's older names),
    ``AZURE_STORAGE_ACCESS_KEY``, ``AZURE_ACCESS_TOKEN``; else everybody's right.
    """

    name = "azure"
    schemes = HADOOP | OME

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._accounts: dict[str, tuple[Place, Account]] = {}
        self._lock = threading.Lock()

    def claims(self, uri: StorageUri) -> bool:
        """Return whether an ``https`` URI names an Azure account's blobs or files."""
        return is_azures(uri)

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield the object of exactly this name, or all below ``name/``."""
        for entry in await asyncio.to_thread(lambda: list(self._entries(uri))):
            yield entry

    def _entries(self, uri: StorageUri) -> Iterator[StorageEntry]:
        from servery_storage_azure.accounts import Account  # the SDKs: a second that others need not wait
        from servery_storage_azure.failures import translated

        place = place_of(uri)
        account = Account(place, settings_of(self._environment))
        with self._lock:
            self._accounts[f"{place.root}/{place.path}"] = (place, account)
        with translated(without_query(uri), place), account.container() as client:
            found = _blobs(client, place) if place.service is Service.BLOB else _files(client, place)
            for name, properties in found:
                relative = path_below(name, place.path)
                if relative is not None:
                    yield StorageEntry(
                        path=relative,
                        source=f"{place.root}/{name}",
                        size_bytes=properties.size,
                        version=(properties.etag or "").strip('"') or None,
                        digest=_md5(properties),
                    )

    def locate(self, entry: StorageEntry) -> Location:
        """Return the object's URL, with a signature or a token that is valid now; a blob must still be the one that was
        listed.
        """
        from servery_storage_azure.failures import translated

        place, account = self._of(entry)
        with translated(f"https://{entry.source}", place):
            query, headers = account.authorization()
        name = entry.source.removeprefix(f"{place.root}/")
        url = f"{account.url}/{place.container}/{quote(name, safe='/~')}{'?' if query else ''}{query}"
        # A share knows no conditions: what comes is looked at.
        held = {"if-match": f'"{entry.version}"'} if entry.version and place.service is Service.BLOB else {}
        return Location(url=url, headers={**headers, **held})

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what Azure's answer says. The next request has a new token where this one's was refused."""
        from servery_storage_azure.failures import failure

        place, account = self._of(entry)
        what, code = f"https://{entry.source}", refusal.headers.get("x-ms-error-code", refusal.reason)
        message = _MESSAGE.search(refusal.body)
        words = message[1].decode(errors="replace") if message else ""
        if refusal.status == HTTPStatus.UNAUTHORIZED and account.is_renewable:
            account.forget()
            return Transient(f"{what}: 401 {code}: {words}")
        wait = refusal.retry_after_seconds
        return failure(what, place, refusal.status, code, words, retry_after_seconds=wait)

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return the MD5 that was stored with the object.

        Raises:
            Permanent: The answer is of another version of the file than was listed.
        """
        told = headers.get("etag", "").strip('"')
        if told and entry.version and told != entry.version:
            raise Permanent(f"https://{entry.source}: The object changed during the download.")
        if entry.digest is not None:
            return entry.digest
        stored = headers.get("x-ms-blob-content-md5") or headers.get("x-ms-content-md5")
        if stored is None and "content-range" not in headers:
            stored = headers.get("content-md5")
        return Digest.of_base64(DigestAlgorithm.MD5, stored) if stored else None

    def _of(self, entry: StorageEntry) -> tuple[Place, Account]:
        """Return whose URI listed the entry: the longest that it lies below, whose signature may be of no more."""
        below = [root for root in self._accounts if path_below(entry.source, root.rstrip("/")) is not None]
        return self._accounts[max(below, key=len)]


def _blobs(client: Any, place: Place) -> Iterator[tuple[str, Any]]:
    for blob in client.list_blobs(name_starts_with=place.path or None, include=["metadata"]):
        # Accounts with folders list them too, as Hadoop's drivers mark them in others.
        is_folder = (blob.metadata or {}).get("hdi_isfolder") == "true"
        if not is_folder and not blob.name.endswith("/"):
            yield blob.name, blob


def _files(client: Any, place: Place) -> Iterator[tuple[str, Any]]:
    """Yield the file of the path, or else all below the folder of the path."""
    from azure.core.exceptions import ResourceNotFoundError

    if place.path:
        try:
            yield place.path, client.get_file_client(place.path).get_file_properties()
        except ResourceNotFoundError:
            pass
        else:
            return
    folders = [place.path]
    while folders:
        folder = folders.pop()
        for item in client.list_directories_and_files(folder or None, include=["Etag"]):
            name = f"{folder}/{item.name}" if folder else item.name
            if item.is_directory:
                folders.append(name)
            else:
                yield name, item


def _md5(properties: Any) -> Digest | None:
    stored = properties.content_settings.content_md5 if properties.content_settings is not None else None
    return Digest(DigestAlgorithm.MD5, bytes(stored)) if stored else None


@hookimpl
def servery_storage_providers() -> Iterable[StorageProvider]:
    """Contribute Azure Storage."""
    yield AzureProvider()
