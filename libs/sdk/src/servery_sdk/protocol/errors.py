"""The one error of every codec."""

from __future__ import annotations

from servery_sdk.errors import ErrorCode, ServeryError


class RequestError(ServeryError):
    """The bytes are not a request that the protocol allows. Names the input, what was found and what to send."""

    code = ErrorCode.INVALID_ARGUMENT
