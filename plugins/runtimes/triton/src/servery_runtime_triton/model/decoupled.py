"""Any number of responses to one request, as the one answer that a unary call has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from servery_sdk.errors import ErrorCode
from servery_sdk.protocol import InferRequest, InferResponse, Tensor

from servery_runtime_triton.model.failures import ModelError


def collected(
    request: InferRequest, responses: Sequence[InferResponse], *, version: str | None
) -> InferResponse | ModelError:
    """Return the responses behind one another along axis 0, or why they cannot be."""
    match responses:
        case []:
            return InferResponse(model=request.model, outputs=(), version=version)
        case [response]:
            return response
        case [first, *_]:
            try:
                outputs = tuple(map(_behind_one_another, zip(*(part.outputs for part in responses), strict=True)))
            except ValueError as error:
                return ModelError(
                    f"model {request.model!r} gave {len(responses)} responses that cannot be one: {error}",
                    code=ErrorCode.UNIMPLEMENTED,
                )
            return InferResponse(model=first.model, outputs=outputs, version=first.version)
    raise AssertionError(responses)


def _behind_one_another(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if len({(tensor.name, tensor.datatype) for tensor in tensors}) > 1:
        raise ValueError(f"outputs differ: {sorted({f'{tensor.name} {tensor.datatype}' for tensor in tensors})}")
    # A response without axes is one element of the answer.
    data = np.concatenate([np.atleast_1d(tensor.data) for tensor in tensors])
    return Tensor(name=first.name, data=data, datatype=first.datatype)
