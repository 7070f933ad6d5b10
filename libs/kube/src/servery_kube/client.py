"""A real API server, through the official client: its configuration, authentication, TLS and connections; our requests.

The generated methods are left aside: they turn JSON into model objects and back, and lose what they do not know.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client import rest
from servery_sdk.manifests import Json, Kind, Manifest, ObjectRef

from servery_kube.port import (
    FIELD_MANAGER,
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    KubeError,
    Listing,
    NotFound,
    Propagation,
    Rejected,
    TooManyRequests,
    WatchEvent,
)

WATCH_SECONDS = 300
"""How long the server keeps one watch open; then the next one resumes where it ended."""

_PAGE = 500
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


@contextlib.asynccontextmanager
async def connect(kubeconfig: str | None = None) -> AsyncIterator[KubeClient]:
    """Yield a client of the cluster that this pod runs in, or that a kubeconfig names.

    Args:
        kubeconfig: Path; None takes ``KUBECONFIG``, then ``~/.kube/config``, where this is not a pod.

    Raises:
        KubeError: No usable configuration.
    """
    settings = client.Configuration()
    try:
        if kubeconfig is not None:
            await config.load_kube_config(kubeconfig, client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            try:
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            except config.ConfigException:
                await config.load_kube_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise KubeError(f"no cluster to talk to: {error}; set KUBECONFIG or run in a pod") from error
    async with client.ApiClient(settings) as api:
        api.rest_client = _Rest(settings)
        yield KubeClient(api)


class _Connector(aiohttp.TCPConnector):
    """Cuts what is given up in the middle of an answer: TLS would wait for the server's goodbye, and the loop may end
    before it comes.
    """

    def _release(self, key: Any, protocol: Any, *, should_close: bool = False) -> None:
        if should_close or protocol.should_close:
            protocol.abort()
        super()._release(key, protocol, should_close=should_close)


class _Rest(rest.RESTClientObject):
    def _create_connector(self) -> aiohttp.TCPConnector:
        return _Connector(limit=self.maxsize, ssl=self.ssl_context)


class KubeClient:
    """``KubeApi`` over HTTP.

    Args:
        strict: Refuse fields that the API server does not know, instead of dropping them.
        dry_run: Have everything checked and nothing stored.
    """

    def __init__(self, api: Any, *, strict: bool = True, dry_run: bool = False) -> None:
        self._api = api
        self._strict = strict
        self._dry_run = dry_run

    async def get(self, ref: ObjectRef) -> Manifest:
        """Return one object."""
        return await self._call("GET", _path(ref.kind, ref.namespace, ref.name))

    async def list(
        self, kind: Kind, *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Listing:
        """Return all objects of a kind, page by page."""
        selector = ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))
        items: list[Manifest] = []
        query = {"limit": str(_PAGE), **({"labelSelector": selector} if selector else {})}
        while True:
            page = await self._call("GET", _path(kind, namespace), query)
            # Items of a list do not say what they are.
            items += ({"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in page.get("items") or ())
            if not page["metadata"].get("continue"):
                return Listing(tuple(items), page["metadata"]["resourceVersion"])
            query["continue"] = page["metadata"]["continue"]

    async def watch(
        self, kind: Kind, *, namespace: str | None = None, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """Yield changes after ``resource_version``; resumes from bookmarks."""
        while True:
            query = {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(WATCH_SECONDS),
                "resourceVersion": resource_version,
            }
            async for line in self._stream(_path(kind, namespace), query):
                event = json.loads(line)
                found = event["object"]
                if event["type"] == "ERROR":
                    raise _failure(found.get("code", 0), found)
                resource_version = found["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    yield WatchEvent(event["type"], found)

    async def apply(self, manifest: Manifest, kind: Kind, *, field_manager: str = FIELD_MANAGER) -> Manifest:
        """Server-side apply, taking over fields that others own."""
        metadata = manifest["metadata"]
        query = {"fieldManager": field_manager, "force": "true", **self._options()}
        path = _path(kind, metadata.get("namespace"), metadata["name"])
        return await self._call("PATCH", path, query, manifest, _APPLY)

    async def create(self, manifest: Manifest, kind: Kind) -> Manifest:
        """Make an object."""
        path = _path(kind, manifest["metadata"].get("namespace"))
        return await self._call("POST", path, {"fieldManager": FIELD_MANAGER, **self._options()}, manifest)

    async def update(self, manifest: Manifest, kind: Kind) -> Manifest:
        """Replace an object at the resource version that it carries."""
        metadata = manifest["metadata"]
        path = _path(kind, metadata.get("namespace"), metadata["name"])
        return await self._call("PUT", path, {"fieldManager": FIELD_MANAGER, **self._options()}, manifest)

    async def delete(self, ref: ObjectRef, *, propagation: Propagation = "Background") -> None:
        """Delete one object; one that is not there is fine."""
        with contextlib.suppress(NotFound):
            query = {"propagationPolicy": propagation}
            await self._call("DELETE", _path(ref.kind, ref.namespace, ref.name), query)

    async def patch_status(self, ref: ObjectRef, status: Mapping[str, Json]) -> Manifest:
        """Replace ``.status``."""
        path = _path(ref.kind, ref.namespace, ref.name) + "/status"
        patch = {"status": _replacing((await self.get(ref)).get("status") or {}, status)}
        return await self._call("PATCH", path, {"fieldManager": FIELD_MANAGER}, patch, _MERGE)

    async def has(self, kind: Kind) -> bool:
        """Return whether the server serves ``kind``."""
        try:
            found = await self._call("GET", _path(kind, None).rpartition("/")[0])
        except NotFound:
            return False
        return any(resource["name"] == kind.plural for resource in found.get("resources", ()))

    def _options(self) -> dict[str, str]:
        options = {"fieldValidation": "Strict"} if self._strict else {}
        return {**options, "dryRun": "All"} if self._dry_run else options

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Json = None,
        content_type: str = "application/json",
    ) -> Manifest:
        response = await self._send(method, path, query, body, content_type)
        try:
            raw = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KubeError(f"{method} {path}: {error or type(error).__name__}") from error
        return _checked(response, raw)

    async def _stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        response = await self._send("GET", path, query)
        try:
            if response.status >= 400:
                _checked(response, await response.read())
            rest = b""
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield line
        except (aiohttp.ClientError, TimeoutError) as error:
            raise KubeError(f"watch {path}: {error or type(error).__name__}") from error
        finally:
            response.close()

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Json = None,
        content_type: str = "application/json",
    ) -> aiohttp.ClientResponse:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        # Tokens expire: the client's hook gives a fresh one for every request.
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._api.configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS + 30 if query and "watch" in query else 60)
        try:
            answer = await self._api.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=timeout
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(f"{method} {path}: {error or type(error).__name__}") from error
        found: aiohttp.ClientResponse = answer.response
        return found


def _replacing(live: Manifest, wanted: Manifest) -> dict[str, Json]:
    """Return the merge patch that makes ``wanted`` of ``live``: what is to go is named as null, at every depth."""
    patch: dict[str, Json] = dict.fromkeys(live.keys() - wanted.keys())
    for key, value in wanted.items():
        found = live.get(key)
        patch[key] = _replacing(found, value) if isinstance(value, Mapping) and isinstance(found, Mapping) else value
    return patch


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.api_version}"
    where = f"/namespaces/{namespace}" if namespace and kind.namespaced else ""
    return f"{root}{where}/{kind.plural}" + (f"/{name}" if name else "")


def _checked(response: aiohttp.ClientResponse, raw: bytes) -> Manifest:
    try:
        found = json.loads(raw) if raw else {}
    except ValueError:
        found = {"message": raw.decode(errors="replace")[:500]}
    if response.status < 400:
        assert isinstance(found, dict)
        return found
    failure = _failure(response.status, found)
    if isinstance(failure, TooManyRequests):
        failure.retry_after_seconds = float(response.headers.get("Retry-After", 1))
    raise failure


def _failure(code: int, status: Manifest) -> KubeError:
    message = str(status.get("message") or f"the API server answered {code}")
    if code == 409 and status.get("reason") == "AlreadyExists":
        return AlreadyExists(message)
    if "failed to create typed patch object" in message:
        # A field that the schema does not have; the API server calls this an internal error.
        return Rejected(message)
    kinds = {
        400: Rejected,
        403: Forbidden,
        404: NotFound,
        409: Conflict,
        410: Expired,
        422: Rejected,
        429: TooManyRequests,
    }
    return kinds.get(code, KubeError)(message)
