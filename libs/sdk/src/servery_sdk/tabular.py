"""Rows and columns: what models of tables take and give, whatever their framework.

A request holds either one matrix ``[rows, features]`` or a column ``[rows]`` for each feature, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from servery_sdk.fitting import Array
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.protocol.elements import as_bytes
from servery_sdk.serving import InputError

INPUT = "input-0"
OUTPUT = "output-0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What a model was fitted on.

    Attributes:
        owner: What takes them, as messages call it: ``LogisticRegression``.
        names: In the order of fitting; empty where the model was fitted on bare rows.
        count: None where the model does not say.
    """

    owner: str
    names: tuple[str, ...] = ()
    count: int | None = None

    def of(self, request: InferRequest) -> Array | dict[str, Array]:
        """Return the request's matrix ``[rows, count]``, or its columns ``[rows]`` in the order of fitting.

        Texts are ``str``. Columns of a model without names stay in the order of the request.

        Raises:
            InputError: Names the input, its shape and what the model was fitted on.
        """
        first = request.inputs[0]
        if len(request.inputs) == 1 and not (first.data.ndim == 1 and self.names == (first.name,)):
            return self._matrix(first)
        columns = {tensor.name: _column(tensor) for tensor in request.inputs}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"inputs differ in rows: {lengths}")
        if self.names and set(self.names) != set(columns):
            raise InputError(
                f"inputs {sorted(columns)} are not the features that the model was fitted on: {sorted(self.names)}"
            )
        if self.count is not None and len(columns) != self.count:
            raise InputError(f"{len(columns)} inputs {list(columns)}; {self.owner} takes {self.count} columns")
        return {name: columns[name] for name in self.names} if self.names else columns

    def metadata(self, datatype: Datatype, others: Mapping[str, Datatype] | None = None) -> tuple[TensorMetadata, ...]:
        """Return a column for each name, or one matrix where there are none.

        Args:
            datatype: Of a matrix, and of columns.
            others: Of columns that have another, by name.
        """
        if not self.names:
            count = -1 if self.count is None else self.count
            return (TensorMetadata(name=INPUT, datatype=datatype, shape=(-1, count)),)
        return tuple(
            TensorMetadata(name=name, datatype=(others or {}).get(name, datatype), shape=(-1,)) for name in self.names
        )

    def _matrix(self, tensor: Tensor) -> Array:
        shape = tensor.data.shape
        if self.count is not None and (len(shape) != 2 or shape[1] != self.count):
            raise InputError(f"input {tensor.name!r} has shape {list(shape)}; {self.owner} takes [rows, {self.count}]")
        return decoded(tensor)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedFeatures:
    """The features of a model that takes one matrix of numbers, its categories as their codes.

    Attributes:
        categories: By feature, each category's code.
        unknown: The code of a category that was not fitted; None where the model has none, and the request is wrong.
        datatype: Of the features that are numbers.
    """

    features: Features
    datatype: Datatype
    unknown: float | None
    categories: Mapping[str, Mapping[Json, int]] = field(default_factory=dict)

    def matrix(self, request: InferRequest) -> Array:
        """Return ``[rows, features]``.

        Raises:
            InputError: Names the input, its shape and what the model was fitted on.
        """
        found = self.features.of(request)
        if isinstance(found, dict):
            return stacked({name: self._coded(name, column) for name, column in found.items()})
        return numbers(request.inputs[0].name, found)

    def metadata(self, platform: str, predicted: Callable[[Array], Array]) -> ModelMetadata:
        """Return what the model was fitted on; the answer's shape is seen from that to a row of missing values."""
        others = {name: datatype_of(categories) for name, categories in self.categories.items()}
        probe = predicted(np.full((1, self.features.count or 0), np.nan, dtype=self.datatype.dtype))
        output = TensorMetadata(name=OUTPUT, datatype=Datatype.of(probe), shape=(-1, *probe.shape[1:]))
        inputs = self.features.metadata(self.datatype, others)
        return ModelMetadata(name="", platform=platform, inputs=inputs, outputs=(output,))

    def _coded(self, name: str, column: Array) -> Array:
        categories = self.categories.get(name)
        return column if categories is None else codes(name, column, categories, unknown=self.unknown)


def stacked(columns: Mapping[str, Array]) -> Array:
    """Return columns of numbers as one matrix ``[rows, columns]``.

    Raises:
        InputError: One holds texts; says which.
    """
    for name, column in columns.items():
        numbers(name, column)
    return np.column_stack(list(columns.values()))


def numbers(name: str, data: Array) -> Array:
    """Return ``data`` as it is.

    Raises:
        InputError: It holds texts.
    """
    if data.dtype.kind not in "biuf":
        raise InputError(f"input {name!r} of shape {list(data.shape)} holds texts; the model takes numbers there")
    return data


def codes(name: str, column: Array, categories: Mapping[Json, int], *, unknown: float | None) -> Array:
    """Return each element's code among ``categories``, as FP32 ``[rows]``.

    Args:
        name: Of the input.
        unknown: Code of what is no category; None refuses it.

    Raises:
        InputError: An element is no category; says which there are.
    """
    found = [categories.get(element, unknown) for element in column.tolist()]
    if None in found:
        known = ", ".join(map(repr, sorted(categories, key=str)))
        raise InputError(
            f"input {name!r}: {column.tolist()[found.index(None)]!r} is no category that the model was fitted on: {known}"
        )
    return np.array(found, dtype=np.float32)


def datatype_of(categories: Iterable[Json]) -> Datatype:
    """Return the element type of a column of ``categories``."""
    return Datatype.of(np.asarray(list(categories)))


def answer(request: InferRequest, predicted: Array) -> InferResponse:
    """Return the response with one output, ``[rows]`` or ``[rows, columns]``; texts become BYTES."""
    data = encoded(predicted) if predicted.dtype.kind in "UO" else predicted
    return InferResponse(model=request.model, outputs=(Tensor(name=OUTPUT, data=data, datatype=Datatype.of(data)),))


def decoded(tensor: Tensor) -> Array:
    """Return a tensor's data with texts as ``str``."""
    if tensor.datatype is not Datatype.BYTES:
        return tensor.data
    try:
        texts = [element.decode() if isinstance(element, bytes) else element for element in tensor.data.ravel()]
    except UnicodeDecodeError as error:
        raise InputError(f"input {tensor.name!r} holds bytes that are no UTF-8 text: {error}") from error
    found = np.empty(len(texts), dtype=object)
    found[:] = texts
    return found.reshape(tensor.data.shape)


def encoded(texts: Array) -> Array:
    """Return texts as the bytes that a BYTES tensor holds."""
    found = np.empty(texts.shape, dtype=object)
    found.ravel()[:] = [as_bytes(element) for element in texts.ravel()]
    return found


def _column(tensor: Tensor) -> Array:
    data = tensor.data
    if data.ndim == 2 and data.shape[1] == 1:
        return decoded(tensor).ravel()
    if data.ndim != 1:
        raise InputError(
            f"input {tensor.name!r} has shape {list(data.shape)}; one of several inputs is a column: [rows]"
        )
    return decoded(tensor)
