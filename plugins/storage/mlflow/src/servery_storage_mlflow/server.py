"""What an MLflow server answers. Imports httpx: the provider's calls alone import this.

Source: MLflow, "REST API".
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import httpx
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Refusal

from servery_storage_mlflow.access import Access

TIMEOUT_SECONDS = 30.0
"""Without a byte. The caller tries again."""

ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_ADVICE = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"


async def of_version(access: Access, name: str, version: str, what: str) -> str:
    """Return where a registered model's version lies. ``version`` may be ``latest`` or a stage as well."""
    if not version.isdigit():
        asked = {"name": name, **({} if version.lower() == "latest" else {"stages": version})}
        found = await asked_of(access, access.registry_url, "registered-models/get-latest-versions", asked, what)
        versions = found.get("model_versions") or ()
        if not versions:
            raise Permanent(f"{what}: the registered model {name!r} has no version {version!r}")
        version = max((str(one["version"]) for one in versions), key=int)
    query = {"name": name, "version": version}
    return str(
        (await asked_of(access, access.registry_url, "model-versions/get-download-uri", query, what))["artifact_uri"]
    )


async def of_alias(access: Access, name: str, alias: str, what: str) -> str:
    """Return where the version lies that an alias names now."""
    query = {"name": name, "alias": alias}
    found = await asked_of(access, access.registry_url, "registered-models/alias", query, what)
    return await of_version(access, name, str(found["model_version"]["version"]), what)


async def of_logged(access: Access, model: str, what: str) -> tuple[str, str]:
    """Return a logged model's name, and where it lies."""
    found = (await asked_of(access, access.tracking_url, f"logged-models/{model}", {}, what))["model"]["info"]
    return str(found["name"]), str(found["artifact_uri"])


async def of_run(access: Access, run: str, path: str, what: str) -> tuple[str, str]:
    """Return where a run's artifact lies, as a place and a path there. From MLflow 3 on a run's models lie apart."""
    found = (await asked_of(access, access.tracking_url, "runs/get", {"run_id": run}, what))["run"]
    name, _, rest = path.partition("/")
    for output in (found.get("outputs") or {}).get("model_outputs") or ():
        logged, uri = await of_logged(access, output["model_id"], what)
        if logged == name:
            return uri, rest
    return str(found["info"]["artifact_uri"]), path


async def listed(access: Access, base: str, path: str, what: str) -> tuple[Mapping[str, Any], ...]:
    """Return the files and folders that the server's own store has directly below a path."""
    return tuple((await _got(access, f"{base}{ARTIFACTS}", {"path": path}, what)).get("files") or ())


async def asked_of(access: Access, base: str, method: str, query: Mapping[str, str], what: str) -> Mapping[str, Any]:
    """Return what one method answers."""
    return await _got(access, f"{base}/api/2.0/mlflow/{method}", query, what)


async def _got(access: Access, url: str, query: Mapping[str, str], what: str) -> Mapping[str, Any]:
    try:
        async with httpx.AsyncClient(
            verify=access.context(), timeout=TIMEOUT_SECONDS, follow_redirects=True, headers=access.headers
        ) as client:
            answer = await client.get(url, params=query)
    except httpx.TransportError as error:
        host = httpx.URL(url).netloc.decode()
        raise Transient(f"{what}: cannot reach {host}: {type(error).__name__}: {error}") from error
    except httpx.HTTPError as error:
        raise Permanent(f"{what}: {type(error).__name__}: {error}") from error
    if not answer.is_success:
        raise failure(Refusal.of(answer), what)
    try:
        found = answer.json()
    except ValueError as error:
        raise Permanent(f"{what}: MLFLOW_TRACKING_URI does not answer as MLflow does: {error}") from error
    if not isinstance(found, dict):
        raise Permanent(f"{what}: MLFLOW_TRACKING_URI does not answer as MLflow does")
    return found


def failure(refusal: Refusal, what: str) -> Transient | Permanent:
    """Return what the server's error document says."""
    try:
        said = httpx.Response(refusal.status, content=refusal.body).json()
        words = f"{said['error_code']}: {said['message']}"
    except (ValueError, LookupError, TypeError):
        words = ""
    is_access = refusal.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
    return refusal.failure(what, "; ".join(filter(None, (words, _ADVICE if is_access else ""))))
