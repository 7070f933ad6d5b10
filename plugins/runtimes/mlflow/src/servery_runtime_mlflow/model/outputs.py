"""From what a pyfunc answers, which may be nearly anything, to tensors.

Source: MLflow, ``mlflow.pyfunc.PyFuncOutput``: tables, columns, arrays, lists, and what models of one's own return.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from servery_sdk.fitting import Array
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, Tensor, v1
from servery_sdk.tabular import OUTPUT, encoded

from servery_runtime_mlflow.model.signature import Port


def content_type(answer: Any) -> str | None:
    """Return what the answer was, as MLServer says it of its own: ``pd``, ``dict``, or None for bare values."""
    if isinstance(answer, pd.DataFrame | pd.Series) or _are_records(answer):
        return "pd"
    return "dict" if isinstance(answer, Mapping) else None


def _are_records(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer) and all(isinstance(row, Mapping) for row in answer)


def tensors(answer: Any, ports: Sequence[Port]) -> tuple[Tensor, ...]:
    """Return a tensor for each column of a table or entry of a mapping, else one.

    What has no name is named by the signature's outputs ``ports``, or ``output-<k>``. Texts become BYTES, times texts,
    and objects texts of JSON.
    """
    named = [(name, _array(values)) for name, values in _parts(answer)]
    if len(named) == 1 and named[0][0] is None:
        named = _split(named[0][1], ports)
    names = [port.name for port in ports] if len(ports) == len(named) else []
    return tuple(
        [_tensor(_name(name, names[at : at + 1], at), data) for at, (name, data) in enumerate(named)],
    )


def _parts(answer: Any) -> Iterable[tuple[Any, Any]]:
    if _are_records(answer):
        answer = pd.DataFrame(answer)
    if isinstance(answer, pd.DataFrame | Mapping):
        # A table's columns that have no names are numbered.
        return [(name if isinstance(name, str) else None, values) for name, values in answer.items()]
    return [(None, answer)]


def _split(data: Array, ports: Sequence[Port]) -> list[tuple[Any, Array]]:
    """Return a matrix as the columns that the signature says it has."""
    if data.ndim == 2 and data.shape[1] == len(ports) and all(port.is_plain for port in ports):
        return [(None, data[:, at]) for at in range(len(ports))]
    return [(None, data)]


def _name(name: str | None, signed: Sequence[str], at: int) -> str:
    if name is not None:
        return name
    return signed[0] if signed else f"{OUTPUT.removesuffix('0')}{at}"


def _array(values: Any) -> Array:
    if hasattr(values, "toarray"):
        # A sparse matrix.
        values = values.toarray()
    if isinstance(values, pd.Series):
        values = values.infer_objects().to_numpy()
    try:
        data = np.asarray(values)
    except ValueError:
        # Lists of lists that differ in length.
        data = _objects(values)
    if data.dtype.kind in "US" and isinstance(values, list) and not _are_texts(values):
        # numpy makes texts of numbers that stand beside texts.
        data = _objects(values)
    if data.ndim:
        return data
    return _objects([values]) if data.dtype == object else data.reshape(1)


def _are_texts(values: list[Any]) -> bool:
    return all(isinstance(value, str | bytes) for value in np.asarray(values, dtype=object).ravel())


def _objects(values: Sequence[Any]) -> Array:
    found = np.empty(len(values), dtype=object)
    for at, value in enumerate(values):
        found[at] = value
    return found


def _tensor(name: str, data: Array) -> Tensor:
    if data.dtype.kind == "M":
        data = _objects([pd.Timestamp(time) for time in data.ravel()]).reshape(data.shape)
    parameters: dict[str, Json] = {}
    if data.dtype.kind in "USO":
        if data.size and not any(isinstance(value, str | bytes) or _is_time(value) for value in data.ravel()):
            # v1 and the scoring server answer with the objects themselves.
            parameters[v1.CONTENT_TYPE] = v1.JSON
        data = encoded(_objects([_text(value) for value in data.ravel()]).reshape(data.shape))
    return Tensor(name=name, data=data, datatype=Datatype.of(data), parameters=parameters)


def _is_time(value: Any) -> bool:
    return hasattr(value, "isoformat")


def _text(value: Any) -> str | bytes:
    if isinstance(value, str | bytes):
        return value
    return str(value.isoformat()) if _is_time(value) else json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
