"""Large files of a repository, from its LFS server. Imports httpx: the provider's calls alone import this."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Refusal, Sink

from servery_storage_git.access import Access
from servery_storage_git.checkout import TIMEOUT_SECONDS, File

_JSON = "application/vnd.git-lfs+json"


def endpoint_of(url: str, configured: str | None) -> str:
    """Return where a repository's LFS server answers.

    Source: git-lfs, docs/api/server-discovery.md: ``lfs.url`` of ``.lfsconfig``, or the repository's URL by HTTPS.
    """
    if configured:
        return configured.rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"}:
        url = f"https://{parts.hostname}{parts.path}"
    return f"{url.rstrip('/').removesuffix('.git')}.git/info/lfs"


async def fetch(
    file: File, sink: Sink, *, offset: int, endpoint: str, repository: str, access: Access, what: str
) -> None:
    """Write the file's bytes from ``offset`` on to ``sink``.

    Source: git-lfs, docs/api/batch.md and docs/api/basic-transfers.md.
    """
    # The repository says where its LFS server is, and nobody else shall have its password.
    is_same = urlsplit(endpoint).hostname == urlsplit(repository).hostname
    auth = httpx.BasicAuth(access.username or "", access.password) if access.password and is_same else None
    try:
        async with httpx.AsyncClient(
            verify=_verified(access), timeout=TIMEOUT_SECONDS, follow_redirects=True
        ) as client:
            url, headers = await _action(client, file, endpoint, auth, access, what)
            wanted = {**headers, "accept-encoding": "identity", **({"range": f"bytes={offset}-"} if offset else {})}
            async with client.stream("GET", url, headers=wanted) as answer:
                if not answer.is_success:
                    await answer.aread()
                    refusal = Refusal.of(answer)
                    raise refusal.failure(what, refusal.word("message"))
                skip = offset if answer.status_code == HTTPStatus.OK else 0
                # As it comes: what is gathered to larger pieces would be lost when the connection breaks.
                async for chunk in answer.aiter_raw():
                    skipped = min(skip, len(chunk))
                    skip -= skipped
                    sink.write(chunk[skipped:])
    except httpx.TransportError as error:
        raise Transient(f"{what}: {type(error).__name__}: {error}") from error
    except httpx.HTTPError as error:
        raise Permanent(f"{what}: {type(error).__name__}: {error}") from error


async def _action(
    client: httpx.AsyncClient, file: File, endpoint: str, auth: httpx.Auth | None, access: Access, what: str
) -> tuple[str, Mapping[str, str]]:
    """Return where the object is read, and what to send along."""
    wanted = {"oid": file.version, "size": file.size_bytes}
    asked = {"operation": "download", "transfers": ["basic"], "objects": [wanted], "hash_algo": "sha256"}
    answer = await client.post(
        f"{endpoint}/objects/batch",
        content=json.dumps(asked),
        headers={"accept": _JSON, "content-type": _JSON},
        auth=auth or httpx.USE_CLIENT_DEFAULT,
    )
    if not answer.is_success:
        refusal = Refusal.of(answer)
        words = refusal.word("message")
        if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            words = "; ".join(part for part in (words, access.advice) if part)
        raise refusal.failure(f"{what}: its LFS server {endpoint}", words)
    try:
        found: Any = answer.json()["objects"][0]
        if (error := found.get("error")) is not None:
            raise Permanent(f"{what}: its LFS server says {error['code']}: {error['message']}")
        action = found["actions"]["download"]
        return str(action["href"]), dict(action.get("header") or {})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Permanent(
            f"{what}: {endpoint} does not answer as an LFS server: {type(error).__name__}: {error}"
        ) from error


def _verified(access: Access) -> ssl.SSLContext | bool:
    if access.verify and access.ca_file is not None:
        return ssl.create_default_context(cafile=str(access.ca_file))
    return access.verify
