"""A fitted scikit-learn estimator or pipeline."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import sklearn
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.protocol.elements import as_bytes
from servery_sdk.serving import InputError, LoadError

logger = logging.getLogger(__name__)

SUFFIXES = (".joblib", ".pkl", ".pickle")
OUTPUT = "output-0"


class SKLearnModel:
    """Loads the one pickle in the artifact; answers with ``predict``, or ``predict_proba`` where asked.

    Environment:
        PREDICT_PROBA: ``true`` for probabilities (KServe's variable).

    Attributes:
        forkable: An unpickled estimator is memory alone.
    """

    forkable = True

    def __init__(self) -> None:
        self._estimator: Any = None
        self._method = "predict_proba" if os.environ.get("PREDICT_PROBA", "").lower() == "true" else "predict"

    def load(self, artifact: Path) -> None:
        """Unpickle the one model file below ``artifact``.

        Raises:
            LoadError: None, several, or one that does not unpickle; says the file and the cause's own words.
        """
        file = model_file(artifact)
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                estimator = joblib.load(file)
        except Exception as error:
            # Unpickling runs anything and may raise anything.
            raise LoadError(
                f"{file.name}: cannot be unpickled with scikit-learn {sklearn.__version__}: "
                f"{type(error).__name__}: {error}; save it again with joblib.dump and this version"
            ) from error
        if not hasattr(estimator, self._method):
            seen = "; ".join(str(note.message) for note in notes)
            raise LoadError(
                f"{file.name}: holds a {type(estimator).__name__}, which has no {self._method}()"
                + (f" ({seen})" if seen else "")
            )
        for note in notes:
            # Such as InconsistentVersionWarning: it may answer wrongly, and nobody else will say so.
            logger.warning("model loaded with a warning", extra={"file": file.name, "warning": str(note.message)})
        self._estimator = estimator

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the estimator's answer, ``[rows]`` or ``[rows, classes]``.

        Raises:
            InputError: Names the input, its shape and what the estimator was fitted on.
        """
        features = self._features(request)
        try:
            with warnings.catch_warnings():
                # "X does not have valid feature names": a bare array is what v1 clients send.
                warnings.simplefilter("ignore", UserWarning)
                answer = np.asarray(getattr(self._estimator, self._method)(features))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{type(self._estimator).__name__}: {error}") from error
        if answer.dtype.kind in "UO":
            answer = _encoded(answer)
        tensor = Tensor(name=OUTPUT, data=answer, datatype=Datatype.of(answer))
        return InferResponse(model=request.model, outputs=(tensor,))

    def metadata(self) -> ModelMetadata:
        """Return what the estimator was fitted on."""
        names = self._names()
        count = getattr(self._estimator, "n_features_in_", -1)
        inputs = (
            tuple(TensorMetadata(name=name, datatype=Datatype.FP64, shape=(-1,)) for name in names)
            if names
            else (TensorMetadata(name="input-0", datatype=Datatype.FP64, shape=(-1, int(count))),)
        )
        classes = getattr(self._estimator, "classes_", None)
        if self._method == "predict_proba" and classes is not None:
            output = TensorMetadata(name=OUTPUT, datatype=Datatype.FP64, shape=(-1, len(classes)))
        else:
            datatype = Datatype.FP64 if classes is None else Datatype.of(np.asarray(classes))
            output = TensorMetadata(name=OUTPUT, datatype=datatype, shape=(-1,))
        return ModelMetadata(
            name="", platform=f"sklearn-{sklearn.__version__}", versions=(), inputs=inputs, outputs=(output,)
        )

    def _names(self) -> tuple[str, ...]:
        return tuple(str(name) for name in getattr(self._estimator, "feature_names_in_", ()))

    def _features(self, request: InferRequest) -> Any:
        if len(request.inputs) == 1:
            return self._matrix(request.inputs[0])
        columns = {tensor.name: self._column(tensor) for tensor in request.inputs}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"inputs differ in rows: {lengths}")
        names = self._names()
        if names and set(names) != set(columns):
            raise InputError(
                f"inputs {sorted(columns)} are not the features that the model was fitted on: {sorted(names)}"
            )
        return pd.DataFrame(columns)[list(names)] if names else pd.DataFrame(columns)

    @staticmethod
    def _column(tensor: Tensor) -> Any:
        if tensor.data.ndim == 2 and tensor.data.shape[1] == 1:
            return _decoded(tensor).ravel()
        if tensor.data.ndim != 1:
            raise InputError(
                f"input {tensor.name!r} has shape {list(tensor.data.shape)}; one of several inputs is a column: [rows]"
            )
        return _decoded(tensor)

    def _matrix(self, tensor: Tensor) -> Any:
        count = getattr(self._estimator, "n_features_in_", None)
        shape = tensor.data.shape
        if count is not None and (len(shape) != 2 or shape[1] != count):
            raise InputError(
                f"input {tensor.name!r} has shape {list(shape)}; {type(self._estimator).__name__} takes [rows, {count}]"
            )
        return _decoded(tensor)


def model_file(artifact: Path) -> Path:
    """Return the one file that may hold the model.

    Raises:
        LoadError: None or several; lists what is there.
    """
    if not artifact.is_dir():
        raise LoadError(f"{artifact}: no such directory; the storage initializer should have made it")
    found = sorted(path for path in artifact.iterdir() if path.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    present = ", ".join(sorted(path.name for path in artifact.iterdir())) or "nothing"
    wanted = f"a model directory holds exactly one file of {', '.join(SUFFIXES)}"
    raise LoadError(f"{artifact}: {wanted}; found {len(found)} of them among: {present}")


def _encoded(answer: Any) -> Any:
    encoded = np.empty(answer.shape, dtype=object)
    encoded.ravel()[:] = [as_bytes(element) for element in answer.ravel()]
    return encoded


def _decoded(tensor: Tensor) -> Any:
    if tensor.datatype is not Datatype.BYTES:
        return tensor.data
    texts = [element.decode() if isinstance(element, bytes) else element for element in tensor.data.ravel()]
    return np.array(texts, dtype=object).reshape(tensor.data.shape)
