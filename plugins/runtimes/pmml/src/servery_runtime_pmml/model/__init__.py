"""A model in the Predictive Model Markup Language, evaluated by JPMML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jpmml_evaluator
import jpype
import numpy as np
from jpmml_evaluator.jpype import JPypeBackend
from servery_sdk.artifacts import model_file
from servery_sdk.fitting import Array
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.protocol.elements import as_bytes
from servery_sdk.serving import InputError, LoadError
from servery_sdk.tabular import OUTPUT, Features

from servery_runtime_pmml.model import machine

SUFFIXES = (".pmml", ".xml")
DATATYPES = {
    "string": Datatype.BYTES,
    "integer": Datatype.INT64,
    "float": Datatype.FP32,
    "double": Datatype.FP64,
    "boolean": Datatype.BOOL,
}
"""Of PMML's data types; dates and times, the others, are texts."""

_OWNER = "the model"
_ONE_AFTER_THE_OTHER = -1
_LONGEST_CAUSE = 500
"""Characters: JAXB lists every element of PMML where it meets one that it does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """An input, a target or an output of the model.

    Attributes:
        key: What JPMML calls it; None is the target of a model that names none.
    """

    key: str | None
    datatype: Datatype

    @property
    def name(self) -> str:
        """What clients call it."""
        return OUTPUT if self.key is None else self.key

    @property
    def metadata(self) -> TensorMetadata:
        """What clients are told of it."""
        return TensorMetadata(name=self.name, datatype=self.datatype, shape=(-1,))


class PMMLModel:
    """Loads the one document in the artifact; answers its targets and its outputs by their names.

    Source: KServe's pmmlserver, which gives the same names and values.
    """

    def __init__(self) -> None:
        self.threads = 1
        self._evaluator: Any = None
        self._inputs: tuple[Field, ...] = ()
        self._outputs: tuple[Field, ...] = ()

    def load(self, artifact: Path) -> None:
        """Read the one document below ``artifact``; where it brings examples with answers, these are tried.

        Raises:
            LoadError: None, several, or one that JPMML does not take; or no Java. Says the file and the cause's words.
        """
        file = model_file(artifact, SUFFIXES)
        try:
            machine.start()
            evaluator = jpmml_evaluator.make_evaluator(file, backend=JPypeBackend()).verify()
            self._inputs = tuple(map(_field, evaluator.getInputFields()))
            self._outputs = tuple(map(_field, (*evaluator.getTargetFields(), *evaluator.getOutputFields())))
        except machine.NoJava as error:
            raise LoadError(f"{file.name}: {error}") from error
        except (jpype.JException, jpmml_evaluator.JavaError) as error:
            raise LoadError(
                f"{file.name}: cannot be loaded by JPMML ({_release()}): {_shortened(str(error))}"
            ) from error
        self._evaluator = evaluator

    def predict(self, request: InferRequest) -> InferResponse:
        """Return every target and output, ``[rows]`` each.

        Inputs that a request leaves out, and NaN, are missing values: what they mean is the model's own rule.

        Raises:
            InputError: Names the input, its shape and what the model takes; or the row, and JPMML's own words.
        """
        columns = self._columns(request)
        found = jpmml_evaluator.PythonEvaluatorUtil.evaluateAll(
            self._evaluator.backend,
            self._evaluator.javaEvaluator,
            {"columns": list(columns), "data": [_values(column) for column in columns.values()]},
            None,
            self.threads if self.threads > 1 else _ONE_AFTER_THE_OTHER,
        )
        for row, error in enumerate(found["errors"] or ()):
            if error is not None:
                shapes = {tensor.name: list(tensor.data.shape) for tensor in request.inputs}
                raise InputError(f"inputs {shapes}: row {row}: {error.partition(': ')[2] or error}")
        values = dict(zip(found["columns"], found["data"], strict=True))
        outputs = tuple(
            Tensor(name=field.name, data=_array(field, values[field.key]), datatype=field.datatype)
            for field in self._outputs
            if field.key in values
        )
        return InferResponse(model=request.model, outputs=outputs, rows_are_objects=True)

    def metadata(self) -> ModelMetadata:
        """Return the fields that the document declares."""
        return ModelMetadata(
            name="",
            platform=_release(),
            inputs=tuple(field.metadata for field in self._inputs),
            outputs=tuple(field.metadata for field in self._outputs),
        )

    def _columns(self, request: InferRequest) -> Mapping[str, Array]:
        names = tuple(field.name for field in self._inputs)
        given = {tensor.name for tensor in request.inputs}
        if given < set(names):
            names = tuple(name for name in names if name in given)
        columns = Features(owner=_OWNER, names=names, count=len(names)).of(request)
        return columns if isinstance(columns, dict) else dict(zip(names, columns.T, strict=True))


def _field(declared: Any) -> Field:
    # jpmml_evaluator makes the text "None" of a target without a name.
    key = declared.javaModelField.getName()
    return Field(key=None if key is None else str(key), datatype=DATATYPES.get(declared.getDataType(), Datatype.BYTES))


def _values(column: Array) -> Sequence[Json]:
    values: list[Json] = column.tolist()
    return (
        [None if value != value else value for value in values] if column.dtype.kind == "f" else values
    )  # NaN is not itself


def _array(field: Field, values: Iterable[Json]) -> Array:
    """Return an output's values ``[rows]``; without one, a number is NaN and a text is empty.

    Raises:
        InputError: A value is missing where the element type has no way to say so.
    """
    values = list(values)
    match field.datatype:
        case Datatype.BYTES:
            found = np.empty(len(values), dtype=object)
            found[:] = [as_bytes("" if value is None else str(value)) for value in values]
            return found
        case Datatype.FP32 | Datatype.FP64:
            return np.array([np.nan if value is None else value for value in values], dtype=field.datatype.dtype)
    if None in values:
        raise InputError(
            f"row {values.index(None)}: the model gives no {field.name!r}, and {field.datatype} has no missing value"
        )
    return np.array(values, dtype=field.datatype.dtype)


def _release() -> str:
    return f"jpmml-evaluator-{version('jpmml-evaluator')}"


def _shortened(cause: str) -> str:
    words = " ".join(cause.split())
    return words if len(words) <= _LONGEST_CAUSE else f"{words[:_LONGEST_CAUSE]}…"
