"""A model in MLflow's directory layout, whatever its flavour, as a Python function."""

from __future__ import annotations

import importlib
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.routes import Host, Listener
from servery_sdk.serving import InputError, LoadError

from servery_runtime_mlflow.model import inputs, outputs, scoring
from servery_runtime_mlflow.model.requirements import mismatches
from servery_runtime_mlflow.model.signature import Port, described, has_free_rows, ports

logger = logging.getLogger(__name__)

FILE = "MLmodel"
BATCHABLE = "batchable"
"""Key of the model's own ``metadata`` that says whether requests may be merged."""

_ROW_WISE = frozenset(
    f"mlflow.{flavour}" for flavour in ("catboost", "keras", "lightgbm", "onnx", "sklearn", "tensorflow", "xgboost")
)
"""Flavours whose ``predict`` answers each row by itself."""


class MLflowModel:
    """Loads the one ``MLmodel`` in the artifact with its ``python_function`` flavour.

    Requests are merged where the flavour is known to answer row by row, or where the model's own metadata says
    ``batchable: true``: what somebody's ``PythonModel`` does with a table is its own affair.
    """

    def __init__(self) -> None:
        self.batchable = False
        self._model: Any = None
        self._inputs: tuple[Port, ...] = ()
        self._outputs: tuple[Port, ...] = ()
        self._parameters: frozenset[str] = frozenset()

    @classmethod
    def listeners(cls, artifact: Path, host: Host) -> Sequence[Listener]:
        """Return MLflow's own REST API, at the predictor's port."""
        return (Listener(routes=scoring.routes(host)),)

    @property
    def inputs(self) -> Sequence[Port]:
        """Of the signature; empty without one."""
        return self._inputs

    def load(self, artifact: Path) -> None:
        """Read the one model in ``artifact`` or in one directory of it; installs nothing that it asks for.

        Raises:
            LoadError: None, several, or one that MLflow cannot load; says the cause's own words, and which of the
                model's requirements are not met.
        """
        directory = model_directory(artifact).absolute()
        file, unmet = directory / FILE, mismatches(directory)
        _forget_code(directory)
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                model = mlflow.pyfunc.load_model(str(directory), suppress_warnings=True)
            signature = model.metadata.signature
            self._inputs = ports(signature.inputs if signature else None, "input")
            self._outputs = ports(signature.outputs if signature else None, "output")
        except Exception as error:
            # A flavour's loader and the model's own code may raise anything.
            asked = f"; it asks for {', '.join(unmet)}" if unmet else ""
            raise LoadError(
                f"{file}: cannot be loaded by MLflow {mlflow.__version__}: {type(error).__name__}: {error}" + asked
            ) from error
        for note in notes:
            # Such as scikit-learn's InconsistentVersionWarning: it may answer wrongly, and nobody else will say so.
            logger.warning("model loaded with a warning", extra={"file": str(file), "warning": str(note.message)})
        if unmet:
            logger.warning("model asks for other versions", extra={"file": str(file), "unmet": unmet})
        schema = signature.params if signature else None
        self._parameters = frozenset(parameter.name for parameter in schema or ())
        self.batchable = _is_batchable(model) and has_free_rows((*self._inputs, *self._outputs))
        self._model = model

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the model's answer; parameters of the request that its signature names are passed on.

        Raises:
            InputError: Names the inputs, their shapes and what the signature wants.
        """
        given = inputs.signed(request, self._inputs) if self._inputs else inputs.unsigned(request)
        parameters = {name: value for name, value in request.parameters.items() if name in self._parameters}
        try:
            answer = self._model.predict(given, params=parameters or None)
        except (MlflowException, ValueError, TypeError, KeyError) as error:
            raise InputError(self._refusal(request, error)) from error
        kind = outputs.content_type(answer)
        return InferResponse(
            model=request.model,
            outputs=outputs.tensors(answer, self._outputs),
            parameters={inputs.CONTENT_TYPE: kind} if kind else {},
        )

    def metadata(self) -> ModelMetadata:
        """Return what the signature says; nothing where there is none."""
        return ModelMetadata(
            name="",
            platform=f"mlflow-{mlflow.__version__}",
            inputs=tuple(port.metadata for port in self._inputs),
            outputs=tuple(port.metadata for port in self._outputs),
        )

    def _refusal(self, request: InferRequest, error: Exception) -> str:
        # MLflow's message holds all the data that was sent, and the cause's own words behind it.
        cause = error.__context__ if isinstance(error, MlflowException) and error.__context__ else error
        wanted = f"; the signature takes {described(self._inputs)}" if self._inputs else ""
        return f"inputs {inputs.shapes(request.inputs)}: {type(cause).__name__}: {cause}{wanted}"


def model_directory(artifact: Path) -> Path:
    """Return the directory of the one ``MLmodel``: the artifact, or a directory in it, as a run's artifacts have it.

    Raises:
        LoadError: None or several; lists what is there.
    """
    if not artifact.is_dir():
        raise LoadError(f"{artifact}: no such directory; the storage initializer should have made it")
    found = [artifact / FILE] if (artifact / FILE).is_file() else sorted(artifact.glob(f"*/{FILE}"))
    if len(found) == 1:
        return found[0].parent
    present = ", ".join(sorted(path.name for path in artifact.iterdir())) or "nothing"
    raise LoadError(f"{artifact}: holds {len(found)} files {FILE}, in it or in a directory of it, not one: {present}")


def _is_batchable(model: Any) -> bool:
    said = (model.metadata.metadata or {}).get(BATCHABLE)
    if said is not None:
        return bool(said)
    flavour = model.metadata.flavors["python_function"]
    # A score is one number for all rows.
    return flavour.get("loader_module") in _ROW_WISE and flavour.get("predict_fn", "predict") != "score"


_loaded: set[Path] = set()
"""Directories whose code may have been imported; a process's modules are its own, so this is, too."""


def _forget_code(directory: Path) -> None:
    """Let the code that ``directory`` brings be imported anew, not what another model called the same."""
    for name, module in sys.modules.copy().items():
        file = getattr(module, "__file__", None)
        if file is not None and not _loaded.isdisjoint(Path(file).parents):
            sys.modules.pop(name, None)
    _loaded.add(directory)
    importlib.invalidate_caches()
