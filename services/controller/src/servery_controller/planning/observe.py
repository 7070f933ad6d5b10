"""From what is there to what is true of the service. Total: whatever the cluster says, there is a status."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from servery_sdk.kinds import HTTP_ROUTE
from servery_sdk.lenient import conditions, mapping, mappings, number, text
from servery_sdk.manifests import Manifest, ObjectRef, has_labels
from servery_sdk.model import (
    ComponentStatus,
    Condition,
    ConditionStatus,
    DeploymentPlan,
    Failure,
    ModelState,
    ModelStatus,
    Observed,
    Readiness,
    RuntimeScope,
    ServiceStatus,
    TransitionStatus,
    Workload,
)

from servery_controller.planning.storage import INIT_CONTAINER

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
_STOPPED = "Stopped"
_INFO = "Info"
"""The severity of conditions that ``Ready`` does not depend on."""
_ROUTE_NEEDS = ("Accepted", "ResolvedRefs")
_LOAD_FAILED = "ModelLoadFailed"
_IMAGE_REASONS = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
_WAITING_FAILURES = _IMAGE_REASONS | {
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
}


def observe(
    plan: DeploymentPlan,
    desired: Sequence[Manifest],
    observed: Observed,
    read: Callable[[Workload, Mapping[ObjectRef, Manifest]], Readiness],
    *,
    now: str,
) -> ServiceStatus:
    """Return the status of a planned service.

    Args:
        plan: What was decided.
        desired: What the mode made of it.
        observed: What the cluster answered; the order of its pods does not matter.
        read: The mode's ``readiness``.
        now: RFC 3339; only conditions whose status moved carry it.
    """
    seen = [_Seen.of(workload, observed, read(workload, observed.objects)) for workload in plan.workloads]
    predictor = seen[0]
    entry = max(seen, key=lambda found: found.workload.traffic_percent).readiness
    components = [_component_condition(plan, found) for found in seen]
    ingress = _ingress_condition(plan, desired, observed, components)
    found = (*components, ingress, *_parts(seen), _stopped_condition(plan))
    selection = predictor.workload.selection
    is_ready = all(condition.status is TRUE for condition in components)
    scope = selection.runtime.scope if selection else None
    return ServiceStatus(
        observed_generation=plan.generation,
        conditions=_with_ready(found, observed.previous, now),
        mode=plan.mode,
        url=(entry.url or plan.url) if is_ready else None,
        address=(entry.address or plan.address) if is_ready else None,
        components=tuple(
            _component_status(plan, found, is_ready=condition.status is TRUE)
            for found, condition in zip(seen, components, strict=True)
        ),
        model=_model_status(predictor, is_ready=components[0].status is TRUE),
        runtime=selection.runtime.name if selection else None,
        runtime_is_cluster_scoped=scope is not None and scope is not RuntimeScope.NAMESPACE,
        previous=observed.previous,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """A workload and what is there of it."""

    workload: Workload
    readiness: Readiness
    pods: Sequence[Manifest]
    failures: Sequence[Failure]

    @classmethod
    def of(cls, workload: Workload, observed: Observed, readiness: Readiness) -> _Seen:
        pods = sorted((pod for pod in observed.pods if _is_active(pod, workload)), key=_name)
        failures = [failure for pod in pods if (failure := _pod_failure(pod)) is not None]
        return cls(workload, readiness, pods, failures)

    @property
    def ready_pods(self) -> int:
        return sum(_is_ready(pod) for pod in self.pods)


def refused(
    reason: str,
    message: str,
    *,
    generation: int,
    previous: Manifest,
    now: str,
    transition: TransitionStatus,
    condition_type: str = "PredictorReady",
) -> ServiceStatus:
    """Return the status of a service for which there is no plan, or which the cluster cannot run."""
    condition = Condition(type=condition_type, status=FALSE, reason=reason, message=message)
    found = _with_ready([condition], previous, now)
    # Since when it is not ready: a status that says nothing new is not written.
    failure = Failure(reason=reason, message=message, time=found[-1].last_transition_time)
    return ServiceStatus(
        observed_generation=generation,
        conditions=found,
        model=ModelStatus(transition=transition, target=ModelState.PENDING, failure=failure),
        previous=previous,
    )


def _with_ready(found: Sequence[Condition], previous: Manifest, now: str) -> tuple[Condition, ...]:
    dependents = [condition for condition in found if condition.severity != _INFO]
    # The first failing child's words are the parent's; one that is not known yet comes after all that failed.
    first = next((c for c in dependents if c.status is FALSE), None) or next(
        (c for c in dependents if c.status is UNKNOWN), None
    )
    ready = Condition(type="Ready", status=TRUE) if first is None else replace(first, type="Ready")
    before = conditions(previous)
    return tuple(_dated(condition, before.get(condition.type, {}), now) for condition in (*found, ready))


def _dated(condition: Condition, before: Manifest, now: str) -> Condition:
    moved = before.get("status") != condition.status
    return replace(condition, last_transition_time=now if moved else text(before, "lastTransitionTime") or now)


def _is_active(pod: Manifest, workload: Workload) -> bool:
    """Return whether a pod counts: what is leaving or has ended is being replaced, and its end is no failure."""
    metadata = mapping(pod, "metadata")
    is_leaving = "deletionTimestamp" in metadata or mapping(pod, "status").get("phase") in ("Failed", "Succeeded")
    return not is_leaving and has_labels(pod, workload.selector)


def _is_ready(pod: Manifest) -> bool:
    return conditions(mapping(pod, "status")).get("Ready", {}).get("status") == "True"


def _component_condition(plan: DeploymentPlan, found: _Seen) -> Condition:
    name, readiness = found.workload.condition, found.readiness
    if plan.stopped:
        return Condition(type=name, status=FALSE, reason="Stopped", message="the service is stopped by its annotation")
    if readiness.status is not TRUE and found.failures:
        # A pod's own words say more than its engine's.
        failure = found.failures[0]
        return Condition(type=name, status=FALSE, reason=failure.reason, message=_with_place(failure))
    if readiness.status is TRUE:
        return Condition(type=name, status=TRUE)
    return Condition(type=name, status=readiness.status, reason=readiness.reason, message=readiness.message)


def _parts(seen: Sequence[_Seen]) -> Iterator[Condition]:
    for found in seen:
        component = found.workload.condition.removesuffix("Ready")
        for part in found.readiness.parts:
            yield replace(part, type=f"{component}{part.type}Ready", severity=_INFO)


def _component_status(plan: DeploymentPlan, found: _Seen, *, is_ready: bool) -> ComponentStatus:
    workload = found.workload
    return ComponentStatus(
        kind=workload.kind,
        name=workload.component,
        url=(found.readiness.url or _component_url(plan, workload)) if is_ready else None,
        address=f"http://{workload.name}.{plan.ref.namespace}.svc.{plan.cluster_domain}",
        replicas=len(found.pods),
        ready_replicas=found.ready_pods,
        traffic_percent=workload.traffic_percent,
        revisions=found.readiness.revisions,
    )


def _with_place(failure: Failure) -> str:
    return f"{failure.location}: {failure.message}" if failure.location else failure.message


def _ingress_condition(
    plan: DeploymentPlan, desired: Sequence[Manifest], observed: Observed, components: Sequence[Condition]
) -> Condition:
    name = "IngressReady"
    if plan.stopped:
        return Condition(type=name, status=FALSE, reason="Stopped", message="the service is stopped by its annotation")
    waiting = next((c for c in components if c.status is not TRUE), None)
    if waiting is not None:
        component = waiting.type.removesuffix("Ready")
        message = f"the {component[:1].lower()}{component[1:]} is not ready"
        return Condition(type=name, status=waiting.status, reason=f"{component}NotReady", message=message)
    routes = {ref.name: o for ref, o in observed.objects.items() if ref.kind == HTTP_ROUTE}
    for wanted in desired:
        if (wanted["apiVersion"], wanted["kind"]) == (HTTP_ROUTE.api_version, HTTP_ROUTE.kind):
            route = wanted["metadata"]["name"]
            if (refusal := _route_refusal(route, routes.get(route))) is not None:
                return replace(refusal, type=name)
    return Condition(type=name, status=TRUE)


def _route_refusal(name: str, route: Manifest | None) -> Condition | None:
    if route is None:
        return Condition(type="", status=UNKNOWN, reason="RouteMissing", message=f"HTTPRoute {name}: not there yet")
    parents = list(mappings(mapping(route, "status"), "parents"))
    if not parents:
        message = f"HTTPRoute {name}: no Gateway has taken it yet; is the Gateway there?"
        return Condition(type="", status=UNKNOWN, reason="ParentStatusNotAvailable", message=message)
    for found in map(conditions, parents):
        for need in _ROUTE_NEEDS:
            said = found.get(need)
            if said is not None and said.get("status") != "True":
                message = f"HTTPRoute {name}: {text(said, 'message')}"
                return Condition(type="", status=FALSE, reason=text(said, "reason") or f"Not{need}", message=message)
    return None


def _stopped_condition(plan: DeploymentPlan) -> Condition:
    return Condition(type=_STOPPED, status=TRUE if plan.stopped else FALSE, severity=_INFO)


def _component_url(plan: DeploymentPlan, workload: Workload) -> str | None:
    scheme = (plan.url or "http://").partition("://")[0]
    return next((f"{scheme}://{route.hosts[0]}" for route in plan.routes if route.name == workload.name), None)


def _pod_failure(pod: Manifest) -> Failure | None:
    """Return why a pod does not serve, in the failure's own words, or None while nothing has failed."""
    where = f"pod {_name(pod)}"
    scheduled = conditions(mapping(pod, "status")).get("PodScheduled", {})
    if scheduled.get("reason") == "Unschedulable":
        since = text(scheduled, "lastTransitionTime")
        return Failure(reason="Unschedulable", message=text(scheduled, "message"), location=where, time=since)
    for container in _containers(pod):
        failure = _container_failure(container)
        if failure is not None:
            since = failure.time or text(mapping(pod, "metadata"), "creationTimestamp")
            return replace(failure, location=f"{where} container {text(container, 'name')}", time=since)
    return None


def _container_failure(status: Manifest) -> Failure | None:
    state = mapping(status, "state")
    waiting, ended = mapping(state, "waiting"), mapping(state, "terminated")
    reason = text(waiting, "reason")
    if reason == "CrashLoopBackOff":
        # While it waits for its next start, what it said at its last end counts.
        ended = mapping(mapping(status, "lastState"), "terminated")
        return _end(status, ended) if ended else Failure(reason=_LOAD_FAILED, message=_words(waiting, reason))
    if reason in _WAITING_FAILURES:
        return Failure(reason=reason, message=_words(waiting, reason))
    return _end(status, ended) if number(ended, "exitCode") != 0 else None


def _end(status: Manifest, ended: Manifest) -> Failure:
    what = "fetching the model failed" if status.get("name") == INIT_CONTAINER else "the container ended"
    exit_code = number(ended, "exitCode")
    return Failure(
        reason="OOMKilled" if ended.get("reason") == "OOMKilled" else _LOAD_FAILED,
        message=_words(ended, f"{what} with exit code {exit_code}"),
        exit_code=exit_code,
        time=text(ended, "finishedAt"),
    )


def _words(said: Manifest, otherwise: str) -> str:
    return text(said, "message").strip() or otherwise


def _model_status(found: _Seen, *, is_ready: bool) -> ModelStatus:
    pods, failures, ready = found.pods, found.failures, found.ready_pods
    if is_ready and not failures:
        return ModelStatus(
            transition=TransitionStatus.UP_TO_DATE,
            target=ModelState.LOADED,
            active=ModelState.LOADED,
            total_copies=ready,
        )
    active = ModelState.LOADED if ready else None
    if failures:
        return ModelStatus(
            transition=TransitionStatus.BLOCKED_BY_FAILED_LOAD,
            target=ModelState.FAILED_TO_LOAD,
            active=active,
            failure=failures[0],
            total_copies=ready,
            failed_copies=len(failures),
        )
    is_loading = any(mapping(mapping(c, "state"), "running") for pod in pods for c in _containers(pod))
    target = ModelState.LOADING if is_loading else ModelState.PENDING
    return ModelStatus(transition=TransitionStatus.IN_PROGRESS, target=target, active=active, total_copies=ready)


def _containers(pod: Manifest) -> Iterator[Manifest]:
    status = mapping(pod, "status")
    yield from mappings(status, "initContainerStatuses")
    yield from mappings(status, "containerStatuses")


def _name(pod: Manifest) -> str:
    return text(mapping(pod, "metadata"), "name")
