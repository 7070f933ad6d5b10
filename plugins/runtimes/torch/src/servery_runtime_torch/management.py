"""TorchServe's management API: which models there are, which are loaded, which version answers who names none.

A model has one queue here and no workers of its own: it has one where it is loaded, none where it is not.

Source: TorchServe, "Management API" and "Model API Control".
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import ModelState
from servery_sdk.routes import Answer, Asked, Host, Route, ServedModel

from servery_runtime_torch import store
from servery_runtime_torch.inference import answering, refused, said
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
    """

    def __init__(self, host: Host, artifact: Path, *, is_open: bool) -> None:
        self._host, self._artifact, self._is_open = host, artifact, is_open

    def routes(self) -> tuple[Route, ...]:
        """Return its routes."""
        handles = {
            ("GET", "/models"): self._list,
            ("POST", "/models"): self._register,
            ("GET", "/models/{model}"): self._describe,
            ("GET", "/models/{model}/{version}"): self._describe,
            ("PUT", "/models/{model}"): self._scale,
            ("PUT", "/models/{model}/{version}"): self._scale,
            ("DELETE", "/models/{model}"): self._delete,
            ("DELETE", "/models/{model}/{version}"): self._delete,
            ("PUT", "/models/{model}/{version}/set-default"): self._set_default,
        }
        return tuple(
            Route(method=method, path=path, handle=answering(handle)) for (method, path), handle in handles.items()
        )

    async def _list(self, asked: Asked) -> Answer:
        start, limit = _number(asked, "next_page_token", 0), _number(asked, "limit", 100)
        stored = self._stored()
        names = [model.name for model in self._host.models() if model.loaded is not None and model.name in stored]
        page = [{"modelName": name, "modelUrl": _default(stored[name]).path.name} for name in names[start:][:limit]]
        more = {"nextPageToken": str(start + limit)} if start + limit < len(names) else {}
        return said({**more, "models": page})

    async def _describe(self, asked: Asked) -> Answer:
        model, found = self._found(asked)
        version = asked.path.get("version")
        wanted = found.versions if version == "all" else [version or _answering(model, found)]
        return said([_described(model, found.versions[number], number) for number in wanted])

    async def _register(self, asked: Asked) -> Answer:
        if not self._is_open:
            return _CLOSED
        if not self._host.is_alone:
            raise NotAlone("models are registered where one process serves; restart with the archive in load_models")
        url = asked.query.get("url", "")
        stored = store.archives(self._artifact)
        found = next(((name, model) for name, model in stored.items() for one in _paths(model) if one == url), None)
        if found is None:
            present = ", ".join(sorted({one for model in stored.values() for one in _paths(model)})) or "none"
            raise NotHere(f"url: {url!r} is no archive of the model store, and none is fetched; it holds: {present}")
        name, model = found
        if asked.query.get("model_name", name) != name:
            raise Refused(f"model_name: {asked.query['model_name']!r}: a model keeps its archive's name, {name!r}")
        await self._host.load(name)
        number = model.default_version
        return said({"status": f'Model "{name}" Version: {number} registered with 1 initial workers'})

    async def _scale(self, asked: Asked) -> Answer:
        model, _ = self._found(asked)
        workers = _number(asked, "min_worker", 1)
        of_version = f", version: {asked.path['version']}" if "version" in asked.path else ""
        if workers and model.loaded is None:
            await self._host.load(model.name)
        elif not workers and model.loaded is not None:
            await self._host.unload(model.name)
        return said({"status": f"Workers scaled to {min(workers, 1)} for model: {model.name}{of_version}"})

    async def _delete(self, asked: Asked) -> Answer:
        if not self._is_open:
            return _CLOSED
        model, found = self._found(asked)
        if "version" in asked.path and len(found.versions) > 1:
            raise Refused(
                f"model {model.name!r}: its versions are loaded together: {', '.join(found.versions)}; delete all"
            )
        await self._host.unload(model.name)
        return said({"status": f'Model "{model.name}" unregistered'})

    async def _set_default(self, asked: Asked) -> Answer:
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
    return [archive.path.name for archive in model.versions.values()]


def _default(model: StoredModel) -> Archive:
    return model.versions[model.default_version]


def _answering(model: ServedModel, found: StoredModel) -> str:
    return model.loaded.default_version if isinstance(model.loaded, VersionedModel) else found.default_version


def _described(model: ServedModel, archive: Archive, number: str) -> dict[str, Any]:
    workers = 0 if model.loaded is None else 1
    failed = {"failure": model.reason} if model.state is ModelState.FAILED_TO_LOAD else {}
    return {
        "modelName": model.name,
        "modelVersion": number,
        "modelUrl": archive.path.name,
        "runtime": "python",
        "minWorkers": workers,
        "maxWorkers": workers,
        "batchSize": archive.batch_size or 1,
        # An idle model waits for nobody.
        "maxBatchDelay": 0,
        "workers": [{"id": str(os.getpid()), "status": "READY"}] * workers,
        **failed,
    }
