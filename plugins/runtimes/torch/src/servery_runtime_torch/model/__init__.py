"""A PyTorch model: one of a TorchServe model store, or a file that holds a module."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from servery_sdk.allocating import keep_freed_memory
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.routes import Host, Listener
from servery_sdk.serving import LoadError, Model

from servery_runtime_torch import listening, store
from servery_runtime_torch.model.handlers import HandledModel
from servery_runtime_torch.model.modules import ModuleModel


class TorchModel:
    """Serves what the artifact turns out to be.

    Args:
        name: Of a model of the artifact's store; None takes its only one.

    Environment:
        TS_SERVICE_ENVELOPE: TorchServe's; wins over ``service_envelope`` of the store's configuration.
        SERVERY_TORCH_INSTALL_REQUIREMENTS: ``true`` lets requirements of archives be installed while they are loaded.
        SERVERY_TORCH_MODEL_CLASS: The class in ``model.py`` that a state dict belongs to, where there are several.
    """

    def __init__(self, name: str | None = None) -> None:
        self._name = name
        self._model: HandledModel | ModuleModel | None = None
        self.batchable = True

    @classmethod
    def stored(cls, artifact: Path) -> Mapping[str, Callable[[], Model]]:
        """Return what makes each model of the artifact's store; empty without one.

        Raises:
            LoadError: The store's configuration or an archive cannot be read.
        """
        return {name: partial(cls, name) for name in store.read(artifact, os.environ).models}

    @classmethod
    def reserved(cls, artifact: Path) -> Mapping[str, Callable[[], Model]]:
        """Return what makes each model of which the store has an archive that its configuration does not load.

        Raises:
            LoadError: The store's configuration or an archive cannot be read.
        """
        loaded = store.read(artifact, os.environ).models
        return {name: partial(cls, name) for name in store.archives(artifact) if name not in loaded}

    @classmethod
    def listeners(cls, artifact: Path, host: Host) -> Sequence[Listener]:
        """Return TorchServe's REST API of the artifact's store; none without one.

        Raises:
            LoadError: The store's configuration or an archive cannot be read.
        """
        found = store.read(artifact, os.environ)
        return listening.listeners(artifact, found, host, os.environ) if found.models else ()

    def load(self, artifact: Path) -> None:
        """Load the archive, or the file, that ``artifact`` holds.

        Raises:
            LoadError: None, several without a name to choose by, or one that cannot be loaded.
        """
        keep_freed_memory()
        artifact = artifact.absolute()
        if not artifact.is_dir():
            raise LoadError(f"{artifact}: no such directory; the storage initializer should have made it")
        found = store.read(artifact, os.environ)
        models = found.models
        if self._name is not None and self._name not in models:
            # One that was asked for by name.
            models = store.archives(artifact)
        loaded: HandledModel | ModuleModel
        if models:
            loaded = HandledModel(self._chosen(artifact, models), found)
            loaded.load()
        elif self._name is not None:
            raise LoadError(f"{artifact}: the model store no longer holds {self._name!r}; it is empty")
        else:
            loaded = ModuleModel()
            loaded.load(artifact)
        self._model, self.batchable = loaded, loaded.batchable

    def _chosen(self, artifact: Path, models: Mapping[str, store.StoredModel]) -> store.StoredModel:
        names = ", ".join(sorted(models))
        if self._name is None and len(models) > 1:
            raise LoadError(f"{artifact}: the model store holds several models, each under its own name: {names}")
        name = self._name if self._name is not None else next(iter(models))
        if name not in models:
            raise LoadError(f"{artifact}: the model store no longer holds {name!r}; it holds: {names}")
        return models[name]

    @property
    def default_version(self) -> str:
        """That answers who names none; only archives have versions."""
        if not isinstance(self._model, HandledModel):
            raise AttributeError("default_version")
        return self._model.default_version

    @default_version.setter
    def default_version(self, version: str) -> None:
        assert isinstance(self._model, HandledModel), "it has been read"
        self._model.default_version = version

    @property
    def _loaded(self) -> HandledModel | ModuleModel:
        assert self._model is not None, "load comes first"
        return self._model

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the model's answer.

        Raises:
            InputError: The request does not fit; says the inputs' names and shapes.
        """
        return self._loaded.predict(request)

    def explain(self, request: InferRequest) -> InferResponse:
        """Return what the answer comes from: of handlers what they say, of modules Captum's integrated gradients.

        Raises:
            InputError: The request does not fit; says the inputs' names and shapes.
            Unimplemented: The handler, or this kind of module, explains nothing.
        """
        return self._loaded.explain(request)

    def metadata(self) -> ModelMetadata:
        """Return what is known of the model: of an exported program its inputs and outputs."""
        return self._loaded.metadata()

    def close(self) -> None:
        """Give back what loading made."""
        if isinstance(self._model, HandledModel):
            self._model.close()
