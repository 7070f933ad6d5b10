"""What is true of each model that a service holds beside others. Total: whatever anybody says, there is a status.

Source: KServe pkg/controller/v1alpha1/trainedmodel/controller.go, trainedmodel_status.go: its conditions; ``ModelLoaded``
is ours, for KServe's agent tells nobody what became of a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from servery_sdk.lenient import conditions, mapping, number, text
from servery_sdk.manifests import Manifest
from servery_sdk.model import (
    Condition,
    ConditionStatus,
    Held,
    HeldReport,
    HeldStatus,
    ModelState,
    Protocol,
    ServiceStatus,
    TurnedAway,
    Workload,
)

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_CHECKS = ("FrameworkSupported", "MemoryResourceAvailable")
_LOADED = "ModelLoaded"


def observe_held(
    manifest: Manifest,
    workload: Workload | None,
    service: ServiceStatus | None,
    reports: Mapping[str, Sequence[HeldReport]],
    *,
    now: str,
) -> HeldStatus:
    """Return the status of the model that ``manifest`` describes.

    Args:
        workload: Of the predictor that it names; None where there is no such service, or no plan for it.
        service: That service's status.
        reports: What its pods say, by model; empty where no pod tells anything.
        now: RFC 3339; only conditions whose status moved carry it.
    """
    metadata = mapping(manifest, "metadata")
    name = text(metadata, "name")
    held = workload.held if workload is not None else None
    found = [_service_ready(manifest, service), _is_holding(workload, held)]
    if held is not None:
        found += _checks(name, held)
        found.append(_loaded(manifest, name, held, reports))
    is_loaded = all(condition.status is TRUE for condition in found)
    before = conditions(mapping(manifest, "status"))
    dated = tuple(_dated(condition, before.get(condition.type, {}), now) for condition in (*found, _ready(found)))
    path = _path(name, workload)
    return HeldStatus(
        observed_generation=number(metadata, "generation"),
        conditions=dated,
        url=f"{service.url}{path}" if is_loaded and service is not None and service.url else None,
        address=f"{service.address}{path}" if is_loaded and service is not None and service.address else None,
    )


def _service_ready(manifest: Manifest, service: ServiceStatus | None) -> Condition:
    kind = "InferenceServiceReady"
    if service is None:
        name = text(mapping(manifest, "spec"), "inferenceService")
        message = f"spec.inferenceService: {name!r} is not there"
        return Condition(type=kind, status=FALSE, reason="InferenceServiceMissing", message=message)
    ready = next((one for one in service.conditions if one.type == "Ready"), None)
    if ready is not None and ready.status is TRUE:
        return Condition(type=kind, status=TRUE)
    message = ready.message if ready is not None else ""
    return Condition(type=kind, status=FALSE, reason="InferenceServiceNotReady", message=message)


def _is_holding(workload: Workload | None, held: Held | None) -> Condition:
    kind = "IsMMSPredictor"
    if held is not None:
        return Condition(type=kind, status=TRUE)
    if workload is None:
        return Condition(type=kind, status=UNKNOWN, reason="PredictorUnknown")
    message = "the predictor has a model of its own; one that is to hold others has neither storageUri nor storage"
    return Condition(type=kind, status=FALSE, reason="IsNotMMSPredictor", message=message)


def _checks(name: str, held: Held) -> Iterator[Condition]:
    away = _turned_away(name, held)
    for kind in dict.fromkeys((*_CHECKS, *((away.condition,) if away is not None else ()))):
        if away is not None and away.condition == kind:
            yield Condition(type=kind, status=FALSE, reason=away.reason, message=away.message)
        else:
            yield Condition(type=kind, status=TRUE)


def _turned_away(name: str, held: Held) -> TurnedAway | None:
    return next((away for away in held.turned_away if away.model.ref.name == name), None)


def _loaded(manifest: Manifest, name: str, held: Held, reports: Mapping[str, Sequence[HeldReport]]) -> Condition:
    if _turned_away(name, held) is not None:
        return Condition(type=_LOADED, status=FALSE, reason="NotAssigned", message="see the condition that it fails")
    wanted = text(mapping(mapping(manifest, "spec"), "model"), "storageUri")
    said = [report for report in reports.get(name, ()) if report.uri == wanted]
    if not said:
        # Where agents do not know the controller, nobody ever tells.
        severity = "" if reports else "Info"
        return Condition(type=_LOADED, status=UNKNOWN, reason="NotReported", severity=severity)
    failed = next((report for report in said if report.state is ModelState.FAILED_TO_LOAD), None)
    if failed is not None:
        message = f"pod {failed.pod}: {failed.reason}"
        return Condition(type=_LOADED, status=FALSE, reason="ModelLoadFailed", message=message)
    waiting = next((report for report in said if report.state is not ModelState.LOADED), None)
    if waiting is not None:
        message = f"pod {waiting.pod}" + (f": {waiting.reason}" if waiting.reason else "")
        return Condition(type=_LOADED, status=UNKNOWN, reason=str(waiting.state), message=message)
    return Condition(type=_LOADED, status=TRUE)


def _ready(found: Sequence[Condition]) -> Condition:
    counted = [condition for condition in found if not condition.severity]
    first = next((one for one in counted if one.status is FALSE), None)
    first = first or next((one for one in counted if one.status is UNKNOWN), None)
    return Condition(type="Ready", status=TRUE) if first is None else replace(first, type="Ready")


def _dated(condition: Condition, before: Manifest, now: str) -> Condition:
    moved = before.get("status") != condition.status
    return replace(condition, last_transition_time=now if moved else text(before, "lastTransitionTime") or now)


def _path(name: str, workload: Workload | None) -> str:
    """Return where the model is asked. Source: KServe pkg/constants, PredictPath."""
    protocol = workload.selection.protocol if workload is not None and workload.selection is not None else None
    return f"/v2/models/{name}/infer" if protocol in {Protocol.V2, Protocol.GRPC_V2} else f"/v1/models/{name}:predict"
