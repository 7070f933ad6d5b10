"""From what is there to what is true of the service. Total: whatever the cluster says, there is a status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from servery_sdk.kinds import DEPLOYMENT, HTTP_ROUTE
from servery_sdk.manifests import Manifest
from servery_sdk.model import (
    Capability,
    ComponentStatus,
    Condition,
    ConditionStatus,
    DeploymentPlan,
    Failure,
    ModelState,
    ModelStatus,
    Observed,
    RuntimeScope,
    ServiceStatus,
    TransitionStatus,
    Workload,
)

from servery_controller.planning.storage import INIT_CONTAINER

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_READY_DEPENDS_ON = ("PredictorReady", "IngressReady")
_ROUTE_NEEDS = ("Accepted", "ResolvedRefs")
_LOAD_FAILED = "ModelLoadFailed"
_IMAGE_REASONS = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_WAITING_FAILURES = _IMAGE_REASONS | {
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}


def observe(plan: DeploymentPlan, observed: Observed, *, now: str) -> ServiceStatus:
    """Return the status of a planned service.

    Args:
        plan: What was decided.
        observed: What the cluster answered; the order of its pods does not matter.
        now: RFC 3339; only conditions whose status moved carry it.
    """
    predictor = plan.workloads[0]
    pods = sorted((pod for pod in observed.pods if _is_active(pod, predictor)), key=_name)
    failures = [failure for pod in pods if (failure := _pod_failure(pod)) is not None]
    ready = _deployment_condition(plan, predictor, observed, failures)
    conditions = [ready, _ingress_condition(plan, observed, ready), _stopped_condition(plan)]
    selection = predictor.selection
    is_ready = ready.status is TRUE
    scope = selection.runtime.scope if selection else None
    return ServiceStatus(
        observed_generation=plan.generation,
        conditions=_with_ready(conditions, observed.previous, now),
        mode=plan.mode,
        url=plan.url if is_ready else None,
        address=plan.address if is_ready else None,
        components=(
            ComponentStatus(
                kind=predictor.kind,
                url=_component_url(plan, predictor) if is_ready else None,
                ready_replicas=sum(_is_ready(pod) for pod in pods),
            ),
        ),
        model=_model_status(pods, failures, is_ready=is_ready, now=now, previous=observed.previous),
        runtime=selection.runtime.name if selection else None,
        runtime_is_cluster_scoped=scope is not None and scope is not RuntimeScope.NAMESPACE,
    )


def refused(
    reason: str, message: str, *, generation: int, previous: Manifest, now: str, transition: TransitionStatus
) -> ServiceStatus:
    """Return the status of a service for which there is no plan."""
    failure = Failure(reason=reason, message=message, time=_failure_time(previous, message, now))
    condition = Condition(type="PredictorReady", status=FALSE, reason=reason, message=message)
    return ServiceStatus(
        observed_generation=generation,
        conditions=_with_ready([condition], previous, now),
        model=ModelStatus(transition=transition, target=ModelState.PENDING, failure=failure),
    )


def _with_ready(conditions: Sequence[Condition], previous: Manifest, now: str) -> tuple[Condition, ...]:
    by_type = {condition.type: condition for condition in conditions}
    dependents = [by_type[name] for name in _READY_DEPENDS_ON if name in by_type]
    # The first failing child's words are the parent's; one that is not known yet comes after all that failed.
    first = next((c for c in dependents if c.status is FALSE), None) or next(
        (c for c in dependents if c.status is UNKNOWN), None
    )
    ready = Condition(type="Ready", status=TRUE) if first is None else replace(first, type="Ready")
    before = _conditions(previous)
    return tuple(_dated(condition, before.get(condition.type, {}), now) for condition in (*conditions, ready))


def _dated(condition: Condition, before: Manifest, now: str) -> Condition:
    moved = before.get("status") != condition.status
    return replace(condition, last_transition_time=now if moved else _text(before, "lastTransitionTime") or now)


def _is_active(pod: Manifest, workload: Workload) -> bool:
    """Return whether a pod counts: what is leaving or has ended is being replaced, and its end is no failure."""
    metadata = _object(pod, "metadata")
    is_leaving = "deletionTimestamp" in metadata or _object(pod, "status").get("phase") in ("Failed", "Succeeded")
    labels = _object(metadata, "labels")
    return not is_leaving and all(labels.get(key) == value for key, value in workload.selector.items())


def _is_ready(pod: Manifest) -> bool:
    return _conditions(_object(pod, "status")).get("Ready", {}).get("status") == "True"


def _deployment_condition(
    plan: DeploymentPlan, workload: Workload, observed: Observed, failures: Sequence[Failure]
) -> Condition:
    name = f"{str(workload.kind).capitalize()}Ready"
    if plan.stopped:
        return Condition(type=name, status=FALSE, reason="Stopped", message="the service is stopped by its annotation")
    deployment = next(
        (o for ref, o in observed.objects.items() if ref.kind == DEPLOYMENT and ref.name == workload.name), None
    )
    if deployment is None:
        return Condition(
            type=name, status=UNKNOWN, reason="DeploymentMissing", message="the Deployment is not there yet"
        )
    status = _object(deployment, "status")
    is_current = _number(status, "observedGeneration") >= _number(_object(deployment, "metadata"), "generation")
    # What was said of an earlier spec is not said of this one.
    found = _conditions(status) if is_current else {}
    if found.get("Available", {}).get("status") == "True":
        return Condition(type=name, status=TRUE)
    if failures:
        return Condition(
            type=name,
            status=FALSE,
            reason=failures[0].reason,
            message=_with_place(failures[0]),
        )
    for kind, bad in (("ReplicaFailure", "True"), ("Progressing", "False"), ("Available", "False")):
        said = found.get(kind, {})
        if said.get("status") == bad:
            return Condition(
                type=name, status=FALSE, reason=_text(said, "reason") or kind, message=_text(said, "message")
            )
    return Condition(type=name, status=UNKNOWN, reason="Progressing", message="waiting for the pods")


def _with_place(failure: Failure) -> str:
    return f"{failure.location}: {failure.message}" if failure.location else failure.message


def _ingress_condition(plan: DeploymentPlan, observed: Observed, ready: Condition) -> Condition:
    name = "IngressReady"
    if plan.stopped:
        return Condition(type=name, status=FALSE, reason="Stopped", message="the service is stopped by its annotation")
    if ready.status is not TRUE:
        return Condition(
            type=name, status=ready.status, reason="PredictorNotReady", message="the predictor is not ready"
        )
    if Capability.GATEWAY_API in plan.capabilities:
        routes = {ref.name: o for ref, o in observed.objects.items() if ref.kind == HTTP_ROUTE}
        for route in plan.routes:
            if (refusal := _route_refusal(route.name, routes.get(route.name))) is not None:
                return replace(refusal, type=name)
    return Condition(type=name, status=TRUE)


def _route_refusal(name: str, route: Manifest | None) -> Condition | None:
    if route is None:
        return Condition(type="", status=UNKNOWN, reason="RouteMissing", message=f"HTTPRoute {name}: not there yet")
    parents = list(_objects(_object(route, "status"), "parents"))
    if not parents:
        message = f"HTTPRoute {name}: no Gateway has taken it yet; is the Gateway there?"
        return Condition(type="", status=UNKNOWN, reason="ParentStatusNotAvailable", message=message)
    for conditions in map(_conditions, parents):
        for need in _ROUTE_NEEDS:
            said = conditions.get(need)
            if said is not None and said.get("status") != "True":
                message = f"HTTPRoute {name}: {_text(said, 'message')}"
                return Condition(type="", status=FALSE, reason=_text(said, "reason") or f"Not{need}", message=message)
    return None


def _stopped_condition(plan: DeploymentPlan) -> Condition:
    return Condition(type="Stopped", status=TRUE if plan.stopped else FALSE, severity="Info")


def _component_url(plan: DeploymentPlan, workload: Workload) -> str | None:
    scheme = (plan.url or "http://").partition("://")[0]
    return next((f"{scheme}://{route.hosts[0]}" for route in plan.routes if route.name == workload.name), None)


def _pod_failure(pod: Manifest) -> Failure | None:
    """Return why a pod does not serve, in the failure's own words, or None while nothing has failed."""
    where = f"pod {_name(pod)}"
    scheduled = _conditions(_object(pod, "status")).get("PodScheduled", {})
    if scheduled.get("reason") == "Unschedulable":
        return Failure(reason="Unschedulable", message=_text(scheduled, "message"), location=where)
    for container in _containers(pod):
        failure = _container_failure(container)
        if failure is not None:
            return replace(failure, location=f"{where} container {_text(container, 'name')}")
    return None


def _container_failure(status: Manifest) -> Failure | None:
    state = _object(status, "state")
    waiting, ended = _object(state, "waiting"), _object(state, "terminated")
    reason = _text(waiting, "reason")
    if reason == "CrashLoopBackOff":
        # While it waits for its next start, what it said at its last end counts.
        ended = _object(_object(status, "lastState"), "terminated")
        return _end(status, ended) if ended else Failure(reason=_LOAD_FAILED, message=_words(waiting, reason))
    if reason in _WAITING_FAILURES:
        return Failure(reason=reason, message=_words(waiting, reason))
    return _end(status, ended) if _number(ended, "exitCode") != 0 else None


def _end(status: Manifest, ended: Manifest) -> Failure:
    what = "fetching the model failed" if status.get("name") == INIT_CONTAINER else "the container ended"
    exit_code = _number(ended, "exitCode")
    return Failure(
        reason="OOMKilled" if ended.get("reason") == "OOMKilled" else _LOAD_FAILED,
        message=_words(ended, f"{what} with exit code {exit_code}"),
        exit_code=exit_code,
        time=_text(ended, "finishedAt"),
    )


def _words(said: Manifest, otherwise: str) -> str:
    return _text(said, "message").strip() or otherwise


def _model_status(
    pods: Sequence[Manifest],
    failures: Sequence[Failure],
    *,
    is_ready: bool,
    now: str,
    previous: Manifest,
) -> ModelStatus:
    ready = sum(_is_ready(pod) for pod in pods)
    if is_ready and not failures:
        return ModelStatus(
            transition=TransitionStatus.UP_TO_DATE,
            target=ModelState.LOADED,
            active=ModelState.LOADED,
            total_copies=ready,
        )
    active = ModelState.LOADED if ready else None
    if failures:
        failure = failures[0]
        dated = replace(failure, time=failure.time or _failure_time(previous, failure.message, now))
        return ModelStatus(
            transition=TransitionStatus.BLOCKED_BY_FAILED_LOAD,
            target=ModelState.FAILED_TO_LOAD,
            active=active,
            failure=dated,
            total_copies=ready,
            failed_copies=len(failures),
        )
    is_loading = any(_object(_object(c, "state"), "running") for pod in pods for c in _containers(pod))
    target = ModelState.LOADING if is_loading else ModelState.PENDING
    return ModelStatus(transition=TransitionStatus.IN_PROGRESS, target=target, active=active, total_copies=ready)


def _failure_time(previous: Manifest, message: str, now: str) -> str:
    # The same failure keeps its time: a status that says nothing new is not written.
    info = _object(_object(previous, "modelStatus"), "lastFailureInfo")
    return _text(info, "time") if info.get("message") == message and _text(info, "time") else now


def _containers(pod: Manifest) -> Iterator[Manifest]:
    status = _object(pod, "status")
    yield from _objects(status, "initContainerStatuses")
    yield from _objects(status, "containerStatuses")


def _name(pod: Manifest) -> str:
    return _text(_object(pod, "metadata"), "name")


def _conditions(status: Manifest) -> dict[str, Manifest]:
    return {_text(condition, "type"): condition for condition in _objects(status, "conditions")}


# What others write need not have the form that it should have: another one reads as if it were not there.


def _object(parent: Manifest, key: str) -> Manifest:
    found = parent.get(key)
    return found if isinstance(found, Mapping) else {}


def _objects(parent: Manifest, key: str) -> Iterator[Manifest]:
    found = parent.get(key)
    if isinstance(found, Sequence):
        yield from (item for item in found if isinstance(item, Mapping))


def _text(parent: Manifest, key: str) -> str:
    found = parent.get(key)
    return found if isinstance(found, str) else ""


def _number(parent: Manifest, key: str) -> int:
    found = parent.get(key)
    return found if isinstance(found, int) else 0
