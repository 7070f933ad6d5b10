"""What is worth an event: a service that became ready, or stopped being so, or cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from servery_sdk.manifests import Manifest
from servery_sdk.model import ConditionStatus, DeploymentPlan, Event, ServiceStatus

from servery_controller.planning.fetches import slowest

NORMAL, WARNING = "Normal", "Warning"
_STARTING = frozenset({"MinimumReplicasUnavailable", "PredictorNotReady"})
"""Reasons of a service that is on its way; only one that was ready has lost something by them."""


def events(
    name: str, status: ServiceStatus, plan: DeploymentPlan | None, previous: Manifest, pods: Sequence[Manifest] = ()
) -> Iterator[Event]:
    """Yield what happened between ``previous``, the status as written last, and ``status``, to which ``pods`` have led.

    Source: KServe's reasons InferenceServiceReady and InferenceServiceNotReady.
    """
    found = previous.get("conditions") if isinstance(previous, Mapping) else None
    before = {c.get("type"): c for c in found or () if isinstance(c, Mapping)}
    if plan is not None and not before:
        for workload in plan.workloads:
            if workload.selection is not None:
                yield Event(type=NORMAL, reason="RuntimeSelected", message=workload.selection.reason)
    ready = next(condition for condition in status.conditions if condition.type == "Ready")
    old = before.get("Ready", {})
    was_ready = old.get("status") == "True"
    if (old.get("status"), old.get("reason", "")) == (ready.status, ready.reason):
        return
    if ready.status is ConditionStatus.TRUE:
        if (found := slowest(pods)) is not None:
            yield Event(type=NORMAL, reason="ModelFetched", message=found.words)
        yield Event(type=NORMAL, reason="InferenceServiceReady", message=f"InferenceService [{name}] is Ready")
    elif ready.status is ConditionStatus.FALSE and ready.reason == "Stopped":
        yield Event(type=NORMAL, reason="Stopped", message=ready.message)
    elif was_ready:
        message = f"InferenceService [{name}] is no longer Ready because of: {ready.reason}: {ready.message}"
        yield Event(type=WARNING, reason="InferenceServiceNotReady", message=message)
    elif ready.status is ConditionStatus.FALSE and ready.reason not in _STARTING:
        yield Event(type=WARNING, reason=ready.reason, message=ready.message)
