"""TensorFlow Serving's REST: v1 in row and column form, signatures by name, metadata and states of versions.

Source: TensorFlow Serving, "RESTful API"; util/json_tensor.cc.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson
from google.protobuf import json_format

from servery_sdk.manifests import Json
from servery_sdk.protocol import elements, v1
from servery_sdk.protocol.datatypes import Datatype
from servery_sdk.protocol.errors import RequestError
from servery_sdk.protocol.tensors import InferRequest, InferResponse, Tensor
from servery_sdk.protocol.tfserving import examples
from servery_sdk.protocol.tfserving import grpc as messages
from servery_sdk.signatures import PARAMETER, Signature

_B64_SUFFIX = "_bytes"
"""Ends the names of outputs whose strings are no texts, and are answered as ``{"b64": …}``."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a ``:predict`` body asks for.

    Attributes:
        is_column: It came as ``inputs``, and is answered as ``outputs``.
    """

    request: InferRequest
    is_column: bool


def decode_predict(body: bytes | memoryview, *, model: str, version: str | None) -> Asked:
    """Return the request that a ``:predict`` body spells.

    Raises:
        RequestError: Not JSON, or not of row or column form.
    """
    document = v1.load(body)
    inputs = document.get("inputs")
    if document.get("instances") is None and inputs is not None:
        columns = inputs if isinstance(inputs, dict) and inputs.keys() != {"b64"} else {v1.INPUT: inputs}
        found = InferRequest(model=model, inputs=tuple(_column(str(name), column) for name, column in columns.items()))
        if not found.inputs:
            raise RequestError('"inputs" is empty; name at least one input')
    else:
        found = v1.request(document, model=model)
    return Asked(replace(found, version=version, parameters=_parameters(document)), inputs is not None)


def encode_predict(response: InferResponse, *, is_column: bool) -> bytes:
    """Return the body of an answer: ``outputs`` or ``predictions``; a single output goes without its name.

    Raises:
        RequestError: The answer has no rows: ask in column form.
    """
    outputs = response.outputs
    if is_column:
        columns = {output.name: _json(output) for output in outputs}
        return _dumps({"outputs": columns if len(outputs) > 1 else columns[outputs[0].name]})
    lengths = {output.name: list(output.data.shape[:1]) for output in outputs}
    if len({tuple(length) for length in lengths.values()} - {()}) != 1 or [] in lengths.values():
        raise RequestError(
            f'outputs have no rows in common: {lengths}; send "inputs" instead of "instances" for an answer in columns'
        )
    if len(outputs) == 1:
        return _dumps({"predictions": _json(outputs[0])})
    columns = {output.name: _json(output) for output in outputs}
    rows = outputs[0].data.shape[0]
    return _dumps({"predictions": [{name: column[row] for name, column in columns.items()} for row in range(rows)]})


def decode_examples(body: bytes | memoryview, *, model: str, version: str | None) -> InferRequest:
    """Return the request of a ``:classify`` or ``:regress`` body, whose ``examples`` are objects of features.

    Raises:
        RequestError: Not JSON, no examples, or a feature that is none.
    """
    document = v1.load(body)
    given, context = document.get("examples"), document.get("context", {})
    if not isinstance(given, list) or not given:
        raise RequestError('"examples" must be a list of at least one object')
    if not isinstance(context, dict):
        raise RequestError('"context" must be an object')
    serialized = []
    for row, features in enumerate(given):
        if not isinstance(features, dict):
            raise RequestError(f"examples[{row}] must be an object of features")
        serialized.append(examples.serialized({**context, **features}, where=f"examples[{row}]"))
    return examples.request(serialized, model=model, version=version, parameters=_parameters(document))


def encode_classes(response: InferResponse) -> bytes:
    """Return the body of a ``:classify`` answer: a list of ``[label, score]`` for each example."""
    return _dumps({"result": examples.classes(response)})


def encode_values(response: InferResponse) -> bytes:
    """Return the body of a ``:regress`` answer: a number for each example."""
    return _dumps({"result": examples.values(response)})


def metadata(model: str, version: str, signatures: Mapping[str, Signature]) -> dict[str, Json]:
    """Return what ``GET /v1/models/{m}/metadata`` answers."""
    described = json_format.MessageToDict(
        messages.signature_map(signatures), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {
        "model_spec": {"name": model, "signature_name": "", "version": version},
        "metadata": {"signature_def": described},
    }


def version_status(version: str, state: str, code: str, message: str) -> dict[str, Json]:
    """Return what ``GET /v1/models/{m}`` says of one version."""
    return {"version": version, "state": state, "status": {"error_code": code, "error_message": message}}


def _parameters(document: Mapping[str, Json]) -> Mapping[str, Json]:
    name = document.get("signature_name")
    if name is not None and not isinstance(name, str):
        raise RequestError(f'"signature_name" must be a string, found {name!r}')
    return {PARAMETER: name} if name else {}


def _column(name: str, values: Json) -> Tensor:
    if isinstance(values, list):
        return v1.tensor(name, values)
    # A value without axes.
    single = v1.tensor(name, [values])
    return replace(single, data=single.data.reshape(()))


def _json(output: Tensor) -> Any:
    data = output.data
    if output.datatype is Datatype.BYTES and output.name.endswith(_B64_SUFFIX):
        encoded = [{"b64": base64.b64encode(elements.as_bytes(element)).decode()} for element in data.ravel()]
        return elements.objects(encoded).reshape(data.shape).tolist()
    return elements.to_json(data) if data.ndim else elements.to_json(data.reshape(1))[0]


def _dumps(document: Mapping[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
