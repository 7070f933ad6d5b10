"""What a model of a repository may fail with while it answers."""

from __future__ import annotations

from servery_sdk.errors import ErrorCode, ServeryError


class ModelError(ServeryError):
    """The model said no, or cannot be called; carries the code that it said."""


class ModelGone(ServeryError):
    """A model that another one calls is not loaded."""

    code = ErrorCode.UNAVAILABLE
