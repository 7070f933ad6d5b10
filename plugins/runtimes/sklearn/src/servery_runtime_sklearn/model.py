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
import skops
import skops.io
from servery_sdk import tabular
from servery_sdk.artifacts import model_file
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, TensorMetadata
from servery_sdk.serving import InputError, LoadError
from servery_sdk.tabular import OUTPUT, Features

logger = logging.getLogger(__name__)

PICKLES = (".joblib", ".pkl", ".pickle")
SKOPS = ".skops"
SUFFIXES = (*PICKLES, SKOPS)


class SKLearnModel:
    """Loads the one pickle or skops file in the artifact; answers with ``predict``, or ``predict_proba`` where asked.

    Environment:
        PREDICT_PROBA: ``true`` for probabilities (KServe's variable).
        SERVERY_SKLEARN_PICKLES: ``refuse`` to load no pickle, which may run anything; ``allow`` is the default, since
            most models are pickles.
        SERVERY_SKLEARN_TRUSTED: Types beyond scikit-learn's that a skops file may hold, by commas.

    Attributes:
        forkable: An unpickled estimator is memory alone.
    """

    forkable = True

    def __init__(self) -> None:
        self._estimator: Any = None
        self._takes_pickles = os.environ.get("SERVERY_SKLEARN_PICKLES", "allow").lower() != "refuse"
        self._trusted = [name for name in os.environ.get("SERVERY_SKLEARN_TRUSTED", "").split(",") if name]
        self._features = Features(owner="model")
        self._method = "predict_proba" if os.environ.get("PREDICT_PROBA", "").lower() == "true" else "predict"

    def load(self, artifact: Path) -> None:
        """Read the one model file below ``artifact``.

        Raises:
            LoadError: None, several, or one that cannot be read; says the file and the cause's own words.
        """
        file = model_file(artifact, SUFFIXES)
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            estimator = self._from_skops(file) if file.suffix == SKOPS else self._unpickled(file)
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
        count = getattr(estimator, "n_features_in_", None)
        self._features = Features(
            owner=type(estimator).__name__,
            names=tuple(str(name) for name in getattr(estimator, "feature_names_in_", ())),
            count=None if count is None else int(count),
        )

    def _unpickled(self, file: Path) -> Any:
        if not self._takes_pickles:
            raise LoadError(
                f"{file.name}: is a pickle, which may run anything when it is loaded, and SERVERY_SKLEARN_PICKLES is "
                f"refuse; save it as model{SKOPS} with skops.io.dump"
            )
        try:
            return joblib.load(file)
        except Exception as error:
            # Unpickling runs anything and may raise anything.
            raise LoadError(
                f"{file.name}: cannot be unpickled with scikit-learn {sklearn.__version__}: "
                f"{type(error).__name__}: {error}; save it again with joblib.dump and this version"
            ) from error

    def _from_skops(self, file: Path) -> Any:
        try:
            unknown = sorted(set(skops.io.get_untrusted_types(file=file)) - set(self._trusted))
            estimator = skops.io.load(file, trusted=self._trusted) if not unknown else None
        except Exception as error:
            # It reads a zip of JSON and arrays; each of them has errors of its own.
            raise LoadError(
                f"{file.name}: cannot be read with skops {skops.__version__} and scikit-learn {sklearn.__version__}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if unknown:
            raise LoadError(
                f"{file.name}: holds types that skops does not know to be harmless: {', '.join(unknown)}; "
                "look at them, then name them in SERVERY_SKLEARN_TRUSTED"
            )
        return estimator

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the estimator's answer, ``[rows]`` or ``[rows, classes]``.

        Raises:
            InputError: Names the input, its shape and what the estimator was fitted on.
        """
        features = self._features.of(request)
        table = pd.DataFrame(features) if isinstance(features, dict) else features
        try:
            with warnings.catch_warnings():
                # "X does not have valid feature names": a bare array is what v1 clients send.
                warnings.simplefilter("ignore", UserWarning)
                predicted = np.asarray(getattr(self._estimator, self._method)(table))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{type(self._estimator).__name__}: {error}") from error
        return tabular.answer(request, predicted)

    def metadata(self) -> ModelMetadata:
        """Return what the estimator was fitted on."""
        inputs = self._features.metadata(Datatype.FP64)
        classes = getattr(self._estimator, "classes_", None)
        if self._method == "predict_proba" and classes is not None:
            output = TensorMetadata(name=OUTPUT, datatype=Datatype.FP64, shape=(-1, len(classes)))
        else:
            datatype = Datatype.FP64 if classes is None else Datatype.of(np.asarray(classes))
            output = TensorMetadata(name=OUTPUT, datatype=datatype, shape=(-1,))
        return ModelMetadata(
            name="", platform=f"sklearn-{sklearn.__version__}", versions=(), inputs=inputs, outputs=(output,)
        )
