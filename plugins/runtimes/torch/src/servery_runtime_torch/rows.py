"""Requests as TorchServe hands them to a handler, a list of one item for each instance, and the handler's answer.

Source: TorchServe, "Custom service": ``data`` is a list, and as long a list is answered; its kserve and kservev2
envelopes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from servery_sdk.protocol import Datatype, InferRequest, Tensor, v1
from servery_sdk.protocol.elements import as_text, objects
from servery_sdk.serving import InputError

TEXT, RAW = "text", "raw"
"""Values of an input's parameter ``content_type``, beside JSON's, where its elements are not what JSON had brought."""

WRAPPED = ("predictions", "explanations")
"""What handlers that were written without an envelope wrap their answer in."""


def of_instances(request: InferRequest) -> list[Any]:
    """Return an item for each row: the row itself of the one input ``input-0``, else an object of the row of each input.

    Numbers come as lists. BYTES come as text where they are UTF-8, as JSON would have brought them, else as bytes.

    Raises:
        InputError: Inputs differ in rows.
    """
    columns = {tensor.name: _elements(tensor) for tensor in request.inputs}
    if list(columns) == [v1.INPUT]:
        return list(columns[v1.INPUT])
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"inputs differ in rows: {lengths}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def of_request(request: InferRequest) -> list[Any]:
    """Return one item for the whole request: its first input, as the v2 protocol spells it."""
    tensor = request.inputs[0]
    return [
        {
            "name": tensor.name,
            "shape": list(tensor.data.shape),
            "datatype": str(tensor.datatype),
            "data": _elements(tensor),
        }
    ]


def _elements(tensor: Tensor) -> list[Any]:
    if not tensor.data.ndim:
        raise InputError(f"input {tensor.name!r} has shape []; the first axis is the instances")
    if tensor.datatype is not Datatype.BYTES:
        return list(tensor.data.tolist())
    kind = tensor.parameters.get(v1.CONTENT_TYPE)
    read = _READERS.get(kind, _text) if isinstance(kind, str) else _text
    return list(objects([read(element) for element in tensor.data.ravel()]).reshape(tensor.data.shape).tolist())


def _text(element: Any) -> str | bytes:
    if not isinstance(element, bytes):
        return str(element)
    try:
        return element.decode()
    except UnicodeDecodeError:
        return element


def _document(element: Any) -> Any:
    try:
        return orjson.loads(element)
    except orjson.JSONDecodeError as error:
        raise InputError(f"the body is not JSON: {error}") from error


_READERS: Mapping[str, Callable[[Any], Any]] = {v1.JSON: _document, TEXT: _text, RAW: bytearray}
"""TorchServe gives handlers bytes that they may change."""


def answer(rows: Any, *, count: int) -> list[Any]:
    """Return the handler's answer as a list of ``count``.

    Raises:
        ValueError: It is none, or of another length.
    """
    if isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict) and len(rows[0]) == 1:
        ((name, inner),) = rows[0].items()
        if name in WRAPPED and isinstance(inner, list):
            rows = inner
    if not isinstance(rows, list):
        raise ValueError(f"the handler answered a {type(rows).__name__}, not a list of an answer for each item")
    if len(rows) != count:
        raise ValueError(f"the handler answered {len(rows)} for {count} items; a list of as many is expected")
    return rows


def tensor(name: str, rows: Sequence[Any]) -> Tensor:
    """Return the answers ``[rows, *item]``: numbers and texts as such, anything else as JSON documents."""
    if not any(isinstance(row, dict | str | bytes) for row in rows):
        try:
            data = np.asarray(rows)
        except ValueError:
            # Rows of different lengths are no array.
            data = np.empty(0, dtype=object)
        if data.dtype.kind in "biuf":
            return Tensor(name=name, data=data, datatype=Datatype.of(data))
    if all(isinstance(row, str | bytes) for row in rows):
        texts = objects([row.encode() if isinstance(row, str) else row for row in rows])
        return Tensor(name=name, data=texts, datatype=Datatype.BYTES)
    documents = objects([orjson.dumps(_plain(row), option=orjson.OPT_SERIALIZE_NUMPY, default=_plain) for row in rows])
    return Tensor(name=name, data=documents, datatype=Datatype.BYTES, parameters={v1.CONTENT_TYPE: v1.JSON})


def _plain(value: Any) -> Any:
    """Return what JSON has words for: keys become texts, tensors lists, bytes texts."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, bytes):
        return as_text(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.tolist() if hasattr(value, "tolist") else value
