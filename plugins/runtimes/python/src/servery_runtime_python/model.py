"""A ``model.py`` with a class ``Model``, from the artifact."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from servery_sdk.importing import line_of, make_importable
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor
from servery_sdk.protocol.elements import as_bytes
from servery_sdk.serving import DescribedModel, InputError, LoadError, UnbatchedModel

FILE = "model.py"
MODULE = "servery_model"


class PythonModel:
    """Wraps the artifact's ``Model``, whose ``predict`` takes arrays by input name and returns arrays.

    The class needs ``predict(inputs)``, where ``inputs`` maps a name to ``[rows, *item]``; it returns an array, or
    arrays by output name. A ``predict(request)`` is ``servery_sdk``'s own: ``InferRequest`` in, ``InferResponse`` out. ``load(artifact: Path)`` is called first where there is one. ``batchable = False`` keeps
    requests apart. A ``ValueError`` or ``KeyError`` of ``predict`` is the caller's fault.
    """

    def __init__(self) -> None:
        self._model: Any = None
        self.batchable = True
        self._takes_request = False

    def load(self, artifact: Path) -> None:
        """Import ``model.py`` and make its ``Model``.

        Raises:
            LoadError: No such file or class, or it raises; says where.
        """
        artifact = artifact.absolute()
        file = artifact / FILE
        if not file.is_file():
            present = ", ".join(sorted(path.name for path in artifact.iterdir())) if artifact.is_dir() else "nothing"
            raise LoadError(f"{artifact}: the python runtime needs a {FILE} with a class Model; found: {present}")
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
                raise LoadError(f"{FILE}: has no class Model")
            self._model = made()
            if hasattr(self._model, "load"):
                self._model.load(artifact)
        except LoadError:
            raise
        except Exception as error:
            # Somebody else's code may raise anything.
            raise LoadError(f"{FILE}: {type(error).__name__}: {error}{line_of(error, file)}") from error
        if not callable(getattr(self._model, "predict", None)):
            raise LoadError(f"{FILE}: Model has no predict(inputs)")
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
                f"{FILE}: predict(request) returned a {type(answer).__name__}, not an InferResponse; "
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
