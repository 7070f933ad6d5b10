"""TorchServe's world on disk: a model store, its ``config.properties`` and what each model is configured to do.

Source: TorchServe, "Advanced configuration" and "Running TorchServe"; KServe's TorchServe samples for the layout.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servery_sdk.serving import LoadError

from servery_runtime_torch import archive
from servery_runtime_torch.archive import Manifest

CONFIG = Path("config") / "config.properties"
STORE = "model-store"
_LINE = re.compile(r"\s*([^=:\s]+)\s*[=:\s]\s*(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """One version of a model.

    Attributes:
        path: A ``.mar``, a ``.tar.gz`` or a directory.
        batch_size: Requests that the handler is given together; None where nobody said so.
    """

    path: Path
    manifest: Manifest
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model of the store: its versions by their names, in the order of their numbers."""

    name: str
    versions: Mapping[str, Archive]
    default_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """What is served, and how.

    Attributes:
        envelope: TorchServe's name of how request bodies are wrapped, such as ``kserve``; empty without.
        installs_requirements: The owner wants an archive's ``requirements.txt`` to be installed.
    """

    models: Mapping[str, StoredModel] = field(default_factory=dict)
    envelope: str = ""
    installs_requirements: bool = False


def read(artifact: Path, environment: Mapping[str, str] = os.environ) -> Store:
    """Return the store that ``artifact`` holds, without models where it holds none.

    ``artifact`` may be what KServe's samples upload (``config/config.properties`` and ``model-store``), a model store,
    or one archive unpacked. Paths in the file are those of a container: only their last part counts.

    Raises:
        LoadError: The configuration, or an archive that it names, is not there or cannot be read.
    """
    file = _config_file(artifact)
    properties = _properties(file)
    folder = _folder(artifact, properties)
    snapshot = _snapshot(file, properties)
    models = _snapshot_models(folder, snapshot) if snapshot else _listed_models(folder, properties)
    return Store(
        models=models,
        envelope=environment.get("TS_SERVICE_ENVELOPE") or properties.get("service_envelope", ""),
        installs_requirements=properties.get("install_py_dep_per_model", "false").lower() == "true",
    )


def archives(artifact: Path) -> Mapping[str, StoredModel]:
    """Return every model that the store has archives of, whether or not its configuration names them.

    Raises:
        LoadError: An archive cannot be read.
    """
    return _listed_models(folder(artifact), {})


def folder(artifact: Path) -> Path:
    """Return where the store's archives lie."""
    return _folder(artifact, _properties(_config_file(artifact)))


def properties(artifact: Path, environment: Mapping[str, str] = os.environ) -> Mapping[str, str]:
    """Return the configuration of the store; where it allows that, variables ``TS_<NAME>`` win."""
    found = _properties(_config_file(artifact))
    if found.get("enable_envvars_config", "").lower() != "true":
        return found
    prefix = "TS_"
    given = {name[len(prefix) :].lower(): value for name, value in environment.items() if name.startswith(prefix)}
    return {**found, **given}


def _properties(file: Path | None) -> dict[str, str]:
    return parse_properties(file.read_text("latin-1")) if file is not None else {}


def parse_properties(text: str) -> dict[str, str]:
    """Return a Java properties file's values: ``#`` and ``!`` start comments, a backslash ends a line that goes on.

    Any other backslash is taken away from what it escapes: a regular expression's own is written twice.
    """
    lines = re.sub(r"\\\r?\n[ \t]*", "", text).splitlines()
    found = (_LINE.fullmatch(line) for line in lines if line.strip() and line.lstrip()[0] not in "#!")
    return {match[1]: _ESCAPED.sub(_unescaped, match[2].strip()) for match in found if match}


_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _unescaped(match: re.Match[str]) -> str:
    return chr(int(match[1], 16)) if match[1] else _CONTROLS.get(match[2], match[2])


def _config_file(artifact: Path) -> Path | None:
    # A server that is told its model store, as TorchServe is, finds the configuration beside it.
    places = [artifact / CONFIG, artifact / CONFIG.name]
    if artifact.name == STORE:
        places.append(artifact.parent / CONFIG)
    return next((file for file in places if file.is_file()), None)


def _folder(artifact: Path, properties: Mapping[str, str]) -> Path:
    said = Path(properties.get("model_store", STORE)).name
    return next((folder for folder in (artifact / said, artifact / STORE) if folder.is_dir()), artifact)


def _snapshot(file: Path | None, properties: Mapping[str, str]) -> Mapping[str, Any]:
    for key in ("model_snapshot", "models"):
        if key not in properties:
            continue
        try:
            document = json.loads(properties[key])
            models = document["models"] if key == "model_snapshot" else document
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise LoadError(f"{file}: {key} must be a JSON object of models: {error}") from error
        if not isinstance(models, dict) or not all(isinstance(versions, dict) for versions in models.values()):
            raise LoadError(f"{file}: {key}: models must map each model's name to its versions")
        # "models" configures what load_models chooses; a snapshot chooses as well.
        if models and (key == "model_snapshot" or "load_models" not in properties):
            return models
    return {}


def _snapshot_models(folder: Path, snapshot: Mapping[str, Any]) -> dict[str, StoredModel]:
    return {
        name: _stored(name, [(_archive(folder, name, version, said), said) for version, said in versions.items()])
        for name, versions in snapshot.items()
    }


def _archive(folder: Path, name: str, version: str, said: Any) -> Archive:
    if not isinstance(said, dict):
        raise LoadError(f"model {name!r} version {version!r}: its configuration must be an object, found {said!r}")
    path = folder / Path(str(said.get("marName", f"{name}.mar"))).name
    size = said.get("batchSize")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise LoadError(f"model {name!r} version {version!r}: batchSize must be a number from 1 on, found {size!r}")
    manifest = archive.manifest(path, expected=folder)
    # The snapshot's version wins over the archive's: it is what clients of that server ask for.
    return Archive(path=path, manifest=manifest.of_version(version), batch_size=size)


def _listed_models(folder: Path, properties: Mapping[str, str]) -> dict[str, StoredModel]:
    wanted = properties.get("load_models", "all").strip()
    if wanted.lower() == "none":
        return {}
    if wanted.lower() in {"all", ""}:
        paths: list[tuple[str | None, Path]] = [(None, path) for path in sorted(archive.found(folder))]
    else:
        named = (entry.strip().rpartition("=") for entry in wanted.split(",") if entry.strip())
        paths = [(name or None, folder / Path(path).name) for name, _, path in named]
    archives: dict[str, list[tuple[Archive, Mapping[str, Any]]]] = {}
    for name, path in paths:
        manifest = archive.manifest(path, expected=folder)
        archives.setdefault(name or manifest.name, []).append((Archive(path=path, manifest=manifest), {}))
    return {name: _stored(name, versions) for name, versions in archives.items()}


def _stored(name: str, versions: list[tuple[Archive, Mapping[str, Any]]]) -> StoredModel:
    ordered = sorted(versions, key=lambda pair: _number(pair[0].manifest.version))
    by_name = {found.manifest.version: found for found, _ in ordered}
    if len(by_name) != len(ordered):
        same = ", ".join(found.path.name for found, _ in ordered)
        raise LoadError(f"model {name!r}: several archives are of one version: {same}; give each its own")
    chosen = [found.manifest.version for found, said in ordered if said.get("defaultVersion")]
    # TorchServe's default is the version that was registered first.
    return StoredModel(name=name, versions=by_name, default_version=(chosen or list(by_name))[0])


def _number(version: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (0, part) for part in version.split("."))
