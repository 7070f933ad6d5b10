"""Files in requests: what a BYTES element holds, whichever way the client spelled it."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from servery_sdk.protocol import Datatype, InferRequest, Tensor
from servery_sdk.serving import InputError


def input_of(request: InferRequest, *names: str) -> dict[str, Tensor]:
    """Return a request's inputs by the first of ``names`` and the others; a single input may have any name.

    Raises:
        InputError: There are others.
    """
    found = {tensor.name: tensor for tensor in request.inputs}
    if len(names) == 1 and len(found) == 1:
        return {names[0]: request.inputs[0]}
    if set(found) != set(names):
        described = ", ".join(f"{name!r} {list(tensor.data.shape)}" for name, tensor in found.items())
        raise InputError(f"the model takes {' and '.join(map(repr, names))}, a row each; found {described}")
    return found


def elements_of(tensor: Tensor, what: str) -> list[bytes] | None:
    """Return the files in ``tensor``, a row each; None where it holds numbers.

    Raises:
        InputError: BYTES of more than one a row; says that ``what`` was wanted.
    """
    if tensor.datatype is not Datatype.BYTES:
        return None
    shape = list(tensor.data.shape)
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise InputError(f"input {tensor.name!r} is BYTES {shape}; the model takes one {what} a row: BYTES [rows]")
    return [_file(tensor.name, row, element) for row, element in enumerate(tensor.data.ravel())]


def _file(name: str, row: int, element: Any) -> bytes:
    """Return the bytes of a file that is given as itself, in base64, or as a ``data:`` URL."""
    given = element if isinstance(element, bytes) else str(element).encode()
    if given.startswith((b"http://", b"https://")):
        # A server that fetches what strangers name is a door into its network.
        raise InputError(
            f"input {name!r} row {row}: addresses are not fetched; send the file, in base64 where it is JSON"
        )
    if given.startswith(b"data:"):
        given = given.partition(b",")[2]
    if not given.isascii():
        return given
    try:
        return base64.b64decode(b"".join(given.split()), validate=True)
    except binascii.Error:
        return given
