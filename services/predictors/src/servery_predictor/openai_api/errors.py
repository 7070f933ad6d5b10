"""OpenAI's error body, and its word for each code.

Source: OpenAI API reference, "Error codes"; the ``type`` and ``code`` of its published client.
"""

from __future__ import annotations

from typing import Any

import orjson
from servery_http.messages import Response
from servery_sdk.errors import ErrorCode, ServeryError

from servery_predictor import errors

_TYPES = {
    ErrorCode.INVALID_ARGUMENT: "invalid_request_error",
    ErrorCode.NOT_FOUND: "invalid_request_error",
    ErrorCode.NOT_READY: "service_unavailable_error",
    ErrorCode.UNAVAILABLE: "service_unavailable_error",
    ErrorCode.RESOURCE_EXHAUSTED: "rate_limit_error",
    ErrorCode.DEADLINE_EXCEEDED: "timeout_error",
    ErrorCode.UNIMPLEMENTED: "invalid_request_error",
    ErrorCode.INTERNAL: "server_error",
}
_CODES = {ErrorCode.NOT_FOUND: "model_not_found"}


class Refused(ServeryError):
    """A body says what cannot be.

    Attributes:
        param: The field, where it is one.
    """

    code = ErrorCode.INVALID_ARGUMENT

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def body(failure: ServeryError) -> dict[str, Any]:
    """Return OpenAI's form of a failure."""
    return {
        "error": {
            "message": str(failure),
            "type": _TYPES[failure.code],
            "param": failure.param if isinstance(failure, Refused) else None,
            "code": _CODES.get(failure.code),
        }
    }


def response(failure: ServeryError) -> Response:
    """Return the answer of a failure, with its status and ``Retry-After``."""
    answer = errors.response(failure)
    answer.body = orjson.dumps(body(failure))
    return answer
