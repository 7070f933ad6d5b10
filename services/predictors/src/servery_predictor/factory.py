"""How the empty models of a runtime are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from servery_sdk.applications import ApplicationModel
from servery_sdk.documents import AnyModel
from servery_sdk.model import Runtime
from servery_sdk.routes import Host, Listener
from servery_sdk.serving import (
    LoadError,
    Model,
    ModelProgram,
    ModelStore,
    NamedModel,
    ReservedStore,
    RoutedModel,
    ThreadedModel,
)

MakeModel: TypeAlias = Callable[[], AnyModel]
RunProgram: TypeAlias = Callable[[], Mapping[str, MakeModel]]
Options: TypeAlias = Mapping[str, str | int | bool | tuple[str, ...]]
"""A runtime's own settings, by name."""


_ANSWERS = ("predict", "reply")
"""What a model class has one of: it takes tensors, or documents."""


class ModelFactory:
    """Makes empty models of ``runtime``, whose framework it imports.

    Args:
        runtime: The process's.
        options: The runtime's own, as its model class takes them.
        threads: That a call of a model may use, where it can be told.

    Raises:
        LoadError: The runtime has no model class, or that does not import.
    """

    def __init__(self, runtime: Runtime, options: Options, *, threads: int = 1) -> None:
        self._model_class = _model_class(runtime)
        self._options = options
        self._threads = threads

    def models(self, name: str, artifact: Path) -> Mapping[str, MakeModel]:
        """Return what makes each model that ``artifact`` brings: one called ``name``, or those of a store.

        Raises:
            LoadError: The artifact is a store but cannot be read.
        """
        made = self._model_class
        stored: Mapping[str, MakeModel] = made.stored(artifact, **self._options) if isinstance(made, ModelStore) else {}
        return {
            model: partial(self._empty, model, make)
            for model, make in (stored or {name: partial(made, **self._options)}).items()
        }

    def one_of_many(self, folder: Path, name: str) -> tuple[Path, MakeModel]:
        """Return the artifact of a model that lies below ``folder`` among others, and what makes it.

        Raises:
            LoadError: The folder is a store but cannot be read, or the model is a program of its own.
        """
        made = self._model_class
        # Of a store's models, each says that it lies in the store.
        stored: Mapping[str, MakeModel] = made.stored(folder, **self._options) if isinstance(made, ModelStore) else {}
        if name in stored:
            return folder, partial(self._empty, name, stored[name])
        if self.program(name, folder / name) is not None:
            raise LoadError(f"model {name!r} is a program of its own, which serves alone")
        return folder / name, partial(self._empty, name, partial(made, **self._options))

    def program(self, name: str, artifact: Path) -> RunProgram | None:
        """Return what runs the program that ``artifact`` is, and tells what makes its models; None where it is none."""
        made = self._model_class
        return made.program(artifact, name, **self._options) if isinstance(made, ModelProgram) else None

    def reserved(self, artifact: Path) -> Mapping[str, MakeModel]:
        """Return what makes each model that ``artifact`` holds back.

        Raises:
            LoadError: The artifact cannot be read.
        """
        made = self._model_class
        found: Mapping[str, MakeModel] = made.reserved(artifact) if isinstance(made, ReservedStore) else {}
        return {model: partial(self._empty, model, make) for model, make in found.items()}

    def listeners(self, artifact: Path, host: Host) -> Sequence[Listener]:
        """Return the paths of the runtime's own.

        Raises:
            LoadError: The artifact says where they are answered, but cannot be read.
        """
        made = self._model_class
        return made.listeners(artifact, host) if isinstance(made, RoutedModel) else ()

    @property
    def brings_application(self) -> bool:
        """Whether its models answer OpenAI's paths themselves."""
        return isinstance(self._model_class, ApplicationModel)

    def _empty(self, name: str, make: MakeModel) -> AnyModel:
        model = make()
        if isinstance(model, NamedModel):
            model.served_name = name
        if isinstance(model, ThreadedModel):
            model.threads = self._threads
        return model


def _model_class(runtime: Runtime) -> type[Model]:
    module, _, attribute = (runtime.model_class or "").partition(":")
    if not attribute:
        raise LoadError(f"runtime {runtime.name!r} has no model class; only its own image serves it")
    try:
        made = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise LoadError(f"runtime {runtime.name!r}: cannot import {runtime.model_class}: {error}") from error
    if not isinstance(made, type) or not any(callable(getattr(made, name, None)) for name in _ANSWERS):
        raise LoadError(
            f"runtime {runtime.name!r}: {runtime.model_class} is not a class with load and predict or reply"
        )
    return made
