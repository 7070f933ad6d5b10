"""One table from error codes to each wire."""

from __future__ import annotations

import grpc
from servery_http.front import error as error_response
from servery_http.messages import Headers, Response
from servery_sdk.errors import ErrorCode, ServeryError, Transient

HTTP = {
    ErrorCode.INVALID_ARGUMENT: 400,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.NOT_READY: 503,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.RESOURCE_EXHAUSTED: 429,
    ErrorCode.DEADLINE_EXCEEDED: 504,
    ErrorCode.UNIMPLEMENTED: 501,
    ErrorCode.INTERNAL: 500,
}

GRPC = {
    ErrorCode.INVALID_ARGUMENT: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorCode.NOT_READY: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.RESOURCE_EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.DEADLINE_EXCEEDED: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.UNIMPLEMENTED: grpc.StatusCode.UNIMPLEMENTED,
    ErrorCode.INTERNAL: grpc.StatusCode.INTERNAL,
}


class UnknownModel(ServeryError):
    """No model of that name or version is here."""

    code = ErrorCode.NOT_FOUND


class ModelNotReady(ServeryError):
    """The model is here but cannot answer now."""

    code = ErrorCode.NOT_READY


class QueueFull(Transient):
    """More requests wait than the server keeps."""

    code = ErrorCode.RESOURCE_EXHAUSTED


class TooLate(ServeryError):
    """The model did not answer in time."""

    code = ErrorCode.DEADLINE_EXCEEDED


class ModelFailed(ServeryError):
    """The model raised something that is not the caller's fault."""

    code = ErrorCode.INTERNAL


def response(failure: ServeryError) -> Response:
    """Return the REST answer of a failure."""
    answer = error_response(HTTP[failure.code], str(failure))
    answer.headers = _retry_after(failure)
    return answer


def _retry_after(failure: ServeryError) -> Headers:
    if isinstance(failure, Transient) and failure.retry_after_seconds is not None:
        return ((b"retry-after", b"%d" % max(1, round(failure.retry_after_seconds))),)
    return ()
