"""Why there is no plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import Capability, Rejection


class NoPlan(ServeryError):
    """The service cannot be deployed as things stand; ``reason`` is KServe's failure reason."""

    code = ErrorCode.NOT_FOUND
    reason = "InvalidPredictorSpec"


class EngineMissing(NoPlan):
    """The cluster does not have what the mode renders objects for."""

    reason = "EngineMissing"

    def __init__(self, mode: str, missing: str) -> None:
        super().__init__(
            f"mode {mode!r} needs {missing}: this cluster does not serve its kinds, or the controller may not use "
            "them; install it, or choose another mode for the service"
        )


def products(missing: Iterable[Capability]) -> str:
    """Return what to install for capabilities, in words."""
    return " and ".join(capability.product for capability in sorted(missing))


class NoRuntime(NoPlan):
    """No runtime can serve the model."""

    reason = "NoSupportingRuntime"

    def __init__(self, message: str, rejected: Sequence[Rejection] = (), *, reason: str | None = None) -> None:
        self.rejected = tuple(rejected)
        if reason is not None:
            self.reason = reason
        listed = ", ".join(map(str, self.rejected))
        super().__init__(f"{message}; rejected: {listed}" if listed else message)
