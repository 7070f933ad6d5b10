"""A Triton model repository: which models and versions a directory holds, and how its models call one another.

Source: Triton, "Model Repository" and "Model Configuration", "Version Policy".
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import LoadError

from servery_runtime_triton.model.config import FILE
from servery_runtime_triton.model.failures import ModelError, ModelGone


class Peer(Protocol):
    """A loaded model as others call it, from any thread."""

    is_decoupled: bool
    versions: tuple[str, ...]

    def responses(self, request: InferRequest) -> Sequence[InferResponse]:
        """Return every response to one request; one where the model is not decoupled."""


class ModelRepository:
    """The models below one directory, or the directory that is a model itself."""

    _open: ClassVar[weakref.WeakValueDictionary[Path, ModelRepository]] = weakref.WeakValueDictionary()

    def __init__(self, artifact: Path) -> None:
        self.artifact = artifact
        self._loaded: dict[str, Peer] = {}
        self._lock = threading.Lock()

    @classmethod
    def at(cls, artifact: Path) -> ModelRepository:
        """Return the one repository of a directory: a model that comes later meets those that are there."""
        artifact = artifact.absolute()
        return cls._open.setdefault(artifact, cls(artifact))

    def names(self) -> tuple[str, ...]:
        """Return the names of the models, sorted; empty where the directory itself is a model, or holds none."""
        if not self.artifact.is_dir() or is_model(self.artifact):
            return ()
        return tuple(path.name for path in self._folders() if is_model(path))

    def others(self) -> tuple[Path, ...]:
        """Return the folders among the models that are none."""
        return tuple(path for path in self._folders() if not is_model(path)) if self.names() else ()

    def _folders(self) -> list[Path]:
        return [path for path in sorted(self.artifact.iterdir()) if path.is_dir() and path.name[0] not in "._"]

    def directory(self, name: str | None) -> Path:
        """Return the directory of a model; None is the only one.

        Raises:
            LoadError: No such model, or not an only one; says what is there.
        """
        if not self.artifact.is_dir():
            raise LoadError(f"{self.artifact}: no such directory; the storage initializer should have made it")
        if is_model(self.artifact):
            return self.artifact
        names = self.names()
        if not names:
            present = ", ".join(sorted(path.name for path in self.artifact.iterdir())) or "nothing"
            raise LoadError(
                f"{self.artifact}: is no Triton model repository, which is a folder for each model with a {FILE} or "
                f"numbered versions in it; found: {present}"
            )
        wanted = names[0] if name is None and len(names) == 1 else name
        if wanted not in names:
            raise LoadError(f"{self.artifact}: name one of the models: {', '.join(names)}")
        return self.artifact / wanted

    def enter(self, name: str, model: Peer) -> None:
        """Let others call a model; one that was there under the name is called no more."""
        with self._lock:
            self._loaded[name] = model

    def leave(self, name: str, model: Peer) -> None:
        """Forget a model, unless another has taken its place."""
        with self._lock:
            if self._loaded.get(name) is model:
                del self._loaded[name]

    def peer(self, name: str) -> Peer:
        """Return a loaded model.

        Raises:
            ModelGone: Not loaded; says what is.
        """
        with self._lock:
            if name in self._loaded:
                return self._loaded[name]
            present = ", ".join(sorted(self._loaded)) or "none"
        raise ModelGone(f"model {name!r} is not loaded; loaded are: {present}")

    def call(self, request: InferRequest, *, decoupled: bool) -> Sequence[InferResponse]:
        """Return the responses of a model that another one asks; one, unless ``decoupled``.

        Raises:
            ServeryError: It is not there, or said no.
        """
        peer = self.peer(request.model)
        if request.version is not None and request.version not in peer.versions:
            raise ModelGone(
                f"model {request.model!r} has no version {request.version}; it has: {', '.join(peer.versions)}"
            )
        if peer.is_decoupled and not decoupled:
            raise ModelError(f"model {request.model!r} is decoupled: call exec(decoupled=True)")
        return peer.responses(request)

    def is_ready(self, name: str, version: str) -> bool:
        """Whether a model answers in a version; an empty one is any."""
        with self._lock:
            return name in self._loaded and version in ("", *self._loaded[name].versions)


def is_model(directory: Path) -> bool:
    """Whether a directory is a model's: it has a configuration, or versions and no models in them."""
    return (directory / FILE).is_file() or any(not is_model(path) for path in numbered(directory))


def numbered(directory: Path) -> tuple[Path, ...]:
    """Return the folders of versions, the highest last."""
    found = (path for path in directory.iterdir() if path.is_dir() and path.name.isdecimal() and path.name[0] != "0")
    return tuple(sorted(found, key=lambda path: int(path.name)))


def chosen(policy: pb.ModelVersionPolicy, versions: Sequence[str], *, where: Path) -> tuple[str, ...]:
    """Return the versions that a policy serves, in the order of ``versions``; the highest one is the default.

    Raises:
        LoadError: None is served; says what is there and what is wanted.
    """
    match policy.WhichOneof("policy_choice"):
        case "all":
            served = tuple(versions)
        case "specific":
            wanted = {str(version) for version in policy.specific.versions}
            if missing := sorted(wanted - set(versions), key=int):
                raise LoadError(
                    f"{where}: version_policy names {', '.join(missing)}; found: {', '.join(versions) or 'none'}"
                )
            served = tuple(version for version in versions if version in wanted)
        case _:
            served = tuple(versions[-(policy.latest.num_versions or 1) :])
    if not served:
        raise LoadError(f"{where}: has no version to serve: versions are folders named 1, 2, …")
    return served
