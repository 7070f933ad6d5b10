"""Many requests as one, and their answers apart again."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from servery_sdk.protocol.errors import RequestError
from servery_sdk.protocol.tensors import InferRequest, InferResponse, Tensor


class ShapeMismatch(RequestError):
    """Requests that cannot be one, or a response that cannot be taken apart."""


@dataclass(frozen=True, slots=True)
class Merged:
    """One request for many; rows ``offsets[i]`` to ``offsets[i + 1]`` are request i's."""

    request: InferRequest
    offsets: tuple[int, ...]


def rows(request: InferRequest) -> int | None:
    """Return the rows of ``request``, or None where its inputs have no common batch axis."""
    if len(request.inputs) == 1:
        # What most have.
        shape = request.inputs[0].data.shape
        return shape[0] if shape else None
    first: int | None = None
    for tensor in request.inputs:
        shape = tensor.data.shape
        if not shape or (first is not None and shape[0] != first):
            return None
        first = shape[0]
    return first


def key(request: InferRequest) -> Hashable:
    """Return what requests must have equal to be merged; None where one stands alone: its inputs have no common rows."""
    return None if rows(request) is None else likeness(request)


def likeness(request: InferRequest) -> Hashable:
    """Return what requests with rows must have equal to be merged: model, version, outputs, parameters, and each input's
    name, datatype, item shape and parameters.
    """
    if request.likeness is not None:
        return request.likeness
    return (
        request.model,
        request.version,
        request.outputs,
        repr(request.parameters) if request.parameters else "",
        *[
            (
                tensor.name,
                tensor.datatype,
                tensor.data.shape[1:],
                repr(tensor.parameters) if tensor.parameters else "",
            )
            for tensor in request.inputs
        ],
    )


def merge(requests: Sequence[InferRequest], *, max_batch_rows: int) -> Merged:
    """Concatenate requests along their batch axis, first-come first-served.

    Args:
        requests: Non-empty, with equal ``key``. Input k of request i is ``[b_i, *item_k]``.
        max_batch_rows: Upper bound on ``sum(b_i)`` (rows, not requests); one request alone may exceed it.

    Returns:
        Inputs ``[sum(b_i), *item_k]`` and ``offsets [n + 1]``; ``split`` restores the order.

    Raises:
        ShapeMismatch: Keys differ, or there are too many rows. Names both requests' ids and shapes.

    Source: Open Inference Protocol v2, "Tensor Data"; KServe pkg/batcher/handler.go (whole-request batches, kept).
    """
    first = requests[0]
    wanted = key(first)
    for request in requests:
        if wanted is None or key(request) != wanted:
            raise ShapeMismatch(
                f"requests {first.id!r} {_shapes(first)} and {request.id!r} {_shapes(request)} cannot be merged"
            )
    merged = merged_alike(requests)
    if len(requests) > 1 and merged.offsets[-1] > max_batch_rows:
        raise ShapeMismatch(f"{len(requests)} requests have {merged.offsets[-1]} rows, more than {max_batch_rows}")
    return merged


def merged_alike(requests: Sequence[InferRequest]) -> Merged:
    """Do what ``merge`` does for requests whose keys the caller has found to be equal, and not None."""
    first = requests[0]
    offsets = tuple(itertools.accumulate([len(request.inputs[0].data) for request in requests], initial=0))
    if len(requests) == 1:
        return Merged(first, offsets)
    inputs = tuple(
        [
            Tensor(
                tensor.name,
                np.concatenate([request.inputs[index].data for request in requests]),
                tensor.datatype,
                tensor.parameters,
            )
            for index, tensor in enumerate(first.inputs)
        ]
    )
    whole = InferRequest(first.model, inputs, first.version, None, first.outputs, first.parameters)
    return Merged(whole, offsets)


def split(response: InferResponse, offsets: Sequence[int]) -> tuple[InferResponse, ...]:
    """Take a merged response apart; ids are the callers' to set.

    Raises:
        ShapeMismatch: An output does not have a row per row of the inputs.
    """
    total = offsets[-1]
    for output in response.outputs:
        if not output.data.ndim or output.data.shape[0] != total:
            raise ShapeMismatch(
                f"output {output.name!r} has shape {list(output.data.shape)}, but {total} rows went in; "
                "a model whose outputs have no row per row of input sets batchable = False"
            )
    model, version, id_, parameters = response.model, response.version, response.id, response.parameters
    columns = [
        [
            Tensor(output.name, output.data[start:stop], output.datatype, output.parameters)
            for start, stop in itertools.pairwise(offsets)
        ]
        for output in response.outputs
    ]
    return tuple(
        [
            InferResponse(model, outputs, version, id_, parameters, response.rows_are_objects)
            for outputs in (zip(*columns, strict=True) if columns else itertools.repeat((), len(offsets) - 1))
        ]
    )


def _shapes(request: InferRequest) -> str:
    return str({tensor.name: list(tensor.data.shape) for tensor in request.inputs})
