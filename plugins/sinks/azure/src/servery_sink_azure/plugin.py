"""The Azure sink, as Servery finds it. Its SDKs are imported when the sink is opened."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from servery_sdk.errors import Permanent, Transient
from servery_sdk.hooks import hookimpl
from servery_sdk.payloads import ObjectOutlet, PayloadSink, SinkTarget

_REFUSED = frozenset({400, 413, 414})
"""What is wrong with the object. All else, as a missing container or a right, somebody may mend."""


class AzureSink:
    """Blobs: ``abfs[s]://container@account.dfs.core.windows.net/prefix``, as Hadoop and KServe spell it.

    Environment: ``AZURE_STORAGE_CONNECTION_STRING``, ``AZURE_STORAGE_ACCESS_KEY``, ``AZURE_STORAGE_SAS_TOKEN``; else
    what the SDK finds: a client's secret, a workload identity, a managed one.
    """

    name = "azure"
    schemes = frozenset({"abfs", "abfss"})

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def open(self, target: SinkTarget) -> ObjectOutlet:
        """Return the way to the container."""
        parts = urlsplit(target.url)
        if not parts.username or not parts.hostname:
            raise Permanent(
                f"--log-url: {target.url!r} names no container: {parts.scheme}://container@account.dfs.core.windows.net/prefix"
            )
        host = parts.hostname.replace(".dfs.", ".blob.", 1)
        client = _container(self._environment, f"https://{host}", parts.username, target)
        return AzureOutlet(client, unquote(parts.path).strip("/"), target)


class AzureOutlet:
    """One container."""

    def __init__(self, client: Any, prefix: str, target: SinkTarget) -> None:
        self._client = client
        self._prefix = prefix
        self._url = target.url

    async def put(self, key: str, content: bytes, content_type: str) -> None:
        """Put one blob."""
        await asyncio.to_thread(self._put, f"{self._prefix}/{key}" if self._prefix else key, content, content_type)

    def _put(self, key: str, content: bytes, content_type: str) -> None:
        from azure.core.exceptions import AzureError, HttpResponseError
        from azure.storage.blob import ContentSettings

        kind = ContentSettings(content_type=content_type)
        try:
            self._client.upload_blob(key, content, overwrite=True, content_settings=kind)
        except HttpResponseError as error:
            failure = Permanent if error.status_code in _REFUSED else Transient
            raise failure(f"{self._url}: {key}: {error.status_code} {error.reason}") from error
        except AzureError as error:
            raise Transient(f"{self._url}: {key}: {error}") from error

    async def close(self) -> None:
        """Let go of connections."""
        self._client.close()


def _container(environment: Mapping[str, str], endpoint: str, container: str, target: SinkTarget) -> Any:
    from azure.core.credentials import AzureSasCredential  # a second that other sinks need not wait
    from azure.identity import DefaultAzureCredential
    from azure.storage.blob import ContainerClient

    ca_file = str(target.ca_file) if target.ca_file else True
    options: dict[str, Any] = {
        # Whoever delivers tries again, and counts that.
        "retry_total": 0,
        "connection_timeout": min(5.0, target.timeout_seconds),
        "read_timeout": target.timeout_seconds,
        "connection_verify": ca_file if target.verifies_tls else False,
    }
    if connection := environment.get("AZURE_STORAGE_CONNECTION_STRING"):
        return ContainerClient.from_connection_string(connection, container, **options)
    credential: Any
    if key := environment.get("AZURE_STORAGE_ACCESS_KEY"):
        credential = {"account_name": endpoint.partition("://")[2].partition(".")[0], "account_key": key}
    elif sas := environment.get("AZURE_STORAGE_SAS_TOKEN"):
        credential = AzureSasCredential(sas)
    else:
        credential = DefaultAzureCredential()
    return ContainerClient(endpoint, container, credential=credential, **options)


@hookimpl
def servery_payload_sinks() -> Iterable[PayloadSink]:
    """Contribute Azure Blob Storage."""
    yield AzureSink()
