"""A gradient boosted model in LightGBM's own text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from servery_sdk import tabular
from servery_sdk.artifacts import model_file
from servery_sdk.fitting import Array
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata
from servery_sdk.serving import InputError, LoadError
from servery_sdk.tabular import CodedFeatures, Features

from servery_runtime_lightgbm import model_text

SUFFIXES = (".bst", ".txt")


class LightGBMModel:
    """Loads the one booster in the artifact; answers as ``Booster.predict`` does.

    Classifiers that LightGBM's scikit-learn interface has saved answer probabilities: the file holds the booster alone.
    """

    def __init__(self) -> None:
        self.threads = 1
        self._booster: Any = None
        self._features = _features(Features(owner="Booster"))

    def load(self, artifact: Path) -> None:
        """Read the one model file below ``artifact``.

        Raises:
            LoadError: None, several, or one that LightGBM does not read; says the file and the cause's own words.
        """
        file = model_file(artifact, SUFFIXES)
        try:
            model_text.check(file.read_bytes())
            booster = lightgbm.Booster(model_file=file)
        except (ValueError, lightgbm.basic.LightGBMError) as error:
            raise LoadError(
                f"{file.name}: cannot be read by LightGBM {lightgbm.__version__}: {type(error).__name__}: {error}; "
                "save it with Booster.save_model"
            ) from error
        self._booster = booster
        features = Features(owner="Booster", names=_names(booster), count=booster.num_feature())
        self._features = _features(features, dict(_categories(booster)))

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the booster's answer, ``[rows]`` or ``[rows, classes]``.

        Raises:
            InputError: Names the input, its shape and what the booster was fitted on.
        """
        matrix = self._features.matrix(request)
        try:
            return tabular.answer(request, self._predicted(matrix))
        except (ValueError, lightgbm.basic.LightGBMError) as error:
            raise InputError(f"Booster: {error}") from error

    def metadata(self) -> ModelMetadata:
        """Return what the booster was fitted on; the answer's shape is seen from that to a row of missing values."""
        return self._features.metadata(f"lightgbm-{lightgbm.__version__}", self._predicted)

    def _predicted(self, matrix: Array) -> Array:
        return np.asarray(self._booster.predict(matrix, num_threads=self.threads))


def _features(features: Features, categories: Mapping[str, Mapping[Json, int]] | None = None) -> CodedFeatures:
    # A category that was not fitted is a missing value to LightGBM.
    return CodedFeatures(features=features, datatype=Datatype.FP64, unknown=float("nan"), categories=categories or {})


def _names(booster: Any) -> tuple[str, ...]:
    """Return the names of features, none where LightGBM made them up for a model that was fitted on bare rows."""
    names = tuple(booster.feature_name())
    return () if names == tuple(f"Column_{index}" for index in range(len(names))) else names


def _categories(booster: Any) -> Iterator[tuple[str, Mapping[Json, int]]]:
    """Yield the features whose categories the file holds, with each category's code: those of a pandas table."""
    columns, listed = booster.params.get("categorical_feature"), booster.pandas_categorical
    if not listed or not isinstance(columns, list) or len(columns) != len(listed):
        return
    names = booster.feature_name()
    for column, categories in zip(columns, listed, strict=True):
        yield names[column], {category: code for code, category in enumerate(categories)}
