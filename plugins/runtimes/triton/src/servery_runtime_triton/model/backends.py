"""What runs one version of a model, by the backend's name in its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import LoadError, Send

from servery_runtime_triton.model.repository import ModelRepository


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a version of a model is.

    Attributes:
        name: Of the model.
        version: A number, as text.
        model: Its directory.
        files: The version's, ``model/1``.
        repository: Whose other models it may call.
    """

    name: str
    version: str
    model: Path
    files: Path
    repository: ModelRepository


class Backend(Protocol):
    """One version of a model, or one instance of it.

    Attributes:
        gathers: Whether a call takes several requests as they are; the others take merged ones.
        instances_share: Whether one object answers calls from several threads; the others are made once for each.
    """

    gathers: bool
    instances_share: bool

    def execute(self, requests: Sequence[InferRequest]) -> Sequence[Sequence[InferResponse] | ServeryError]:
        """Return, for each request in order, its responses or its own failure; raise what is all requests' failure."""

    def close(self) -> None:
        """Give back what it holds."""


@runtime_checkable
class StreamingBackend(Protocol):
    """A backend whose responses come one by one."""

    def stream(self, request: InferRequest, send: Send) -> None:
        """Give every response to ``send`` when it is there, and return after the last one."""


class BackendModule(Protocol):
    """What a module of a backend has."""

    def complete(self, config: pb.ModelConfig, files: Path) -> None:
        """Fill in what the configuration leaves out and the model's file knows.

        Raises:
            LoadError: The file cannot be read, or knows otherwise.
        """

    def make(self, config: pb.ModelConfig, place: Place) -> Backend:
        """Load.

        Raises:
            LoadError: It cannot be served.
        """


_MODULES = {
    "onnxruntime": "onnx_backend",
    "python": "python_backend",
    "pytorch": "pytorch_backend",
    "ensemble": "ensemble",
}


def backend(name: str, *, model: str) -> BackendModule:
    """Return the module of a backend.

    Raises:
        LoadError: There is none; says which there are.
    """
    if name not in _MODULES:
        raise LoadError(f"model {model!r}: backend {name!r}: there are: {', '.join(sorted(_MODULES))}")
    module: Any = import_module(f"{__package__}.{_MODULES[name]}")
    found: BackendModule = module
    return found


def model_file(config: pb.ModelConfig, files: Path, default: str) -> Path:
    """Return the file of a version.

    Raises:
        LoadError: It is not there; says what is.
    """
    file = files / (config.default_model_filename or default)
    if file.exists():
        return file
    present = ", ".join(sorted(path.name for path in files.iterdir())) if files.is_dir() else "no such directory"
    raise LoadError(f"{file}: no such file; found: {present or 'nothing'}")
