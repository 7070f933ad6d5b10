"""TorchServe's management API: which models there are, which are loaded, which version answers who names none.

A model has one queue here and no workers of its own: it has one where it is loaded, none where it is not.

Source: TorchServe, "Management API" and "Model API Control".
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import urlsplit

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import ModelState
from servery_sdk.routes import Answer, Asked, Host, Route, ServedModel

from servery_runtime_torch import archive, fetching, store
from servery_runtime_torch.inference import FAILURES, answering, refused, said
from servery_runtime_torch.store import Archive, StoredModel


class Refused(ServeryError):
    """What is asked for cannot be."""

    code = ErrorCode.INVALID_ARGUMENT


class NotHere(ServeryError):
    """No such model or version."""

    code = ErrorCode.NOT_FOUND


class NotAlone(ServeryError):
    """What is asked for would be done in one of several processes."""

    code = ErrorCode.UNIMPLEMENTED


class NoWorkflows(ServeryError):
    """What TorchServe makes of several models."""

    code = ErrorCode.UNIMPLEMENTED

    def __init__(self) -> None:
        super().__init__(
            "workflow archives (.war) are not served: serve each model of theirs from the model store, and say how "
            "requests go through them in an InferenceGraph (serving.kserve.io/v1alpha1), a Sequence or an Ensemble"
        )


class _Made(NamedTuple):
    method: str
    path: str
    handle: Callable[[Asked], Awaitable[Answer]]
    summary: str
    query: Mapping[str, str] = {}


_REGISTERING = {
    "url": "a file of the model store, or where one is fetched from",
    "model_name": "the archive's own",
    "s3_sse_kms": "true asks S3 for the key service's encryption",
}
_SCALING = {"min_worker": "0 unloads, more loads"}


@runtime_checkable
class VersionedModel(Protocol):
    """A loaded model of several versions."""

    default_version: str
    """Of requests that name none."""


class Management:
    """The API over ``host``.

    Args:
        artifact: Of the store.
        is_open: Models may be registered and deleted, as TorchServe's ``--enable-model-api`` allows.
        allowed: What URLs of archives elsewhere must be like; nothing is fetched where there are none.
    """

    def __init__(self, host: Host, artifact: Path, *, is_open: bool, allowed: Sequence[re.Pattern[str]] = ()) -> None:
        self._host, self._artifact, self._is_open, self._allowed = host, artifact, is_open, allowed

    def routes(self) -> tuple[Route, ...]:
        """Return its routes."""
        list_, scale = "List the models that are loaded", "Load a model, or unload it where no workers are wanted"
        versions = "Tell of a model; of one version, or of all"
        made = [
            _Made("GET", "/models", self.list, list_, {"limit": "of a page", "next_page_token": "of the next page"}),
            _Made("POST", "/models", self.register, "Load an archive", _REGISTERING),
            _Made("GET", "/models/{model}", self.describe, versions),
            _Made("GET", "/models/{model}/{version}", self.describe, versions),
            _Made("PUT", "/models/{model}", self.scale, scale, _SCALING),
            _Made("PUT", "/models/{model}/{version}", self.scale, scale, _SCALING),
            _Made("DELETE", "/models/{model}", self.delete, "Unload a model"),
            _Made("DELETE", "/models/{model}/{version}", self.delete, "Unload a model of one version"),
            _Made(
                "PUT", "/models/{model}/{version}/set-default", self.set_default, "Say which version answers by default"
            ),
            *(
                _Made(method, path, _workflow, "Say what is served in place of workflows")
                for path in ("/workflows", "/workflows/{workflow}")
                for method in ("GET", "POST", "DELETE")
            ),
        ]
        return tuple(
            Route(
                method=one.method,
                path=one.path,
                handle=answering(one.handle),
                summary=one.summary,
                query=one.query,
                failures=FAILURES,
            )
            for one in made
        )

    async def list(self, asked: Asked) -> Answer:
        """Return a page of the models that are loaded.

        Raises:
            ServeryError: It cannot be.
        """
        start, limit = _number(asked, "next_page_token", 0), _number(asked, "limit", 100)
        stored = self._stored()
        names = [model.name for model in self._host.models() if model.loaded is not None and model.name in stored]
        page = [{"modelName": name, "modelUrl": _default(stored[name]).path.name} for name in names[start:][:limit]]
        more = {"nextPageToken": str(start + limit)} if start + limit < len(names) else {}
        return said({**more, "models": page})

    async def describe(self, asked: Asked) -> Answer:
        """Return what is known of a model, or of one version or all of them.

        Raises:
            ServeryError: It cannot be.
        """
        model, found = self._found(asked)
        version = asked.path.get("version")
        wanted = found.versions if version == "all" else [version or _answering(model, found)]
        return said([_described(model, found.versions[number], number) for number in wanted])

    async def register(self, asked: Asked) -> Answer:
        """Load an archive of the store, or one that is fetched into it.

        Raises:
            ServeryError: It cannot be.
        """
        if not self._is_open:
            return _CLOSED
        if not self._host.is_alone:
            raise NotAlone("models are registered where one process serves; restart with the archive in load_models")
        url = asked.query.get("url", "")
        if urlsplit(url).path.endswith(archive.WORKFLOW):
            raise NoWorkflows
        if fetching.is_elsewhere(url):
            is_encrypted = asked.query.get("s3_sse_kms", "").lower() == "true"
            folder = store.folder(self._artifact)
            url = (await asyncio.to_thread(fetching.fetch, url, folder, self._allowed, is_encrypted=is_encrypted)).name
        stored = store.archives(self._artifact)
        found = next(((name, model) for name, model in stored.items() for one in _paths(model) if one == url), None)
        if found is None:
            present = ", ".join(sorted({one for model in stored.values() for one in _paths(model)})) or "none"
            raise NotHere(f"url: {url!r} is no archive of the model store; it holds: {present}")
        name, model = found
        if asked.query.get("model_name", name) != name:
            raise Refused(f"model_name: {asked.query['model_name']!r}: a model keeps its archive's name, {name!r}")
        await self._host.load(name)
        number = model.default_version
        return said({"status": f'Model "{name}" Version: {number} registered with 1 initial workers'})

    async def scale(self, asked: Asked) -> Answer:
        """Load a model, or unload it for no workers.

        Raises:
            ServeryError: It cannot be.
        """
        model, _ = self._found(asked)
        workers = _number(asked, "min_worker", 1)
        of_version = f", version: {asked.path['version']}" if "version" in asked.path else ""
        if workers and model.loaded is None:
            await self._host.load(model.name)
        elif not workers and model.loaded is not None:
            await self._host.unload(model.name)
        return said({"status": f"Workers scaled to {min(workers, 1)} for model: {model.name}{of_version}"})

    async def delete(self, asked: Asked) -> Answer:
        """Unload a model.

        Raises:
            ServeryError: It cannot be.
        """
        if not self._is_open:
            return _CLOSED
        model, found = self._found(asked)
        if "version" in asked.path and len(found.versions) > 1:
            raise Refused(
                f"model {model.name!r}: its versions are loaded together: {', '.join(found.versions)}; delete all"
            )
        await self._host.unload(model.name)
        return said({"status": f'Model "{model.name}" unregistered'})

    async def set_default(self, asked: Asked) -> Answer:
        """Say which version answers who names none.

        Raises:
            ServeryError: It cannot be.
        """
        model, _ = self._found(asked)
        if not self._host.is_alone:
            raise NotAlone("a default version is set where one process serves; set defaultVersion in model_snapshot")
        if not isinstance(model.loaded, VersionedModel):
            raise Refused(f"model {model.name!r} is not loaded")
        model.loaded.default_version = number = asked.path["version"]
        return said({"status": f'Default version successfully updated for model "{model.name}" to "{number}"'})

    def _stored(self) -> dict[str, StoredModel]:
        # Read anew: archives come and go while a server runs.
        return {**store.archives(self._artifact), **store.read(self._artifact).models}

    def _found(self, asked: Asked) -> tuple[ServedModel, StoredModel]:
        """Return a model and what its store says of it.

        Raises:
            ServeryError: Neither it nor its version is here.
        """
        name, version = asked.path["model"], asked.path.get("version", "all")
        model = self._host.model(name)
        stored = self._stored().get(model.name)
        if stored is None:
            raise NotHere(f"Model not found: {name}")
        if version != "all" and version not in stored.versions:
            raise NotHere(f"Model version: {version} does not exist for model: {name}")
        return model, stored


async def _workflow(_: Asked) -> Answer:
    raise NoWorkflows


_CLOSED = refused(
    405,
    "MethodNotAllowedException",
    "registering and deleting models is off; enable_model_api=true in config.properties turns it on",
)


def _number(asked: Asked, name: str, default: int) -> int:
    text = asked.query.get(name, "")
    if text and not text.isdecimal():
        raise Refused(f"{name}: {text!r} is not a number from 0 on")
    return int(text) if text else default


def _paths(model: StoredModel) -> list[str]:
    return [found.path.name for found in model.versions.values()]


def _default(model: StoredModel) -> Archive:
    return model.versions[model.default_version]


def _answering(model: ServedModel, found: StoredModel) -> str:
    return model.loaded.default_version if isinstance(model.loaded, VersionedModel) else found.default_version


def _described(model: ServedModel, found: Archive, number: str) -> dict[str, Any]:
    workers = 0 if model.loaded is None else 1
    failed = {"failure": model.reason} if model.state is ModelState.FAILED_TO_LOAD else {}
    return {
        "modelName": model.name,
        "modelVersion": number,
        "modelUrl": found.path.name,
        "runtime": "python",
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": found.batch_size or 1,
        # An idle model waits for nobody.
        "maxBatchDelay": 0,
        "workers": [{"id": str(os.getpid()), "status": "READY"}] * workers,
        **failed,
    }
