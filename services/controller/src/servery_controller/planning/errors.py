"""Why there is no plan."""

from __future__ import annotations

from collections.abc import Sequence

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import Rejection


class NoPlan(ServeryError):
    """The service cannot be deployed as things stand; ``reason`` is KServe's failure reason."""

    code = ErrorCode.NOT_FOUND
    reason = "InvalidPredictorSpec"


class NoRuntime(NoPlan):
    """No runtime can serve the model."""

    reason = "NoSupportingRuntime"

    def __init__(self, message: str, rejected: Sequence[Rejection] = (), *, reason: str | None = None) -> None:
        self.rejected = tuple(rejected)
        if reason is not None:
            self.reason = reason
        listed = ", ".join(map(str, self.rejected))
        super().__init__(f"{message}; rejected: {listed}" if listed else message)
