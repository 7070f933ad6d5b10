"""The SDK's clients and credentials. Imports the SDK: only the provider's calls import this.

An account's key signs no request here, because what is signed would have to name the range that the engine asks for: it
signs a SAS of an hour, as a URI may bring one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.core.credentials import AccessToken, AzureSasCredential, TokenCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential, DefaultAzureCredential, WorkloadIdentityCredential
from azure.storage.blob import ContainerClient, ContainerSasPermissions, generate_container_sas
from azure.storage.fileshare import ShareClient, ShareSasPermissions, generate_share_sas

from servery_storage_azure.places import Place, Service
from servery_storage_azure.settings import AzureSettings

SCOPE = "https://storage.azure.com/.default"
VERSION = "2023-11-03"
"""Of the REST protocol; a token asks for one."""
_SAS_LASTS = timedelta(hours=1)
_SPARE_SECONDS = 300.0
_OPTIONS: Mapping[str, Any] = {"retry_total": 0, "connection_timeout": 15, "read_timeout": 30}


@dataclass(frozen=True, slots=True)
class _Signature:
    query: str
    until: float


class Account:
    """Reads as whoever the settings and the URI say, KServe's order: a SAS, a client, a key, a token, nobody."""

    def __init__(self, place: Place, settings: AzureSettings) -> None:
        self._place, self._settings = place, settings
        connection = settings.of_account(place.account)
        is_blob = place.service is Service.BLOB
        endpoint = connection.get("BlobEndpoint" if is_blob else "FileEndpoint", "")
        self.url = endpoint.rstrip("/") or f"https://{place.host}"
        self._sas = place.sas or connection.get("SharedAccessSignature", "") or settings.sas
        self._key = connection.get("AccountKey", "") or settings.access_key
        self._tokens: TokenCredential | None = None if self._sas or "AccountKey" in connection else _tokens(settings)
        self._lock = threading.Lock()
        self._token: AccessToken | None = None
        self._signature: _Signature | None = None

    @property
    def is_renewable(self) -> bool:
        """Whether there may be a better token than one that was refused."""
        return self._tokens is not None

    def container(self) -> Any:
        """Return the SDK's client of the container or share."""
        place, url, credential = self._place, self.url, self._credential()
        if place.service is Service.BLOB:
            return ContainerClient(url, place.container, credential=credential, **_OPTIONS)
        if credential is None:
            raise ClientAuthenticationError("a share has no readers without credentials")
        intent: dict[str, Any] = {"token_intent": "backup"} if self._tokens is not None else {}
        return ShareClient(url, place.container, credential=credential, **intent, **_OPTIONS)

    def authorization(self) -> tuple[str, Mapping[str, str]]:
        """Return the query and the headers that let a request read now."""
        with self._lock:
            if self._tokens is not None:
                if self._token is None or self._token.expires_on - time.time() < _SPARE_SECONDS:
                    self._token = self._tokens.get_token(SCOPE)
                headers = {"authorization": f"Bearer {self._token.token}", "x-ms-version": VERSION}
                if self._place.service is Service.FILE:
                    headers["x-ms-file-request-intent"] = "backup"
                return "", headers
            if self._sas:
                return self._sas, {}
            return (self._signed(), {}) if self._key else ("", {"x-ms-version": VERSION})

    def forget(self) -> None:
        """Have the next request find a new token."""
        with self._lock:
            self._token = None

    def _credential(self) -> Any:
        if self._tokens is not None:
            return self._tokens
        if self._sas:
            return AzureSasCredential(self._sas)
        return {"account_name": self._place.account, "account_key": self._key} if self._key else None

    def _signed(self) -> str:
        if self._signature is None or self._signature.until - time.time() < _SPARE_SECONDS:
            expiry, place = datetime.now(UTC) + _SAS_LASTS, self._place
            if place.service is Service.BLOB:
                allowed = ContainerSasPermissions(read=True)
                query = generate_container_sas(
                    place.account, place.container, self._key, permission=allowed, expiry=expiry
                )
            else:
                may = ShareSasPermissions(read=True)
                query = generate_share_sas(place.account, place.container, self._key, permission=may, expiry=expiry)
            self._signature = _Signature(query, expiry.timestamp())
        return self._signature.query


class _Given(TokenCredential):
    """A token that somebody else got."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken(self._token, int(time.time()) + 3600)


def _tokens(settings: AzureSettings) -> TokenCredential | None:
    """Return what gives tokens; None where nobody is named."""
    if settings.client_id and settings.client_secret:
        return ClientSecretCredential(settings.tenant_id, settings.client_id, settings.client_secret)
    if settings.client_id and settings.federated_token_file:
        return WorkloadIdentityCredential(
            tenant_id=settings.tenant_id,
            client_id=settings.client_id,
            token_file_path=settings.federated_token_file,
        )
    if settings.client_id:
        return DefaultAzureCredential(managed_identity_client_id=settings.client_id)
    return _Given(settings.access_token) if settings.access_token and not settings.access_key else None
