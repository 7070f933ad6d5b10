"""Parts of a status that dialects write in the same words."""

from __future__ import annotations

from servery_sdk.manifests import Json
from servery_sdk.model import Condition, Failure


def condition(found: Condition) -> dict[str, Json]:
    """Return a condition as Kubernetes' tools read it.

    Source: ``metav1.Condition``, and Knative's ``severity``.
    """
    written = {
        "type": found.type,
        "status": str(found.status),
        "reason": found.reason,
        "message": found.message,
        "severity": found.severity,
        "lastTransitionTime": found.last_transition_time,
    }
    return {key: value for key, value in written.items() if value}


def failure(found: Failure) -> dict[str, Json]:
    """Return why a model does not serve, as KServe and its kin have it in ``modelStatus.lastFailureInfo``."""
    written: dict[str, Json] = {
        "reason": found.reason,
        "message": found.message,
        "location": found.location,
        "time": found.time,
        "exitCode": found.exit_code,
    }
    return {key: value for key, value in written.items() if value not in ("", None)}
