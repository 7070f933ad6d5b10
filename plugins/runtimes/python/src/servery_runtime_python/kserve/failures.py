"""What a model of KServe's raises, as an answer.

Source: KServe python/kserve/kserve/errors.py and protocol/grpc/interceptors.py.
"""

from __future__ import annotations

import logging

import grpc
import httpx
import orjson
from kserve import errors
from servery_sdk.documents import Reply
from servery_sdk.errors import ErrorCode, ServeryError
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)

_CODES: tuple[tuple[type[BaseException], ErrorCode], ...] = (
    (errors.InvalidInput, ErrorCode.INVALID_ARGUMENT),
    (errors.ModelNotFound, ErrorCode.NOT_FOUND),
    (errors.ModelNotReady, ErrorCode.NOT_READY),
    (errors.ServerNotReady, ErrorCode.NOT_READY),
    (errors.ServerNotLive, ErrorCode.NOT_READY),
    (NotImplementedError, ErrorCode.UNIMPLEMENTED),
    (errors.UnsupportedProtocol, ErrorCode.UNIMPLEMENTED),
    (errors.InferenceError, ErrorCode.INTERNAL),
    # Not KServe's, which answers 500 and loses what went wrong with the predictor.
    (httpx.TimeoutException, ErrorCode.DEADLINE_EXCEEDED),
    (httpx.TransportError, ErrorCode.UNAVAILABLE),
)

_RPC_CODES: tuple[tuple[type[BaseException], ErrorCode], ...] = (
    (errors.InferenceError, ErrorCode.INVALID_ARGUMENT),
    (errors.UnsupportedProtocol, ErrorCode.INVALID_ARGUMENT),
    *_CODES,
)

_OF_STATUS = {
    400: ErrorCode.INVALID_ARGUMENT,
    404: ErrorCode.NOT_FOUND,
    422: ErrorCode.INVALID_ARGUMENT,
    429: ErrorCode.RESOURCE_EXHAUSTED,
    501: ErrorCode.UNIMPLEMENTED,
    503: ErrorCode.UNAVAILABLE,
    504: ErrorCode.DEADLINE_EXCEEDED,
}
"""What a predictor's REST status is elsewhere; INTERNAL for all others."""

_OF_RPC = {
    grpc.StatusCode.INVALID_ARGUMENT: ErrorCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND: ErrorCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED: ErrorCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE: ErrorCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.DEADLINE_EXCEEDED,
}
"""What a predictor's gRPC status is elsewhere; INTERNAL for all others."""


def reply(error: BaseException, *, is_rpc: bool) -> Reply:
    """Return the answer of REST that has a status of its own; all others are raised.

    Args:
        error: That the model raised.
        is_rpc: Asked over gRPC.

    Raises:
        ServeryError: With the code whose status KServe answers; the words are KServe's as well.
    """
    if isinstance(error, HTTPException) and not is_rpc:
        return Reply(
            body=orjson.dumps({"detail": error.detail}), status=error.status_code, headers=dict(error.headers or {})
        )
    if isinstance(error, httpx.HTTPStatusError) and not is_rpc:
        return Reply(body=orjson.dumps({"error": str(error)}), status=error.response.status_code)
    raise _failure(error, is_rpc=is_rpc) from error


def _failure(error: BaseException, *, is_rpc: bool) -> ServeryError:
    for kind, code in _RPC_CODES if is_rpc else _CODES:
        if isinstance(error, kind):
            return ServeryError(str(error), code=code)
    if isinstance(error, httpx.HTTPStatusError):
        return ServeryError(str(error), code=_OF_STATUS.get(error.response.status_code, ErrorCode.INTERNAL))
    if isinstance(error, grpc.aio.AioRpcError):
        return ServeryError(error.details() or str(error.code()), code=_OF_RPC.get(error.code(), ErrorCode.INTERNAL))
    logger.error("model failed", exc_info=error)
    return ServeryError(f"{type(error).__name__} : {error}", code=ErrorCode.INTERNAL)
