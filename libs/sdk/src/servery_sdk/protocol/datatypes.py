"""The Open Inference Protocol's element types and their numpy types."""

from __future__ import annotations

import enum

import ml_dtypes
import numpy as np
import numpy.typing as npt

from servery_sdk.manifests import Json


class Datatype(enum.StrEnum):
    """Element types on the wire.

    Source: Open Inference Protocol v2, "Tensor Data Types"; BF16 from Triton's binary extension.
    """

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    BF16 = "BF16"
    FP32 = "FP32"
    FP64 = "FP64"
    BYTES = "BYTES"

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The numpy type, little-endian as the wire has it; object for BYTES."""
        return _DTYPES[self]

    @classmethod
    def named(cls, name: Json) -> Datatype | None:
        """Return the datatype that a wire calls ``name``, None where there is none such."""
        return _NAMED.get(name) if isinstance(name, str) else None

    @classmethod
    def of(cls, data: npt.NDArray[np.generic]) -> Datatype:
        """Return the wire's name for an array's element type; text and objects are BYTES."""
        return _DATATYPES.get(data.dtype, cls.BYTES)


_DTYPES: dict[Datatype, np.dtype[np.generic]] = {
    Datatype.BOOL: np.dtype("bool"),
    Datatype.UINT8: np.dtype("<u1"),
    Datatype.UINT16: np.dtype("<u2"),
    Datatype.UINT32: np.dtype("<u4"),
    Datatype.UINT64: np.dtype("<u8"),
    Datatype.INT8: np.dtype("<i1"),
    Datatype.INT16: np.dtype("<i2"),
    Datatype.INT32: np.dtype("<i4"),
    Datatype.INT64: np.dtype("<i8"),
    Datatype.FP16: np.dtype("<f2"),
    Datatype.BF16: np.dtype(ml_dtypes.bfloat16),
    Datatype.FP32: np.dtype("<f4"),
    Datatype.FP64: np.dtype("<f8"),
    Datatype.BYTES: np.dtype(object),
}
_NAMED = {str(datatype): datatype for datatype in Datatype}
_DATATYPES = {dtype: datatype for datatype, dtype in _DTYPES.items()}
