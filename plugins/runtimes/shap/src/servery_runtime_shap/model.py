"""How much each column of a row moves the predictor's answer away from its usual one.

Source: shap.Explainer, shap.KernelExplainer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import shap
from numpy.typing import NDArray
from servery_sdk.explainers import RemoteExplainer
from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest
from servery_sdk.remote import RemotePredictor
from servery_sdk.serving import InputError, LoadError

FILES = ("background.npy", "background.json")
"""Rows that stand for what is usual: an array, or the ``instances`` of a v1 request."""


class SHAPExplainer(RemoteExplainer):
    """Estimates Shapley values over the predictor's answers: numbers, one or several for each row."""

    def __init__(
        self,
        *,
        algorithm: Literal["auto", "exact", "permutation", "kernel"] = "auto",
        max_evals: int | None = None,
        seed: int = 0,
        **predictor: Any,
    ) -> None:
        super().__init__(**predictor)
        self._algorithm = algorithm
        self._max_evals = max_evals
        self._seed = seed
        self._background: NDArray[np.float64] = np.empty((0, 0))

    def load(self, artifact: Path) -> None:
        """Read the background rows.

        Raises:
            LoadError: There are none, or they are no table of numbers.
        """
        super().load(artifact)
        file = next((artifact / name for name in FILES if (artifact / name).is_file()), None)
        if file is None:
            present = ", ".join(sorted(path.name for path in artifact.iterdir())) if artifact.is_dir() else "nothing"
            raise LoadError(f"{artifact}: shap needs rows to compare with, {' or '.join(FILES)}; found: {present}")
        try:
            found = np.load(file) if file.suffix == ".npy" else json.loads(file.read_text())["instances"]
            self._background = np.asarray(found, dtype=np.float64)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise LoadError(f"{file.name}: {type(error).__name__}: {error}") from error
        if self._background.ndim != 2 or not self._background.size:
            raise LoadError(f"{file.name}: must be a table of numbers [rows, columns], is {self._background.shape}")

    def instances(self, request: InferRequest) -> list[Json]:
        """Return the rows of a matrix, or of columns in the order of the request.

        Raises:
            InputError: Columns differ in length, or the matrix has no rows.
        """
        if len(request.inputs) == 1:
            return super().instances(request)
        columns = [tensor.data.reshape(len(tensor.data), -1) for tensor in request.inputs if tensor.data.ndim]
        lengths = {tensor.name: list(tensor.data.shape) for tensor in request.inputs}
        if len(columns) < len(request.inputs) or len({len(column) for column in columns}) > 1:
            raise InputError(f"inputs differ in rows: {lengths}")
        rows: list[Json] = np.concatenate(columns, axis=1).tolist()
        return rows

    def explanation(self, instances: list[Json], predictor: RemotePredictor) -> Json:
        """Return ``shap_values [rows, columns]``, or ``[rows, columns, answers]``, and ``base_values [rows]``.

        The values of a row and its base value add up to the predictor's answer.

        Raises:
            InputError: The instances are no table of numbers with as many columns as the background.
        """
        columns = self._background.shape[1]
        try:
            rows = np.asarray(instances, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"instances: must be rows of numbers: {error}") from error
        if rows.ndim != 2 or rows.shape[1] != columns:
            raise InputError(f"instances: must be [rows, {columns}], found {list(rows.shape)}")
        found = self._explained(rows, predictor)
        return {"shap_values": np.ascontiguousarray(found.values), "base_values": _rowwise(found.base_values, rows)}

    def _explained(self, rows: NDArray[np.float64], predictor: RemotePredictor) -> Any:
        if self._algorithm == "kernel":
            options = {} if self._max_evals is None else {"nsamples": self._max_evals}
            np.random.seed(self._seed)  # what this one draws from
            return shap.KernelExplainer(predictor.scores, self._background)(rows, silent=True, **options)
        masker = shap.maskers.Independent(self._background, max_samples=len(self._background))
        explainer = shap.Explainer(predictor.scores, masker, algorithm=self._algorithm, seed=self._seed)
        return explainer(rows, silent=True, **({} if self._max_evals is None else {"max_evals": self._max_evals}))


def _rowwise(base: Any, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return base values with a row for each of ``rows``: some algorithms say them once."""
    found = np.asarray(base, dtype=np.float64)
    return found if found.ndim and len(found) == len(rows) else np.broadcast_to(found, (len(rows), *found.shape)).copy()
