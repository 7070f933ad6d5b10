"""A ``model.py`` with a class ``Model``, from the artifact; one of KServe's models is ``kserve``'s to serve."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from servery_sdk.documents import AnyModel
from servery_sdk.importing import make_importable
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor
from servery_sdk.protocol.elements import as_bytes
from servery_sdk.serving import DescribedModel, InputError, LoadError, UnbatchedModel

from servery_runtime_python import files

MODULE = "servery_model"


class PythonModel:
    """Wraps the artifact's ``Model``, whose ``predict`` takes arrays by input name and returns arrays.

    The class needs ``predict(inputs)``, where ``inputs`` maps a name to ``[rows, *item]``; it returns an array, or
    arrays by output name. A ``predict(request)`` is ``servery_sdk``'s own: ``InferRequest`` in, ``InferResponse`` out. ``load(artifact: Path)`` is called first where there is one. ``batchable = False`` keeps
    requests apart. A ``ValueError`` or ``KeyError`` of ``predict`` is the caller's fault.

    Args:
        model_file: Of the artifact; empty for ``model.py``, or the only one.
        arguments: Flags that the predictor does not know; only a program may have some.
    """

    def __init__(self, *, model_file: str = "", arguments: tuple[str, ...] = ()) -> None:
        self._model: Any = None
        self._file = model_file
        self._arguments = arguments
        self.batchable = True
        self._takes_request = False

    @classmethod
    def program(
        cls, artifact: Path, name: str, *, model_file: str = "", arguments: tuple[str, ...] = ()
    ) -> Callable[[], Mapping[str, Callable[[], AnyModel]]] | None:
        """Return what runs a file that imports ``kserve``; None for all others."""
        artifact = artifact.absolute()
        try:
            file = files.model_file(artifact, model_file)
        except LoadError:
            # The model that is no program says so when it is loaded.
            return None
        if not files.imports(file, "kserve"):
            return None
        if importlib.util.find_spec("kserve") is None:
            raise LoadError(f"{file.name}: imports kserve, which is not here: pip install 'servery[kserve]'")

        def models() -> Mapping[str, Callable[[], AnyModel]]:
            # By its name: only here, and only where kserve is installed, may it be imported.
            made = importlib.import_module("servery_runtime_python.kserve.program").Program
            started: Mapping[str, Callable[[], AnyModel]] = made(file, artifact, name, arguments).models()
            return started

        return models

    def load(self, artifact: Path) -> None:
        """Import ``model.py`` and make its ``Model``.

        Raises:
            LoadError: No such file or class, or it raises; says where.
        """
        artifact = artifact.absolute()
        file = files.model_file(artifact, self._file)
        if self._arguments:
            raise LoadError(
                f"unrecognized arguments: {' '.join(self._arguments)}; {file.name} is no program of KServe's"
            )
        self._file = file.name
        make_importable(artifact)
        try:
            spec = importlib.util.spec_from_file_location(MODULE, file)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[MODULE] = module
            spec.loader.exec_module(module)
            made = getattr(module, "Model", None)
            if made is None:
                raise LoadError(f"{file.name}: has no class Model")
            self._model = made()
            if hasattr(self._model, "load"):
                self._model.load(artifact)
        except LoadError:
            raise
        except Exception as error:
            # Somebody else's code may raise anything.
            raise files.failure(file, error) from error
        if not callable(getattr(self._model, "predict", None)):
            raise LoadError(f"{file.name}: Model has no predict(inputs)")
        self._takes_request = next(iter(inspect.signature(self._model.predict).parameters), "") == "request"
        if isinstance(self._model, UnbatchedModel):
            self.batchable = self._model.batchable

    def predict(self, request: InferRequest) -> InferResponse:
        """Return what ``Model.predict`` returns.

        Raises:
            InputError: ``Model.predict`` raised ValueError or KeyError.
        """
        try:
            if self._takes_request:
                return self._answer(request)
            answer = self._model.predict({tensor.name: tensor.data for tensor in request.inputs})
        except (ValueError, KeyError) as error:
            given = ", ".join(f"{tensor.name!r} {list(tensor.data.shape)}" for tensor in request.inputs)
            raise InputError(f"{type(error).__name__}: {error}; the inputs are {given}") from error
        named = answer if isinstance(answer, Mapping) else {"output-0": answer}
        outputs = tuple(_tensor(name, np.asarray(value)) for name, value in named.items())
        return InferResponse(model=request.model, outputs=outputs)

    def _answer(self, request: InferRequest) -> InferResponse:
        answer = self._model.predict(request)
        if not isinstance(answer, InferResponse):
            raise TypeError(
                f"{self._file}: predict(request) returned a {type(answer).__name__}, not an InferResponse; "
                "call the parameter inputs to take and return arrays"
            )
        return answer

    def metadata(self) -> ModelMetadata:
        """Return what the artifact's model says of itself, if it does."""
        if isinstance(self._model, DescribedModel):
            return self._model.metadata()
        return ModelMetadata(name="", platform="python")


def _tensor(name: str, data: Any) -> Tensor:
    if data.dtype.kind in "USO":
        encoded = np.empty(data.shape, dtype=object)
        encoded.ravel()[:] = [as_bytes(element) for element in data.ravel().tolist()]
        data = encoded
    return Tensor(name=name, data=data, datatype=Datatype.of(data))
