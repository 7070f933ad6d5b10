"""The Open Inference Protocol's element types and their numpy types."""

from __future__ import annotations

import enum
from typing import Self

import ml_dtypes
import numpy as np
import numpy.typing as npt

from servery_sdk.manifests import Json


class Datatype(enum.StrEnum):
    """Element types on the wire.

    Looked at several times a request: attributes of the member and the text's own hash spare a microsecond together.

    Attributes:
        dtype: The numpy type, little-endian as the wire has it; object for BYTES.

    Source: Open Inference Protocol v2, "Tensor Data Types"; BF16 from Triton's binary extension.
    """

    dtype: np.dtype[np.generic]

    BOOL = "BOOL", "bool"
    UINT8 = "UINT8", "<u1"
    UINT16 = "UINT16", "<u2"
    UINT32 = "UINT32", "<u4"
    UINT64 = "UINT64", "<u8"
    INT8 = "INT8", "<i1"
    INT16 = "INT16", "<i2"
    INT32 = "INT32", "<i4"
    INT64 = "INT64", "<i8"
    FP16 = "FP16", "<f2"
    BF16 = "BF16", ml_dtypes.bfloat16
    FP32 = "FP32", "<f4"
    FP64 = "FP64", "<f8"
    BYTES = "BYTES"

    def __new__(cls, name: str, element: npt.DTypeLike = object) -> Self:
        """Return the member whose value is ``name``."""
        made = str.__new__(cls, name)
        made._value_ = name
        made.dtype = np.dtype(element)
        return made

    __hash__ = str.__hash__

    @classmethod
    def named(cls, name: Json) -> Datatype | None:
        """Return the datatype that a wire calls ``name``, None where there is none such."""
        return _NAMED.get(name) if isinstance(name, str) else None

    @classmethod
    def of(cls, data: npt.NDArray[np.generic]) -> Datatype:
        """Return the wire's name for an array's element type; text and objects are BYTES."""
        return _DATATYPES.get(data.dtype, cls.BYTES)


_NAMED = {str(datatype): datatype for datatype in Datatype}
_DATATYPES = {datatype.dtype: datatype for datatype in Datatype}
