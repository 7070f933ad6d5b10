"""A component as a Knative Service.

Source: KServe pkg/controller/v1beta1/inferenceservice/reconcilers/knative/ksvc_reconciler.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from servery_sdk import kinds, objects
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import AutoscalerClass, ComponentKind, DeploymentPlan, ScaleMetric, Workload

from servery_mode_knative import pods

VISIBILITY = "networking.knative.dev/visibility"
PREVIOUS, LATEST = "prev", "latest"
"""Tags, and so parts of hosts: ``prev-iris-predictor…``."""

EXPLAINER_HOST = "SERVERY_PREDICTOR_EXPLAINER_HOST"
"""The predictor's setting, ``explainer_host``."""

_AUTOSCALING = "autoscaling.knative.dev"
_BY_REQUESTS = f"kpa.{_AUTOSCALING}"
_BY_RESOURCES = f"hpa.{_AUTOSCALING}"
_METRICS: Mapping[str, frozenset[ScaleMetric]] = {
    _BY_REQUESTS: frozenset({ScaleMetric.CONCURRENCY, ScaleMetric.RPS}),
    _BY_RESOURCES: frozenset({ScaleMetric.CPU, ScaleMetric.MEMORY}),
}
_OF_THE_SERVICE = frozenset({"serving.knative.dev/rollout-duration", "serving.knative.openshift.io/enablePassthrough"})
"""Annotations that Knative reads on the Service; all others are the revision's."""

_KUBERNETES_STRATEGY: Manifest = {"maxUnavailable": "25%", "maxSurge": "25%"}


def knative_service(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the Knative Service: the template of its revisions, and who gets the requests."""
    spec = {"template": _template(leading(plan, workload)), "traffic": _traffic(workload)}
    labels = dict(workload.labels)
    if not plan.routes:
        # Nobody outside is to reach it.
        labels[VISIBILITY] = "cluster-local"
    made = objects.owned(plan, kinds.KNATIVE_SERVICE, workload.name, labels, spec)
    annotations = {key: value for key, value in workload.annotations.items() if key in _OF_THE_SERVICE}
    return {**made, "metadata": {**made["metadata"], "annotations": annotations}} if annotations else made


def leading(plan: DeploymentPlan, workload: Workload) -> Workload:
    """Return the workload, told of the explainer where it is the one that gets the service's requests.

    Nothing routes between Knative Services, so that one passes requests for explanations on. A variable says so: a
    program of somebody else's would refuse a flag that it does not know.
    """
    explainer = next((one for one in plan.workloads if one.kind is ComponentKind.EXPLAINER), None)
    if explainer is None or workload is explainer or not workload.traffic_percent:
        return workload
    containers = [
        _told(container, f"{explainer.name}.{plan.ref.namespace}")
        if container["name"] == workload.main_container
        else container
        for container in workload.pod["containers"]
    ]
    return replace(workload, pod={**workload.pod, "containers": containers})


def _told(container: Manifest, host: str) -> Manifest:
    env = container.get("env") or []
    if any(one["name"] == EXPLAINER_HOST for one in env):
        return container
    return {**container, "env": [*env, {"name": EXPLAINER_HOST, "value": host}]}


def _template(workload: Workload) -> Manifest:
    spec: dict[str, Json] = {}
    if workload.concurrency is not None:
        spec["containerConcurrency"] = workload.concurrency
    if workload.timeout_seconds:
        spec["timeoutSeconds"] = workload.timeout_seconds
        spec["responseStartTimeoutSeconds"] = workload.timeout_seconds
    annotations = {key: value for key, value in workload.pod_annotations.items() if key not in _OF_THE_SERVICE}
    return {
        "metadata": {
            "labels": {key: value for key, value in workload.pod_labels.items() if key != VISIBILITY},
            "annotations": {**annotations, **_scale(workload)},
        },
        "spec": {**spec, **pods.pod(workload)},
    }


def _scale(workload: Workload) -> Manifest:
    """Return the annotations that the revision's autoscaler reads."""
    scaling = workload.scaling
    fewest, most = scaling.min_replicas, scaling.max_replicas
    if scaling.autoscaler_class is AutoscalerClass.NONE:
        # A number that nothing moves.
        fewest = most = max(1, fewest)
    said = {
        "class": _autoscaler(workload),
        "min-scale": fewest,
        "max-scale": None if most is None else max(fewest, most),
        "initial-scale": scaling.initial_replicas,
        "metric": scaling.metric,
        "target": scaling.target,
    }
    return {f"{_AUTOSCALING}/{key}": str(value) for key, value in said.items() if value is not None}


def _autoscaler(workload: Workload) -> str:
    by_resources = workload.scaling.metric in _METRICS[_BY_RESOURCES]
    return workload.pod_annotations.get(f"{_AUTOSCALING}/class") or (_BY_RESOURCES if by_resources else _BY_REQUESTS)


def _traffic(workload: Workload) -> list[Manifest]:
    canary = workload.canary
    tag = {"tag": LATEST} if canary is not None and canary.tagged else {}
    if canary is None or canary.stable_revision is None or canary.percent >= 100:
        return [{"latestRevision": True, "percent": 100, **tag}]
    stable = {"latestRevision": False, "revisionName": canary.stable_revision, "tag": PREVIOUS}
    return [
        {"latestRevision": True, "percent": canary.percent, **tag},
        {**stable, "percent": 100 - canary.percent},
    ]


def objections(workload: Workload) -> Iterator[str]:
    """Yield what a Knative Service has no words for."""
    scaling = workload.scaling
    if workload.workers is not None:
        yield "Knative runs pods one by one, and this model needs several together; modes raw and ray have workers"
    if scaling.autoscaler_class in {AutoscalerClass.KEDA, AutoscalerClass.EXTERNAL}:
        yield f"Knative sets the replicas itself; autoscaler class {scaling.autoscaler_class} belongs to mode raw"
    if scaling.metrics:
        yield "Knative scales on one of concurrency, rps, cpu and memory, not on a list of metrics"
    if scaling.behavior is not None:
        yield "Knative has no scaling behavior; its annotations autoscaling.knative.dev/window and the like say how fast"
    known = _METRICS.get(_autoscaler(workload))
    if scaling.metric is not None and known is not None and scaling.metric not in known:
        listed = " and ".join(sorted(known))
        yield f"autoscaler {_autoscaler(workload)} scales on {listed}, not on {scaling.metric}"
    strategy = workload.strategy
    rolling = {**_KUBERNETES_STRATEGY, **(strategy.get("rollingUpdate") or {})}
    # That no pod goes before another is there is what Knative does by itself.
    is_knatives = rolling == _KUBERNETES_STRATEGY or rolling["maxUnavailable"] == 0
    if strategy.get("type", "RollingUpdate") != "RollingUpdate" or not is_knatives:
        yield "Knative rolls revisions out by their traffic; a deployment strategy belongs to mode raw"
    yield from pods.objections(workload)
