"""``TensorProto`` messages to arrays and back.

Source: tensorflow/core/framework/{types,tensor}.proto; tensorflow/python/framework/tensor_util.py, ``MakeNdarray``.
"""

from __future__ import annotations

import math

import numpy as np

from servery_sdk.protocol import elements
from servery_sdk.protocol.datatypes import Datatype
from servery_sdk.protocol.errors import RequestError
from servery_sdk.protocol.tensors import Tensor
from servery_sdk.protos.tensorflow import framework_pb2 as pb

DATATYPES = {
    pb.DT_BOOL: Datatype.BOOL,
    pb.DT_UINT8: Datatype.UINT8,
    pb.DT_UINT16: Datatype.UINT16,
    pb.DT_UINT32: Datatype.UINT32,
    pb.DT_UINT64: Datatype.UINT64,
    pb.DT_INT8: Datatype.INT8,
    pb.DT_INT16: Datatype.INT16,
    pb.DT_INT32: Datatype.INT32,
    pb.DT_INT64: Datatype.INT64,
    pb.DT_HALF: Datatype.FP16,
    pb.DT_BFLOAT16: Datatype.BF16,
    pb.DT_FLOAT: Datatype.FP32,
    pb.DT_DOUBLE: Datatype.FP64,
    pb.DT_STRING: Datatype.BYTES,
}
"""By TensorFlow's number of the type."""

TYPES = {datatype: number for number, datatype in DATATYPES.items()}

_FIELDS = {
    Datatype.BOOL: "bool_val",
    Datatype.UINT8: "int_val",
    Datatype.UINT16: "int_val",
    Datatype.UINT32: "uint32_val",
    Datatype.UINT64: "uint64_val",
    Datatype.INT8: "int_val",
    Datatype.INT16: "int_val",
    Datatype.INT32: "int_val",
    Datatype.INT64: "int64_val",
    Datatype.FP16: "half_val",
    Datatype.BF16: "half_val",
    Datatype.FP32: "float_val",
    Datatype.FP64: "double_val",
    Datatype.BYTES: "string_val",
}


def decoded(name: str, message: pb.TensorProto) -> Tensor:
    """Return the tensor in ``message``, its values packed or typed.

    Raises:
        RequestError: Names the input and what does not fit.
    """
    datatype = DATATYPES.get(message.dtype)
    if datatype is None:
        known = ", ".join(pb.DataType.Name(number) for number in sorted(DATATYPES))
        raise RequestError(f"input {name!r}: type {message.dtype} is not carried; one of {known}")
    if message.tensor_shape.unknown_rank:
        raise RequestError(f"input {name!r}: a tensor that is sent has a shape")
    shape = elements.checked_shape(name, [dim.size for dim in message.tensor_shape.dim])
    if message.tensor_content and datatype is not Datatype.BYTES:
        data = elements.from_raw(name, datatype, shape, message.tensor_content)
    else:
        data = _typed(name, datatype, shape, message)
    return Tensor(name=name, data=data, datatype=datatype)


def encoded(tensor: Tensor) -> pb.TensorProto:
    """Return the message of ``tensor`` with typed values, which clients of TensorFlow Serving read by their field."""
    data = tensor.data
    dims = [pb.TensorShapeProto.Dim(size=length) for length in data.shape]
    message = pb.TensorProto(dtype=TYPES[tensor.datatype], tensor_shape=pb.TensorShapeProto(dim=dims))
    flat = data.ravel()
    if tensor.datatype is Datatype.BYTES:
        message.string_val.extend([elements.as_bytes(element) for element in flat])
        return message
    values = flat.view(np.uint16) if _FIELDS[tensor.datatype] == "half_val" else flat
    getattr(message, _FIELDS[tensor.datatype]).extend(values.tolist())
    return message


def _typed(name: str, datatype: Datatype, shape: tuple[int, ...], message: pb.TensorProto) -> elements.Array:
    values = getattr(message, _FIELDS[datatype])
    count = math.prod(shape)
    if len(values) > count or (count and not values):
        raise RequestError(
            f"input {name!r}: shape {list(shape)} has {count} elements, {_FIELDS[datatype]} holds {len(values)}"
        )
    if datatype is Datatype.BYTES:
        found: elements.Array = elements.objects(list(values))
    else:
        is_bits = _FIELDS[datatype] == "half_val"
        try:
            found = np.array(values, dtype=np.uint16 if is_bits else datatype.dtype)
        except OverflowError as error:
            raise RequestError(f"input {name!r}: a value does not fit {datatype}") from error
        found = found.view(datatype.dtype) if is_bits else found
    if len(found) < count:
        # The last value stands for all that are not there: how constants are sent.
        found = np.concatenate([found, np.repeat(found[-1:], count - len(found))])
    return found.reshape(shape)
