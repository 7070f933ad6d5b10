"""From a request to what a pyfunc takes: a table, an array, or arrays by name.

Source: MLflow, "Signature enforcement" and its scoring server's JSON, which is cast to the signature's types; MLServer's
content types for what has no signature.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from mlflow.types import DataType
from servery_sdk.fitting import Array, cast
from servery_sdk.protocol import Datatype, InferRequest, Tensor
from servery_sdk.protocol.elements import objects
from servery_sdk.serving import InputError
from servery_sdk.tabular import decoded

from servery_runtime_mlflow.model.signature import ANY, Port, described

CONTENT_TYPE = "content_type"
SIGNATURE = "the signature"


def signed(request: InferRequest, ports: Sequence[Port]) -> Any:
    """Return the request's inputs as a signature with ``ports`` wants them.

    Columns come by name, as one matrix, or in the signature's order where it has no names. Inputs that it does not name
    are left out, as MLflow does it; so may optional ones be.

    Raises:
        InputError: Names the input, its shape and what the signature wants.
    """
    if ports[0].is_column:
        found = _by_name(_split(request.inputs, ports), ports)
        columns = {port.name: _column(port, found[port.name]) for port in ports if port.name in found}
        table = _table(columns)
        return table if ports[0].is_named else table.set_axis(range(len(columns)), axis="columns")
    inputs = request.inputs
    if not ports[0].is_named and len(inputs) > 1:
        inputs = (_stacked(inputs),)
    tensors = _by_name(inputs, ports)
    arrays = {port.name: _array(port, tensors[port.name]) for port in ports if port.name in tensors}
    return arrays if ports[0].is_named else arrays[ports[0].name]


def unsigned(request: InferRequest) -> Any:
    """Return the inputs of a model without a signature, as ``content_type`` says.

    ``pd`` is a table, ``np`` the first array, ``dict`` arrays by name; without one, an only input is an array and
    several are arrays by name.

    Raises:
        InputError: Another content type, or columns that are no table.
    """
    match request.parameters.get(CONTENT_TYPE):
        case "pd":
            return _table({tensor.name: _rows(_values(tensor)) for tensor in request.inputs})
        case "np":
            return _values(request.inputs[0])
        case None if len(request.inputs) == 1:
            return _values(request.inputs[0])
        case "dict" | None:
            return {tensor.name: _values(tensor) for tensor in request.inputs}
        case other:
            raise InputError(f"content_type is {other!r}; a model without a signature takes dict, np, pd")


def shapes(inputs: Iterable[Tensor]) -> str:
    """Return ``inputs`` as messages spell them."""
    return ", ".join(f"{tensor.name!r} {tensor.datatype} {list(tensor.data.shape)}" for tensor in inputs)


def _by_name(inputs: Sequence[Tensor], ports: Sequence[Port]) -> Mapping[str, Tensor]:
    """Return the inputs by the names of their ports."""
    found = {tensor.name: tensor for tensor in inputs}
    is_in_order = len(ports) == 1 or not ports[0].is_named
    if is_in_order and len(inputs) == len(ports) and found.keys().isdisjoint(port.name for port in ports):
        # v1 knows no names, and neither do some signatures.
        return {port.name: tensor for port, tensor in zip(ports, inputs, strict=True)}
    missing = [port for port in ports if port.required and port.name not in found]
    if missing:
        raise InputError(f"inputs {shapes(inputs)} lack what the signature requires: {described(missing)}")
    return found


def _split(inputs: Sequence[Tensor], ports: Sequence[Port]) -> Sequence[Tensor]:
    """Return a matrix as its columns; anything else as it is."""
    matrix = inputs[0]
    is_matrix = len(inputs) == 1 and matrix.data.ndim == 2 and all(port.is_plain for port in ports)
    if not is_matrix or matrix.name in {port.name for port in ports}:
        return inputs
    if matrix.data.shape[1] != len(ports):
        raise InputError(
            f"input {matrix.name!r} has shape {list(matrix.data.shape)}; the signature takes [rows, {len(ports)}]: "
            f"{described(ports)}"
        )
    return [replace(matrix, name=port.name, data=matrix.data[:, at]) for at, port in enumerate(ports)]


def _stacked(inputs: Sequence[Tensor]) -> Tensor:
    """Return columns of a table as the one matrix that a nameless tensor is.

    Raises:
        InputError: They are no columns of one length.
    """
    columns = [_rows(decoded(tensor)) for tensor in inputs]
    if any(isinstance(column, list) for column in columns) or len(set(map(len, columns))) > 1:
        raise InputError(f"inputs {shapes(inputs)} are not the columns of one matrix, which the signature takes")
    data = np.column_stack(columns)
    return Tensor(name=inputs[0].name, data=data, datatype=Datatype.of(data))


def _column(port: Port, tensor: Tensor) -> Array | list[Any]:
    """Return an element a row, of the type of ``port``."""
    data = tensor.data
    if port.is_plain and data.ndim == 2 and data.shape[1] == 1:
        tensor = replace(tensor, data=data[:, 0])
    elif data.ndim == 1 and not port.is_plain and tensor.datatype is Datatype.BYTES:
        return [_json(tensor, text) for text in decoded(tensor)]
    elif data.ndim != len(port.shape):
        raise InputError(f"input {tensor.name!r} has shape {list(data.shape)}; the signature takes {port}")
    match port.kind:
        case DataType.binary:
            return _bytes(port, tensor)
        case DataType.datetime:
            return _times(tensor)
        case _:
            return _rows(_cast(tensor, port.datatype))


def _array(port: Port, tensor: Tensor) -> Array:
    have, want = tensor.data.shape, port.shape
    if len(have) != len(want) or any(length not in (ANY, real) for length, real in zip(want, have, strict=True)):
        raise InputError(f"input {tensor.name!r} has shape {list(have)}; the signature takes {port}")
    data = _cast(tensor, port.datatype)
    # A signature may ask for texts of numpy's own.
    return data.astype(port.kind) if port.kind.kind in "US" else data


def _cast(tensor: Tensor, datatype: Datatype) -> Array:
    data = cast(tensor, datatype, owner=SIGNATURE)
    return decoded(tensor) if datatype is Datatype.BYTES else data


def _bytes(port: Port, tensor: Tensor) -> list[Any]:
    if tensor.datatype is not Datatype.BYTES:
        raise InputError(
            f"input {tensor.name!r} of shape {list(tensor.data.shape)} is {tensor.datatype}; the signature takes {port}"
        )
    return list(_unpacked(tensor) if _is_base64(tensor) else tensor.data)


def _is_base64(tensor: Tensor) -> bool:
    return tensor.datatype is Datatype.BYTES and tensor.parameters.get(CONTENT_TYPE) == "base64"


def _unpacked(tensor: Tensor) -> Array:
    try:
        found = [base64.b64decode(element, validate=True) for element in tensor.data.ravel().tolist()]
    except ValueError as error:
        raise InputError(f"input {tensor.name!r} holds what is no base64: {error}") from error
    return objects(found).reshape(tensor.data.shape)


def _times(tensor: Tensor) -> Array:
    texts = _cast(tensor, Datatype.BYTES)
    try:
        # MLflow knows no time zones: what has one becomes UTC.
        times: Array = pd.to_datetime(texts, format="ISO8601", utc=True).tz_localize(None).to_numpy()
    except ValueError as error:
        raise InputError(f"input {tensor.name!r} holds what is no time as 2026-01-31T12:00:00: {error}") from error
    return times


def _json(tensor: Tensor, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"input {tensor.name!r} holds a text that is no JSON: {error}") from error


def _values(tensor: Tensor) -> Array:
    return _unpacked(tensor) if _is_base64(tensor) else decoded(tensor)


def _rows(data: Array) -> Array | list[Any]:
    """Return ``data`` as a table's column: a list of arrays where an element has axes of its own."""
    if data.ndim == 2 and data.shape[1] == 1:
        return data[:, 0]
    return data if data.ndim == 1 else list(data)


def _table(columns: Mapping[str, Array | list[Any]]) -> pd.DataFrame:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"inputs differ in rows: {lengths}")
    # A list of arrays would be taken for a matrix.
    return pd.DataFrame(
        {
            name: pd.Series(column, dtype=object) if isinstance(column, list) else column
            for name, column in columns.items()
        }
    )
