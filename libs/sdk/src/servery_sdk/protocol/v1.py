"""KServe's v1 protocol: ``{"instances": […]}`` in, ``{"predictions": […]}`` out.

Source: KServe v1 data plane; TensorFlow Serving's REST API, whose row and column forms it is; MLflow's scoring server,
whose tables are taken as well.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

import numpy as np
import orjson

from servery_sdk.manifests import Json
from servery_sdk.protocol import elements
from servery_sdk.protocol.datatypes import Datatype
from servery_sdk.protocol.errors import RequestError
from servery_sdk.protocol.tensors import InferRequest, InferResponse, Tensor

INPUT = "input-0"
"""The name of the one tensor of instances that are not objects."""

_OF_KIND = {"f": Datatype.FP64, "u": Datatype.UINT64, "i": Datatype.INT64, "b": Datatype.BOOL}
"""What numpy makes of JSON's numbers, by its letter."""
CONTENT_TYPE, JSON = "content_type", "json"
"""A parameter of an output ``[rows]`` of BYTES and its value: each element is a JSON document, not a text."""

_TABLE = {CONTENT_TYPE: "pd"}
"""The parameter that says of inputs, in MLServer's words, that they are a table's columns."""


def decode_request(body: bytes | memoryview, *, model: str) -> InferRequest:
    """Return the request that a v1 body spells.

    ``instances`` (row form) of numbers or lists becomes one tensor ``input-0``; of objects, one tensor per key.
    ``inputs`` (column form) is one list, or an object of one list per input. ``dataframe_split`` and
    ``dataframe_records`` are MLflow's, a tensor per column; the parameter ``content_type`` is then ``pd``.

    Raises:
        RequestError: Not JSON, or not of these forms.
    """
    return request(load(body), model=model)


def request(document: Mapping[str, Json], *, model: str) -> InferRequest:
    """Return the request that a v1 body's ``document`` is.

    Raises:
        RequestError: Not of these forms.
    """
    instances, inputs = document.get("instances"), document.get("inputs")
    if (instances is None) == (inputs is None):
        if instances is None and (columns := _columns(document)):
            return InferRequest(model=model, inputs=columns, parameters={**_TABLE, **_parameters(document)})
        raise RequestError('a v1 request has either "instances" or "inputs"; found ' + _keys(document))
    if instances is not None:
        tensors = _rows("instances", instances)
    elif isinstance(inputs, dict):
        tensors = tuple(tensor(str(name), column) for name, column in inputs.items())
    else:
        tensors = (tensor(INPUT, inputs),)
    if not tensors:
        raise RequestError('"inputs" is empty; name at least one input')
    return InferRequest(model, tensors, parameters=_parameters(document))


def load(body: bytes | memoryview) -> dict[str, Json]:
    """Return the JSON object in ``body``.

    Raises:
        RequestError: Not a JSON object; says where it breaks.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RequestError("the body must be a JSON object")
    return document


def encode_response(response: InferResponse, *, member: str = "predictions") -> bytes:
    """Return the v1 body: one output as a list, several (or one that asks for it) as a list of objects, a row each.

    NaN becomes null.

    Args:
        member: What the answer is called: ``explanations`` of ``:explain``.
    """
    return orjson.dumps({member: predictions(response)}, option=orjson.OPT_SERIALIZE_NUMPY)


def predictions(response: InferResponse) -> Json:
    """Return what ``predictions`` holds: JSON, numpy arrays of numbers among it."""
    if len(response.outputs) == 1 and not response.rows_are_objects:
        return _column(response.outputs[0])
    columns = [(output.name, _column(output)) for output in response.outputs]
    rows = min((len(column) for _, column in columns), default=0)
    return [{name: column[row] for name, column in columns} for row in range(rows)]


def _column(output: Tensor) -> Json:
    if output.parameters.get(CONTENT_TYPE) == JSON:
        return [orjson.Fragment(elements.as_bytes(element)) for element in output.data.ravel()]
    return elements.to_json(output.data)


def _rows(field: str, instances: Json) -> tuple[Tensor, ...]:
    if not isinstance(instances, list):
        raise RequestError(f'"{field}" must be a list')
    if not instances:
        raise RequestError(f'"{field}" is empty; send at least one')
    if not isinstance(instances[0], dict) or _is_b64(instances[0]):
        return (tensor(INPUT, instances),)
    names = list(instances[0])
    for row, instance in enumerate(instances):
        if not isinstance(instance, dict) or instance.keys() != instances[0].keys():
            raise RequestError(f"{field}[{row}] must have the keys of {field}[0]: {', '.join(map(str, names))}")
    if not names:
        raise RequestError(f"{field}[0] is empty; name at least one input")
    return tuple(tensor(str(name), [instance[name] for instance in instances]) for name in names)


def _columns(document: Mapping[str, Json]) -> tuple[Tensor, ...]:
    """Return the columns of MLflow's tables, none where there is no table.

    Source: MLflow, "Deploy models: accepted input formats": pandas' ``split`` and ``records`` orientations.
    """
    if (records := document.get("dataframe_records")) is not None:
        return _rows("dataframe_records", records)
    if (table := document.get("dataframe_split")) is None:
        return ()
    names, data = (table.get("columns"), table.get("data")) if isinstance(table, dict) else (None, None)
    if not isinstance(data, list) or not data or not isinstance(names, list) or not names:
        raise RequestError('"dataframe_split" must be an object with "columns", a list of names, and "data", of rows')
    listed = ", ".join(map(str, names))
    if len(set(map(str, names))) < len(names):
        raise RequestError(f"dataframe_split: names a column twice: {listed}")
    for at, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(names):
            raise RequestError(f"dataframe_split: data[{at}] must have an element for each column: {listed}")
    return tuple(tensor(str(name), [row[at] for row in data]) for at, name in enumerate(names))


def tensor(name: str, values: Json) -> Tensor:
    """Return the tensor that a JSON list, flat or nested, spells: numbers, or texts and ``{"b64": …}`` as BYTES.

    Raises:
        RequestError: Ragged, or elements of several kinds.
    """
    if not isinstance(values, list):
        raise RequestError(f"input {name!r}: must be a list, one element a row")
    if values and isinstance(values[0], str):
        # numpy would copy them all, four bytes a character, to find out that they are texts.
        texts = elements.objects([_bytes(name, element) for element in values])
        return Tensor(name=name, data=texts, datatype=Datatype.BYTES)
    try:
        data = np.asarray(values)
    except ValueError as error:
        raise RequestError(f"input {name!r}: rows differ in shape") from error
    except OverflowError as error:
        raise RequestError(f"input {name!r}: holds an integer of more than 64 bits") from error
    datatype = _OF_KIND.get(data.dtype.kind)
    if datatype is None:
        return _bytes_tensor(name, values)
    return Tensor(name, data, datatype)


def _bytes_tensor(name: str, values: list[Json]) -> Tensor:
    shape, level = [len(values)], values
    while level and all(isinstance(element, list) for element in level):
        widths = {len(element) for element in level}
        if len(widths) > 1:
            raise RequestError(f"input {name!r}: rows differ in shape")
        shape.append(widths.pop())
        level = [inner for element in level for inner in element]
    data = elements.objects([_bytes(name, element) for element in level])
    return Tensor(name=name, data=data.reshape(shape), datatype=Datatype.BYTES)


def _bytes(name: str, element: Json) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if _is_b64(element):
        try:
            return base64.b64decode(element["b64"], validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise RequestError(f'input {name!r}: "b64" does not hold base64: {error}') from error
    raise RequestError(
        f"input {name!r}: an input holds numbers or strings of one kind; found {type(element).__name__} among them"
    )


def _is_b64(element: Json) -> bool:
    return isinstance(element, dict) and element.keys() == {"b64"}


def _parameters(document: Mapping[str, Json]) -> Mapping[str, Json]:
    # MLflow calls them params.
    parameters = document.get("parameters") or document.get("params")
    return parameters if isinstance(parameters, dict) else {}


def _keys(document: Mapping[str, Json]) -> str:
    return ", ".join(f'"{key}"' for key in sorted(map(str, document))) or "neither"
