"""Constructors of the objects that the raw mode makes. Each returns one manifest."""

from __future__ import annotations

from servery_sdk import kinds
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import AutoscalerClass, DeploymentPlan, ScaleMetric, Scaling, WorkerPods, Workload
from servery_sdk.objects import owned, pod_spec

DEFAULT_CPU_UTILIZATION = 80


def deployment(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the Deployment; without ``replicas`` where an autoscaler sets them."""
    spec: dict[str, Json] = {
        "selector": {"matchLabels": dict(workload.selector)},
        "strategy": workload.strategy,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "template": _template(workload),
    }
    if workload.replicas is not None:
        spec["replicas"] = workload.replicas
    return owned(plan, kinds.DEPLOYMENT, workload.name, workload.labels, spec)


def leader_worker_set(plan: DeploymentPlan, workload: Workload, workers: WorkerPods) -> Manifest:
    """Return the LeaderWorkerSet: the workload's pod leads, the workers' pods follow; a group starts again as a whole.

    Source: OME's LWS reconciler.
    """
    spec = {
        "replicas": max(1, workload.scaling.min_replicas),
        "startupPolicy": "LeaderCreated",
        "networkConfig": {"subdomainPolicy": "Shared"},
        "rolloutStrategy": {
            "type": "RollingUpdate",
            "rollingUpdateConfiguration": {"maxUnavailable": 1, "maxSurge": 1},
        },
        "leaderWorkerTemplate": {
            "size": workers.count + 1,
            "restartPolicy": "RecreateGroupOnPodRestart",
            "leaderTemplate": _template(workload),
            "workerTemplate": {
                "metadata": {"labels": dict(workers.labels), "annotations": dict(workers.annotations)},
                "spec": workers.pod,
            },
        },
    }
    kind = kinds.LEADER_WORKER_SET
    return owned(plan, kind, workload.name_of(kind), workload.labels, spec)


def _template(workload: Workload) -> Manifest:
    metadata = {"labels": dict(workload.pod_labels), "annotations": dict(workload.pod_annotations)}
    return {"metadata": metadata, "spec": pod_spec(workload)}


def horizontal_pod_autoscaler(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the HPA; a HPA cannot go to zero, so its least is one."""
    scaling = workload.scaling
    least = max(1, scaling.min_replicas)
    spec: dict[str, Json] = {
        "scaleTargetRef": _target(workload),
        "minReplicas": least,
        "maxReplicas": max(least, scaling.max_replicas or 0),
        "metrics": _metrics(scaling),
    }
    if scaling.behavior is not None:
        spec["behavior"] = scaling.behavior
    return owned(plan, kinds.HORIZONTAL_POD_AUTOSCALER, workload.name, workload.labels, spec)


def scaledowned(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return KEDA's ScaledObject."""
    scaling = workload.scaling
    spec: dict[str, Json] = {
        "scaleTargetRef": _target(workload),
        "minReplicaCount": scaling.min_replicas,
        "maxReplicaCount": max(1, scaling.min_replicas, scaling.max_replicas or 0),
        "triggers": [_trigger(metric) for metric in _metrics(scaling)],
    }
    if scaling.behavior is not None:
        spec["advanced"] = {"horizontalPodAutoscalerConfig": {"behavior": scaling.behavior}}
    return owned(plan, kinds.SCALED_OBJECT, workload.name_of(kinds.SCALED_OBJECT), workload.labels, spec)


def _target(workload: Workload) -> Manifest:
    return {"apiVersion": kinds.DEPLOYMENT.api_version, "kind": kinds.DEPLOYMENT.kind, "name": workload.name}


def _metrics(scaling: Scaling) -> list[Manifest]:
    if scaling.metrics:
        return [dict(metric) for metric in scaling.metrics]
    if scaling.metric is ScaleMetric.MEMORY and scaling.target is not None:
        # KServe's unit for memory is MiB.
        target: Manifest = {"type": "AverageValue", "averageValue": f"{scaling.target}Mi"}
        return [{"type": "Resource", "resource": {"name": "memory", "target": target}}]
    name = str(scaling.metric or ScaleMetric.CPU)
    target = {"type": "Utilization", "averageUtilization": scaling.target or DEFAULT_CPU_UTILIZATION}
    return [{"type": "Resource", "resource": {"name": name, "target": target}}]


def _trigger(metric: Manifest) -> Manifest:
    if "external" in metric:
        external = metric["external"]
        found = external.get("metric", {})
        metadata = {key: found[key] for key in ("serverAddress", "query", "namespace") if key in found}
        trigger: dict[str, Json] = {
            "type": found.get("backend", "prometheus"),
            "metadata": {**metadata, "threshold": str(external.get("target", {}).get("value", ""))},
        }
        if "authenticationRef" in external:
            given = external["authenticationRef"]
            trigger["authenticationRef"] = given.get("authenticationRef", {})
            if "authModes" in given:
                trigger["metadata"]["authModes"] = given["authModes"]
        return trigger
    resource = metric["resource"]
    target = resource.get("target", {})
    value = target.get("averageUtilization", target.get("averageValue", target.get("value", "")))
    return {
        "type": resource["name"],
        "metricType": target.get("type", "Utilization"),
        "metadata": {"value": str(value)},
    }


def autoscaler(plan: DeploymentPlan, workload: Workload) -> Manifest | None:
    """Return what sets the replicas, or None where that is nobody's or somebody else's work."""
    match workload.scaling.autoscaler_class:
        case AutoscalerClass.HPA:
            return horizontal_pod_autoscaler(plan, workload)
        case AutoscalerClass.KEDA:
            return scaledowned(plan, workload)
        case AutoscalerClass.EXTERNAL | AutoscalerClass.NONE:
            return None
