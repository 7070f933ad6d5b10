"""Texts in requests of v1, v2 and gRPC, and how they are to be continued. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servery_sdk.language import Sampling
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, Tensor
from servery_sdk.serving import InputError

PREDICTED_TOKENS = 16
"""Of a text where a request does not say, as of OpenAI's completions."""


def texts_of(request: InferRequest, *names: str) -> list[list[str]]:
    """Return the texts of a request's inputs, by ``names`` where there are several.

    Raises:
        InputError: Others, or not texts, a row each.
    """
    found = {tensor.name: tensor for tensor in request.inputs}
    if len(names) == 1 and len(found) == 1:
        # One text is one text, whatever its name.
        return [text_column(request.inputs[0])]
    if set(found) != set(names):
        described = ", ".join(f"{name!r} {list(tensor.data.shape)}" for name, tensor in found.items())
        raise InputError(f"the model takes {' and '.join(map(repr, names))}, texts, a row each; found {described}")
    return [text_column(found[name]) for name in names]


def text_column(tensor: Tensor) -> list[str]:
    """Return the texts of one input, a row each; InputError where it is none of texts."""
    shape = list(tensor.data.shape)
    if tensor.datatype is not Datatype.BYTES or len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise InputError(f"input {tensor.name!r} is {tensor.datatype} {shape}; the model takes texts, BYTES [rows]")
    try:
        return [element.decode() if isinstance(element, bytes) else str(element) for element in tensor.data.ravel()]
    except UnicodeDecodeError as error:
        raise InputError(f"input {tensor.name!r} {shape}: not UTF-8: {error}") from error


_PARAMETERS: Mapping[str, tuple[type[Any] | tuple[type[Any], ...], float, float]] = {
    "max_tokens": (int, 1, float("inf")),
    "temperature": ((int, float), 0, 2),
    "top_p": ((int, float), 1e-9, 1),
    "seed": (int, -(2**63), 2**63 - 1),
}


def sampling_of(parameters: Mapping[str, Json]) -> Sampling:
    """Return the sampling that a request's parameters say; the likeliest tokens where they say nothing.

    Raises:
        InputError: One is out of bounds.
    """
    given = {name: parameters[name] for name in _PARAMETERS if name in parameters}
    for name, value in given.items():
        kind, least, most = _PARAMETERS[name]
        if not isinstance(value, kind) or isinstance(value, bool) or not least <= value <= most:
            raise InputError(f"parameter {name!r}: must be a number from {least} to {most}, found {value!r}")
    return Sampling(**{"max_tokens": PREDICTED_TOKENS, "temperature": 0.0, **given})
