"""The Open Inference Protocol over gRPC: messages to values and back. Needs protobuf, not a gRPC library.

Source: Open Inference Protocol v2, "gRPC"; Triton's shared-memory extension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from servery_sdk.manifests import Json
from servery_sdk.protocol import elements
from servery_sdk.protocol.datatypes import Datatype
from servery_sdk.protocol.errors import RequestError
from servery_sdk.protocol.shared import (
    REGION,
    NoRegions,
    Regions,
    SharedRequest,
    Span,
    refuse_classification,
    span,
    without_span,
)
from servery_sdk.protocol.tensors import InferRequest, InferResponse, ModelMetadata, Tensor
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb

CONTENTS = {
    Datatype.BOOL: "bool_contents",
    Datatype.INT8: "int_contents",
    Datatype.INT16: "int_contents",
    Datatype.INT32: "int_contents",
    Datatype.INT64: "int64_contents",
    Datatype.UINT8: "uint_contents",
    Datatype.UINT16: "uint_contents",
    Datatype.UINT32: "uint_contents",
    Datatype.UINT64: "uint64_contents",
    Datatype.FP32: "fp32_contents",
    Datatype.FP64: "fp64_contents",
    Datatype.BYTES: "bytes_contents",
}
"""FP16 and BF16 have raw contents only."""

_DATATYPES = {str(datatype): datatype for datatype in Datatype}
_BYTES = Datatype.BYTES


_NO_REGIONS = NoRegions()


def decode_request(message: pb.ModelInferRequest, *, regions: Regions = _NO_REGIONS) -> InferRequest:
    """Return the request in ``message``, its contents typed or raw or in ``regions``.

    It is a ``SharedRequest`` where outputs are wanted in shared memory.

    Raises:
        RequestError: Names the input, what was found and what to send.
        ServeryError: Shared memory cannot be read.
    """
    inputs = message.inputs
    if not inputs:
        raise RequestError("the request has no inputs; send at least one tensor")
    outputs, places = _wanted(message.outputs) if message.outputs else ((), None)
    if places:
        return SharedRequest(
            model=message.model_name,
            version=message.model_version or None,
            id=message.id or None,
            inputs=_tensors(inputs, message.raw_input_contents, regions),
            outputs=outputs,
            parameters=_parameters(message.parameters),
            places=places,
        )
    return InferRequest(
        message.model_name,
        _tensors(inputs, message.raw_input_contents, regions),
        message.model_version or None,
        message.id or None,
        outputs,
        _parameters(message.parameters),
    )


def _wanted(outputs: Sequence[Any]) -> tuple[tuple[str, ...], dict[str, Span]]:
    # The names of the outputs that a request asks for, and which it wants where.
    names: list[str] = []
    places: dict[str, Span] = {}
    for output in outputs:
        name = output.name
        names.append(name)
        # A look at a map makes an object for it: a microsecond, where a short name alone has its own size and two bytes.
        if output.ByteSize() != len(name) + 2 and output.parameters:
            parameters = _parameters(output.parameters)
            refuse_classification(name, parameters)
            place = span(name, parameters)
            if place is not None:
                places[name] = place
    return tuple(names), places


def encode_request(request: InferRequest, *, raw: bool = True) -> pb.ModelInferRequest:
    """Return the message of ``request``."""
    message = pb.ModelInferRequest(
        model_name=request.model,
        model_version=request.version or "",
        id=request.id or "",
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in request.outputs],
    )
    _set_parameters(message.parameters, request.parameters)
    _encode(request.inputs, message.inputs, message.raw_input_contents, raw=raw)
    return message


def decode_response(message: pb.ModelInferResponse) -> InferResponse:
    """Return the response in ``message``.

    Raises:
        RequestError: Its tensors contradict themselves.
    """
    return InferResponse(
        model=message.model_name,
        version=message.model_version or None,
        id=message.id or None,
        outputs=_tensors(message.outputs, message.raw_output_contents, _NO_REGIONS),
        parameters=_parameters(message.parameters),
    )


def encode_response(
    response: InferResponse, *, raw: bool = True, placed: Mapping[str, Span] | None = None
) -> pb.ModelInferResponse:
    """Return the message of ``response``; ``raw`` as the request's own contents were, which its client reads.

    Outputs that were ``placed`` in shared memory say where, and have no contents.
    """
    message = pb.ModelInferResponse()
    message.model_name = response.model
    if response.version is not None:
        message.model_version = response.version
    if response.id is not None:
        message.id = response.id
    if response.parameters:
        _set_parameters(message.parameters, response.parameters)
    _encode(response.outputs, message.outputs, message.raw_output_contents, raw=raw, placed=placed)
    return message


def encode_metadata(metadata: ModelMetadata) -> pb.ModelMetadataResponse:
    """Return the message that describes a model."""
    described = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=[described(name=t.name, datatype=t.datatype, shape=t.shape) for t in metadata.inputs],
        outputs=[described(name=t.name, datatype=t.datatype, shape=t.shape) for t in metadata.outputs],
    )


def _tensors(found: Sequence[Any], raw: Sequence[bytes | None], regions: Regions) -> tuple[Tensor, ...]:
    if raw and len(raw) != len(found):
        # Those in shared memory have none.
        elsewhere = [REGION in tensor.parameters for tensor in found]
        if len(raw) != elsewhere.count(False):
            raise RequestError(f"{len(found)} tensors, but {len(raw)} raw contents; send one for each, or none")
        left = iter(raw)
        raw = [None if is_shared else next(left) for is_shared in elsewhere]
    if len(found) > 1:
        names = [tensor.name for tensor in found]
        if len(set(names)) != len(names):
            raise RequestError(f"a tensor is named twice: {', '.join(sorted(names))}")
    return tuple([_tensor(tensor, raw[index] if raw else None, regions) for index, tensor in enumerate(found)])


def _tensor(found: Any, raw: bytes | None, regions: Regions) -> Tensor:
    name = found.name
    datatype = _DATATYPES.get(found.datatype)
    if datatype is None:
        raise RequestError(f"input {name!r}: unknown datatype {found.datatype!r}; one of {', '.join(sorted(Datatype))}")
    shape = elements.checked_shape(name, found.shape[:])
    parameters = _parameters(found.parameters)
    if parameters and (place := span(name, parameters)) is not None:
        if raw is not None or found.HasField("contents"):
            raise RequestError(f"input {name!r}: has contents, and {REGION} beside them; send one of them")
        data = elements.from_raw(name, datatype, shape, regions.read(place))
        parameters = without_span(parameters)
    elif raw is not None:
        data = elements.from_raw(name, datatype, shape, raw)
    else:
        data = _typed(name, datatype, shape, found.contents)
    return Tensor(name, data, datatype, parameters)


def _typed(name: str, datatype: Datatype, shape: tuple[int, ...], contents: pb.InferTensorContents) -> elements.Array:
    field = CONTENTS.get(datatype)
    if field is None:
        raise RequestError(f"input {name!r}: {datatype} has raw contents only")
    used = contents.ListFields()
    if len(used) > 1 or (used and used[0][0].name != field):
        raise RequestError(
            f"input {name!r}: {datatype} belongs in {field}, found {', '.join(one.name for one, _ in used)}"
        )
    values = getattr(contents, field)
    if datatype is _BYTES:
        return elements.reshaped(name, elements.objects(list(values)), shape)
    if len(values) != math.prod(shape):
        raise RequestError(
            f"input {name!r}: shape {list(shape)} needs {math.prod(shape)} elements, {field} has {len(values)}"
        )
    try:
        # A list of them all at once: numpy would ask the message for one after the other.
        return np.array(values[:], dtype=datatype.dtype).reshape(shape)
    except OverflowError as error:
        raise RequestError(f"input {name!r}: a value does not fit {datatype}") from error


def _encode(
    tensors: Sequence[Tensor],
    described: Any,
    raw_contents: Any,
    *,
    raw: bool,
    placed: Mapping[str, Span] | None = None,
) -> None:
    raw = raw or any(tensor.datatype not in CONTENTS for tensor in tensors)
    for tensor in tensors:
        # By attributes, and parameters only where there are some: keywords and a map cost a microsecond each.
        message = described.add()
        message.name = tensor.name
        message.datatype = tensor.datatype._value_
        message.shape.extend(tensor.data.shape)
        if tensor.parameters:
            _set_parameters(message.parameters, tensor.parameters)
        if placed and tensor.name in placed:
            _set_parameters(message.parameters, placed[tensor.name].parameters)
            if raw:
                # Contents are found by their place among the outputs.
                raw_contents.append(b"")
        elif raw:
            raw_contents.append(elements.to_raw(tensor.datatype, tensor.data))
        elif tensor.datatype is _BYTES:
            message.contents.bytes_contents.extend(elements.as_bytes(element) for element in tensor.data.ravel())
        else:
            getattr(message.contents, CONTENTS[tensor.datatype]).extend(tensor.data.ravel().tolist())


def _parameters(found: Mapping[str, pb.InferParameter]) -> dict[str, Json]:
    if not found:
        return {}
    chosen = {name: value.WhichOneof("parameter_choice") for name, value in found.items()}
    return {name: getattr(found[name], choice) for name, choice in chosen.items() if choice}


def _set_parameters(target: Any, parameters: Mapping[str, Json]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            target[name].bool_param = value
        elif isinstance(value, int):
            target[name].int64_param = value
        elif isinstance(value, float):
            target[name].double_param = value
        else:
            target[name].string_param = str(value)
