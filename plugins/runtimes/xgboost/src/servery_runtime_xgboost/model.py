"""A gradient boosted model in XGBoost's own forms."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from servery_sdk import tabular
from servery_sdk.artifacts import model_file
from servery_sdk.fitting import Array
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata
from servery_sdk.serving import InputError, LoadError
from servery_sdk.tabular import CodedFeatures, Features

from servery_runtime_xgboost import ubjson

SUFFIXES = (".bst", ".json", ".ubj")
_CATEGORY = "c"
_OLD = "; the binary form that XGBoost wrote before 2.1 is read by XGBoost 3.0 and older: read and save it with one of them"


class XGBoostModel:
    """Loads the one booster in the artifact; answers as ``Booster.predict`` does.

    Classifiers that XGBoost's scikit-learn interface has saved answer probabilities: the file holds the booster alone.
    """

    def __init__(self) -> None:
        self.threads = 1
        self._booster: Any = None
        self._features = _features(Features(owner="Booster"))
        self._in_place = True

    def load(self, artifact: Path) -> None:
        """Read the one model file below ``artifact``.

        Raises:
            LoadError: None, several, or one that XGBoost does not read; says the file and the cause's own words.
        """
        file = model_file(artifact, SUFFIXES)
        content = file.read_bytes()
        try:
            _check(content)
            booster = xgboost.Booster()
            # From memory: what is inside decides the form, where a name would (a .bst may be either).
            booster.load_model(bytearray(content))
        except Exception as error:
            # A damaged file may be anything to its reader: no number, no text, no object.
            raise LoadError(
                f"{file.name}: cannot be read by XGBoost {xgboost.__version__}: {type(error).__name__}: "
                f"{_first_line(error)}; save it with Booster.save_model, as .ubj or .json"
                + ("" if content.startswith(b"{") else _OLD)
            ) from error
        booster.set_param({"nthread": self.threads})
        settings = json.loads(booster.save_config())["learner"]
        # Linear boosters have no such call.
        self._in_place = settings["gradient_booster"]["name"] != "gblinear"
        features = Features(
            owner="Booster", names=tuple(booster.feature_names or ()), count=int(booster.num_features())
        )
        self._features = _features(features, dict(_categories(booster)))
        self._booster = booster

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the booster's answer, ``[rows]`` or ``[rows, classes]``.

        Raises:
            InputError: Names the input, its shape and what the booster was fitted on.
        """
        matrix = self._features.matrix(request)
        try:
            return tabular.answer(request, self._predicted(matrix))
        except (ValueError, xgboost.core.XGBoostError) as error:
            raise InputError(f"Booster: {_first_line(error)}") from error

    def metadata(self) -> ModelMetadata:
        """Return what the booster was fitted on; the answer's shape is seen from that to a row of missing values."""
        return self._features.metadata(f"xgboost-{xgboost.__version__}", self._predicted)

    def _predicted(self, matrix: Array) -> Array:
        if self._in_place:
            # No DMatrix is made, which takes a third to a half longer, at one row as at a thousand.
            return np.asarray(self._booster.inplace_predict(matrix, validate_features=False))
        data = xgboost.DMatrix(matrix, nthread=self.threads, feature_names=self._booster.feature_names)
        return np.asarray(self._booster.predict(data))


def _features(features: Features, categories: Mapping[str, Mapping[Json, int]] | None = None) -> CodedFeatures:
    # Unlike LightGBM, XGBoost has no rule for a category that it has not seen.
    return CodedFeatures(features=features, datatype=Datatype.FP32, unknown=None, categories=categories or {})


def _check(content: bytes) -> None:
    """Refuse what would end the process instead of raising.

    Raises:
        ValueError: Says what is wrong with ``content``.
    """
    if len(content) < len(b"{}"):
        raise ValueError(f"{len(content)} bytes are no model")
    # JSON goes on with a key, UBJSON with the length of one.
    if content.startswith(b"{") and content[1:2] in b"LliIU":
        ubjson.check(content)


def _categories(booster: Any) -> Iterator[tuple[str, Mapping[Json, int]]]:
    """Yield the features whose categories the file holds, with each category's code.

    XGBoost 3.1 and later write them; before, and for models fitted on codes, clients send the codes.
    """
    if _CATEGORY not in (booster.feature_types or ()):
        return
    # Its own accessor needs pyarrow; one round of a booster would be smaller, but does not keep them.
    learner = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]
    encoded = learner.get("gbtree", learner)["model"].get("cats", {}).get("enc", ())
    for name, column in zip(booster.feature_names or (), encoded, strict=False):
        values = column["values"]
        if "offsets" in column:
            text = bytes(values)
            values = [text[start:stop].decode() for start, stop in itertools.pairwise(column["offsets"])]
        if values:
            yield name, {value: code for code, value in enumerate(values)}


def _first_line(error: Exception) -> str:
    # XGBoost's messages go on with a stack trace of its own.
    return str(error).partition("Stack trace:")[0].strip()
