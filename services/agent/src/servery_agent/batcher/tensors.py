"""v2, REST and gRPC: requests put together and answers taken apart as tensors. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import DecodeError
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest, InferResponse, RequestError, batch, grpc, v1, v2
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb

from servery_agent.batcher import texts

_OF_REQUEST = frozenset({"id", "inputs", "outputs", "parameters"})
_OF_INPUT = frozenset({"data", "datatype", "name", "parameters", "shape"})
_OF_OUTPUT = frozenset({"name", "parameters"})
_TO_GRPC = (bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Part:
    """A request's part of a batch.

    Attributes:
        key: What parts that go together have equal.
        request: Its tensors.
        is_raw: They came as bytes.
        to_grpc: It can be said in gRPC: whose parameters have few kinds.
    """

    key: Hashable
    rows: int
    request: InferRequest
    is_raw: bool
    to_grpc: bool = True


def of_rest(body: bytes, *, model: str, version: str | None, json_length: int | None) -> Part | None:
    """Return what a v2 body has for a batch; None where it goes alone: it is wrong, says what the protocol does not
    know, or has no rows.
    """
    if json_length is not None and not 0 <= json_length <= len(body):
        return None
    view = memoryview(body)
    try:
        document = v1.load(view if json_length is None else view[:json_length])
        if not _is_known(document):
            return None
        request = v2.request(
            document, view[len(body) if json_length is None else json_length :], model=model, version=version
        )
    except ServeryError:
        return None
    key, rows = batch.key(request), batch.rows(request)
    if key is None or not rows:
        return None
    is_raw = json_length is not None
    # What outputs are wanted as bytes is between the codec and the client: gRPC has all of them as bytes.
    said = [value for name, value in request.parameters.items() if name != v2.BINARY_OUTPUT]
    said += [value for tensor in request.inputs for value in tensor.parameters.values()]
    return Part((is_raw, key), rows, request, is_raw, all(_has_grpc(value) for value in said))


def _has_grpc(value: Json) -> bool:
    return isinstance(value, _TO_GRPC) and not (type(value) is int and not -(2**63) <= value < 2**63)


def _is_known(document: Mapping[str, Json]) -> bool:
    inputs, outputs = document.get("inputs"), document.get("outputs") or []
    if not (document.keys() <= _OF_REQUEST and isinstance(inputs, list) and isinstance(outputs, list)):
        return False
    if not all(isinstance(tensor, dict) and tensor.keys() <= _OF_INPUT for tensor in inputs):
        return False
    return all(
        isinstance(output, dict)
        and output.keys() <= _OF_OUTPUT
        and (output.get("parameters") or {}).keys() <= {v2.BINARY_OUTPUT}
        for output in outputs
    )


def of_grpc(message: bytes) -> tuple[str, str | None, Part | None]:
    """Return the model and the version that a message asks for, and what it has for a batch; None as above."""
    try:
        decoded = pb.ModelInferRequest.FromString(message)
    except DecodeError:
        return "", None, None
    model, version = decoded.model_name, decoded.model_version or None
    if any(output.parameters for output in decoded.outputs):
        return model, version, None
    try:
        request = grpc.decode_request(decoded)
    except ServeryError:
        return model, version, None
    key, rows = batch.key(request), batch.rows(request)
    if key is None or not rows:
        return model, version, None
    is_raw = bool(decoded.raw_input_contents)
    return model, version, Part((is_raw, key), rows, request, is_raw)


def merged(parts: Sequence[Part]) -> batch.Merged:
    """Return one request for parts that have equal keys."""
    return batch.merged_alike([part.request for part in parts])


def rest_body(request: InferRequest, parts: Sequence[Part]) -> v2.Encoded:
    """Return the REST body of a merged request: as bytes where its parts came or want to be answered so."""
    return v2.encode_request(request, binary=parts[0].is_raw or v2.BINARY_OUTPUT in request.parameters)


def grpc_message(request: InferRequest, *, raw: bool) -> bytes:
    """Return the message of a merged request."""
    parameters = {name: value for name, value in request.parameters.items() if name != v2.BINARY_OUTPUT}
    return grpc.encode_request(replace(request, parameters=parameters), raw=raw).SerializeToString()


def split(response: InferResponse, offsets: Sequence[int], parts: Sequence[Part]) -> list[InferResponse] | None:
    """Return the answers; None where ``response`` cannot be taken apart."""
    try:
        answers = list(batch.split(response, offsets))
    except batch.ShapeMismatch:
        return None
    for answer, part in zip(answers, parts, strict=True):
        if part.request.id is not None:
            answer.id = part.request.id
    return answers


def from_grpc(message: bytes, offsets: Sequence[int], parts: Sequence[Part]) -> list[bytes] | None:
    """Return the messages of the answers; contents are as the predictor's were."""
    try:
        decoded = pb.ModelInferResponse.FromString(message)
        answers = split(grpc.decode_response(decoded), offsets, parts)
    except (DecodeError, RequestError):
        return None
    is_raw = bool(decoded.raw_output_contents)
    return (
        None
        if answers is None
        else [grpc.encode_response(answer, raw=is_raw).SerializeToString() for answer in answers]
    )


def rest_from_grpc(message: bytes, offsets: Sequence[int], parts: Sequence[Part]) -> list[v2.Encoded] | None:
    """Return the REST bodies of the answers."""
    try:
        answers = split(grpc.decode_response(pb.ModelInferResponse.FromString(message)), offsets, parts)
    except (DecodeError, RequestError):
        return None
    return None if answers is None else _encoded(answers, parts)


def rest_from_rest(
    body: bytes, json_length: int | None, offsets: Sequence[int], parts: Sequence[Part]
) -> list[v2.Encoded] | None:
    """Return the REST bodies of the answers. JSON stays JSON, with all that is in it; bytes are as each asked for them."""
    if json_length is None:
        return _from_json(body, offsets, parts)
    try:
        answers = split(v2.decode_response(body, json_length=json_length), offsets, parts)
    except RequestError:
        return None
    return None if answers is None else _encoded(answers, parts)


def _encoded(answers: Sequence[InferResponse], parts: Sequence[Part]) -> list[v2.Encoded]:
    return [v2.encode_response(answer, part.request) for answer, part in zip(answers, parts, strict=True)]


def _from_json(body: bytes, offsets: Sequence[int], parts: Sequence[Part]) -> list[v2.Encoded] | None:
    document = texts.loaded(body)
    try:
        found = [_rows(output, offsets[-1]) for output in document["outputs"]] if document is not None else []
    except (KeyError, TypeError):
        return None
    taken = [rows for rows in found if rows is not None]
    if document is None or len(taken) != len(found):
        return None
    bodies: list[v2.Encoded] = []
    for part, (start, stop) in zip(parts, itertools.pairwise(offsets), strict=True):
        outputs = [
            {**output, "shape": [stop - start, *output["shape"][1:]], "data": data[start * width : stop * width]}
            for output, (data, width) in zip(document["outputs"], taken, strict=True)
        ]
        own = {} if part.request.id is None else {"id": part.request.id}
        bodies.append(v2.Encoded(texts.dumped({**document, "outputs": outputs, **own})))
    return bodies


def _rows(output: Mapping[str, Any], total: int) -> tuple[list[Json], int] | None:
    """Return an output's data and the elements that each row has of them, None where rows of input have none."""
    data, shape = output["data"], output["shape"]
    if not isinstance(data, list) or not shape or shape[0] != total:
        return None
    width, left = divmod(len(data), total)
    return None if left else (data, width)
