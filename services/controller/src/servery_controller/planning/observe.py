"""From what is there to what is true of the service. Total: whatever the cluster says, there is a status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from servery_sdk.kinds import DEPLOYMENT, HTTP_ROUTE
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import (
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
_IMAGE_REASONS = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_WAITING_FAILURES = _IMAGE_REASONS | {
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}


def observe(plan: DeploymentPlan, observed: Observed, *, now: str) -> ServiceStatus:
    """Return the status of a planned service.

    Args:
        plan: What was decided.
        observed: What the cluster answered.
        now: RFC 3339; only conditions whose status moved carry it.
    """
    predictor = plan.workloads[0]
    pods = [pod for pod in observed.pods if _is_of(pod, predictor)]
    failures = [failure for pod in pods if (failure := pod_failure(pod, predictor.main_container)) is not None]
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
        model=_model_status(pods, predictor, failures, is_ready=is_ready, now=now, previous=observed.previous),
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
    found = previous.get("conditions") if isinstance(previous, Mapping) else None
    before = {c.get("type"): c for c in found or () if isinstance(c, Mapping)}
    return tuple(_dated(condition, before.get(condition.type, {}), now) for condition in (*conditions, ready))


def _dated(condition: Condition, before: Manifest, now: str) -> Condition:
    same = before.get("status") == condition.status and before.get("lastTransitionTime")
    return replace(condition, last_transition_time=str(before["lastTransitionTime"]) if same else now)


def _is_of(pod: Manifest, workload: Workload) -> bool:
    labels = pod.get("metadata", {}).get("labels") or {}
    return all(labels.get(key) == value for key, value in workload.selector.items())


def _is_ready(pod: Manifest) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


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
    status = deployment.get("status") or {}
    found = {c.get("type"): c for c in status.get("conditions") or ()}
    current = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    if current and found.get("Available", {}).get("status") == "True":
        return Condition(type=name, status=TRUE)
    if failures:
        return Condition(
            type=name,
            status=FALSE,
            reason=failures[0].reason,
            message=_with_place(failures[0]),
        )
    for kind, bad in (("ReplicaFailure", "True"), ("Progressing", "False"), ("Available", "False")):
        if found.get(kind, {}).get("status") == bad:
            return Condition(
                type=name,
                status=FALSE,
                reason=str(found[kind].get("reason", kind)),
                message=str(found[kind].get("message", "")),
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
    routes = {ref.name: o for ref, o in observed.objects.items() if ref.kind == HTTP_ROUTE}
    for route in plan.routes:
        if route.name in routes and (refusal := _route_refusal(routes[route.name])) is not None:
            return replace(refusal, type=name)
    return Condition(type=name, status=TRUE)


def _route_refusal(route: Manifest) -> Condition | None:
    parents = (route.get("status") or {}).get("parents") or ()
    name = route["metadata"]["name"]
    if not parents:
        message = f"HTTPRoute {name}: no Gateway has taken it yet; is the Gateway there?"
        return Condition(type="", status=UNKNOWN, reason="ParentStatusNotAvailable", message=message)
    for parent in parents:
        for condition in parent.get("conditions") or ():
            if condition.get("type") == "Accepted" and condition.get("status") != "True":
                message = f"HTTPRoute {name}: {condition.get('message', '')}"
                return Condition(type="", status=FALSE, reason=str(condition.get("reason", "")), message=message)
    return None


def _stopped_condition(plan: DeploymentPlan) -> Condition:
    return Condition(type="Stopped", status=TRUE if plan.stopped else FALSE, severity="Info")


def _component_url(plan: DeploymentPlan, workload: Workload) -> str | None:
    scheme = (plan.url or "http://").partition("://")[0]
    return next((f"{scheme}://{route.hosts[0]}" for route in plan.routes if route.name == workload.name), None)


def pod_failure(pod: Manifest, main_container: str) -> Failure | None:
    """Return why a pod does not serve, in the failure's own words, or None while nothing has failed."""
    status = pod.get("status") or {}
    name = (pod.get("metadata") or {}).get("name", "")
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Failure(reason="Unschedulable", message=str(condition.get("message", "")), location=f"pod {name}")
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        failure = _container_failure(container)
        if failure is not None:
            return replace(failure, location=f"pod {name} container {container.get('name', '')}")
    return None


def _container_failure(status: Manifest) -> Failure | None:
    state = status.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    is_storage = status.get("name") == INIT_CONTAINER
    if waiting.get("reason") in _WAITING_FAILURES:
        last = (status.get("lastState") or {}).get("terminated") or {}
        reason = "ModelLoadFailed" if waiting["reason"] == "CrashLoopBackOff" else str(waiting["reason"])
        words = last.get("message") if reason == "ModelLoadFailed" else waiting.get("message")
        return Failure(
            reason=reason,
            message=str(words or waiting.get("message") or waiting["reason"]).strip(),
            exit_code=last.get("exitCode"),
            time=str(last.get("finishedAt", "")),
        )
    if ended.get("exitCode", 0) != 0:
        what = "fetching the model failed" if is_storage else "the container ended"
        message = str(ended.get("message") or f"{what} with exit code {ended['exitCode']}")
        return Failure(
            reason="OOMKilled" if ended.get("reason") == "OOMKilled" else "ModelLoadFailed",
            message=message.strip(),
            exit_code=ended["exitCode"],
            time=str(ended.get("finishedAt", "")),
        )
    return None


def _model_status(
    pods: Sequence[Manifest],
    workload: Workload,
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
    loading = any(True for pod in pods for _ in _running(pod))
    target = ModelState.LOADING if loading else ModelState.PENDING
    return ModelStatus(transition=TransitionStatus.IN_PROGRESS, target=target, active=active, total_copies=ready)


def _failure_time(previous: Manifest, message: str, now: str) -> str:
    # The same failure keeps its time: a status that says nothing new is not written.
    info = (previous.get("modelStatus") or {}).get("lastFailureInfo") or {} if isinstance(previous, Mapping) else {}
    return str(info["time"]) if info.get("message") == message and info.get("time") else now


def _running(pod: Manifest) -> Iterator[Json]:
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if (container.get("state") or {}).get("running"):
            yield container
