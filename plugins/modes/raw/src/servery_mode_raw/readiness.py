"""What a Deployment or a LeaderWorkerSet says of itself."""

from __future__ import annotations

from servery_sdk.lenient import conditions, is_current, mapping, text
from servery_sdk.manifests import Kind, Manifest
from servery_sdk.model import ConditionStatus, Readiness

_BAD = (("ReplicaFailure", "True"), ("Progressing", "False"), ("Available", "False"))


def of(kind: Kind, found: Manifest | None) -> Readiness:
    """Return the readiness that ``Available`` says, or the first condition that says why not.

    Source: KServe PropagateRawStatus.
    """
    if found is None:
        return Readiness(
            status=ConditionStatus.UNKNOWN, reason=f"{kind.kind}Missing", message=f"the {kind.kind} is not there yet"
        )
    # What was said of an earlier spec is not said of this one.
    said = conditions(mapping(found, "status")) if _speaks_of_now(kind, found) else {}
    if said.get("Available", {}).get("status") == "True":
        return Readiness(status=ConditionStatus.TRUE)
    for name, bad in _BAD:
        condition = said.get(name, {})
        # A LeaderWorkerSet is not available while it progresses; that is no failure.
        if condition.get("status") == bad and not (name == "Available" and _progresses(kind, said)):
            reason = text(condition, "reason") or name
            return Readiness(status=ConditionStatus.FALSE, reason=reason, message=text(condition, "message"))
    return Readiness(status=ConditionStatus.UNKNOWN, reason="Progressing", message="waiting for the pods")


def _speaks_of_now(kind: Kind, found: Manifest) -> bool:
    # LeaderWorkerSets date their conditions instead.
    return kind.kind != "Deployment" or is_current(found)


def _progresses(kind: Kind, said: dict[str, Manifest]) -> bool:
    return kind.kind != "Deployment" and said.get("Progressing", {}).get("status") == "True"
