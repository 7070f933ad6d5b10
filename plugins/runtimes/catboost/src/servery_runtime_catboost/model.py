"""A gradient boosted model in CatBoost's own form."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import catboost
import numpy as np
from servery_sdk import tabular
from servery_sdk.artifacts import model_file
from servery_sdk.fitting import Array
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, TensorMetadata
from servery_sdk.serving import InputError, LoadError
from servery_sdk.tabular import OUTPUT, Features

SUFFIXES = (".cbm",)


class CatBoostModel:
    """Loads the one model in the artifact; answers with classes, or with numbers where it was fitted on numbers.

    Environment:
        PREDICT_PROBA: ``true`` for a classifier's probabilities, as KServe's scikit-learn server has it.
    """

    def __init__(self) -> None:
        self.threads = 1
        self._model: Any = None
        self._method = "predict_proba" if os.environ.get("PREDICT_PROBA", "").lower() == "true" else "predict"
        self._features = Features(owner="CatBoost")
        self._categories: frozenset[int] = frozenset()
        self._texts: frozenset[int] = frozenset()

    def load(self, artifact: Path) -> None:
        """Read the one model file below ``artifact``.

        Raises:
            LoadError: None, several, or one that CatBoost does not read; says the file and the cause's own words.
        """
        file = model_file(artifact, SUFFIXES)
        try:
            model = _as_fitted(catboost.CatBoost().load_model(str(file)))
        except catboost.CatBoostError as error:
            raise LoadError(
                f"{file.name}: cannot be read by CatBoost {catboost.__version__}: {error}; "
                "save it with save_model and the format cbm"
            ) from error
        if not hasattr(model, self._method):
            raise LoadError(f"{file.name}: holds no classifier, and only those have {self._method}()")
        if model.get_embedding_feature_indices():
            raise LoadError(f"{file.name}: has embedding features, which no request can hold yet")
        names = tuple(model.feature_names_)
        # Features without names are called by their positions.
        is_named = names != tuple(map(str, range(len(names))))
        self._features = Features(owner=type(model).__name__, names=names if is_named else (), count=len(names))
        self._categories = frozenset(model.get_cat_feature_indices())
        self._texts = frozenset(model.get_text_feature_indices())
        self._model = model

    def predict(self, request: InferRequest) -> InferResponse:
        """Return classes or numbers ``[rows]``, or ``[rows, columns]`` where the model has several for a row.

        Raises:
            InputError: Names the input, its shape and what the model was fitted on.
        """
        features = self._features.of(request)
        try:
            return tabular.answer(request, self._predicted(self._table(request, features)))
        except (ValueError, catboost.CatBoostError) as error:
            raise InputError(f"{self._features.owner}: {error}") from error

    def metadata(self) -> ModelMetadata:
        """Return what the model was fitted on; the answer's shape is seen from that to a row of zeros."""
        others = {name: Datatype.BYTES for index, name in enumerate(self._features.names) if index in self._words}
        row = [str(0) if index in self._words else 0.0 for index in range(self._features.count or 0)]
        probe = self._predicted(np.array([row], dtype=object if self._words else np.float32))
        output = TensorMetadata(name=OUTPUT, datatype=Datatype.of(probe), shape=(-1, *probe.shape[1:]))
        return ModelMetadata(
            name="",
            platform=f"catboost-{catboost.__version__}",
            inputs=self._features.metadata(Datatype.FP32, others),
            outputs=(output,),
        )

    @property
    def _words(self) -> frozenset[int]:
        return self._categories | self._texts

    def _table(self, request: InferRequest, features: Array | dict[str, Array]) -> Array:
        if not self._words:
            if isinstance(features, dict):
                return tabular.stacked(features)
            return tabular.numbers(request.inputs[0].name, features)
        if isinstance(features, dict):
            columns = list(features.items())
        else:
            columns = [(request.inputs[0].name, column) for column in features.T]
        table = np.empty((len(columns[0][1]), len(columns)), dtype=object)
        for index, (name, column) in enumerate(columns):
            table[:, index] = self._cells(index, name, column)
        return table

    def _cells(self, index: int, name: str, column: Array) -> list[Any]:
        if index not in self._words:
            return list(tabular.numbers(name, column).tolist())
        if index in self._categories and column.dtype.kind == "f":
            # A matrix has one element type, so whole numbers come as fractions.
            if not (column == np.floor(column)).all():
                raise InputError(
                    f"input {name!r}: a category is a text or a whole number, column {index} has fractions"
                )
            return [int(element) for element in column.tolist()]
        return list(column.tolist())

    def _predicted(self, table: Array) -> Array:
        predicted = np.asarray(getattr(self._model, self._method)(table, thread_count=self.threads))
        # Classes of more than two come in a column.
        return predicted[:, 0] if self._method == "predict" and predicted.shape[1:] == (1,) else predicted


def _as_fitted(model: Any) -> Any:
    """Return the model as the class that fitted it: it decides what ``predict`` is."""
    if len(model.classes_):
        return catboost.to_classifier(model)
    try:
        return catboost.to_regressor(model)
    except catboost.CatBoostError:
        # A ranker, or of another maker: raw values are what there is.
        return model
