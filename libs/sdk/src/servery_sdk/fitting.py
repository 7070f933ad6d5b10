"""Tensors of a request as a model's declared inputs take them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from servery_sdk.protocol import Datatype, Tensor
from servery_sdk.serving import InputError

Array = npt.NDArray[np.generic]


def named(tensors: Sequence[Tensor], names: Sequence[str], *, owner: str) -> Sequence[Tensor]:
    """Return the tensors in the order of ``names``. One alone needs no name: v1 knows none, and it leaves no doubt.

    Raises:
        InputError: Their names are others than those of ``owner``.
    """
    if len(tensors) == len(names) == 1:
        return tensors
    given = {tensor.name: tensor for tensor in tensors}
    if given.keys() != set(names):
        shapes = {name: list(tensor.data.shape) for name, tensor in given.items()}
        raise InputError(f"inputs {shapes} are not those of {owner}: {sorted(names)}")
    return [given[name] for name in names]


def cast(tensor: Tensor, datatype: Datatype, *, owner: str) -> Array:
    """Return a tensor's data as ``datatype``, which ``owner`` takes; BYTES as they are.

    Args:
        owner: As messages call it: ``the graph``.

    Raises:
        InputError: The type cannot hold what was sent: texts for numbers, 1.5 for an integer.
    """
    data, wanted = tensor.data, datatype.dtype
    if data.dtype == wanted:
        return data
    sent = f"input {tensor.name!r} of shape {list(data.shape)} is {tensor.datatype}"
    if Datatype.BYTES in (tensor.datatype, datatype):
        raise InputError(f"{sent}; {owner} takes {datatype}")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = data.astype(wanted)
    if wanted.kind in "biu" and not np.array_equal(converted, data):
        raise InputError(f"{sent} and holds what {datatype}, which {owner} takes, cannot")
    return converted


def fitted(tensor: Tensor, datatype: Datatype, shape: Sequence[int | str | None] | None, *, owner: str) -> Array:
    """Return a tensor's data in the element type that ``owner`` declares; BYTES as they are.

    Args:
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
        raise InputError(f"input {tensor.name!r} has shape {list(data.shape)}; {owner} takes [{lengths}]")
    return cast(tensor, datatype, owner=owner)
