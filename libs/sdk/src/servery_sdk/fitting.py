"""Tensors of a request as a graph's declared inputs take them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from servery_sdk.protocol import Datatype, Tensor
from servery_sdk.serving import InputError

Array = npt.NDArray[np.generic]


def fitted(tensor: Tensor, *, datatype: Datatype, shape: Sequence[int | str | None] | None) -> Array:
    """Return a tensor's data in the element type that a graph declares; BYTES as they are.

    Args:
        tensor: Of the request.
        datatype: Declared.
        shape: Declared: lengths, and names or None for those that are free; None for any shape.

    Raises:
        InputError: A length differs, or the type cannot hold what was sent.
    """
    data = tensor.data
    if shape is not None and (
        data.ndim != len(shape)
        or any(isinstance(want, int) and want != have for want, have in zip(shape, data.shape, strict=True))
    ):
        lengths = ", ".join("any" if length is None else str(length) for length in shape)
        raise InputError(f"input {tensor.name!r} has shape {list(data.shape)}; the graph takes [{lengths}]")
    wanted = datatype.dtype
    if data.dtype == wanted:
        return data
    sent = f"input {tensor.name!r} of shape {list(data.shape)} is {tensor.datatype}"
    if Datatype.BYTES in (tensor.datatype, datatype):
        raise InputError(f"{sent}; the graph takes {datatype}")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = data.astype(wanted)
    if wanted.kind in "biu" and not np.array_equal(converted, data):
        raise InputError(f"{sent} and holds what {datatype}, which the graph takes, cannot")
    return converted
