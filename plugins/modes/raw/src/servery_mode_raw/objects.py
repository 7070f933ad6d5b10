"""Constructors of the objects that the raw mode makes. Each returns one manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servery_sdk import kinds
from servery_sdk.manifests import Json, Kind, Manifest
from servery_sdk.model import (
    AutoscalerClass,
    DeploymentPlan,
    EntryService,
    Port,
    Route,
    ScaleMetric,
    Scaling,
    WorkerPods,
    Workload,
)

DEFAULT_CPU_UTILIZATION = 80


def _object(
    plan: DeploymentPlan, kind: Kind, name: str, labels: Mapping[str, str], spec: Json, **beside: Json
) -> Manifest:
    made: dict[str, Json] = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": name,
            "namespace": plan.ref.namespace,
            "labels": {**labels, **plan.owned_labels},
            "ownerReferences": [plan.owner],
        },
        **beside,
    }
    return made if spec is None else {**made, "spec": spec}


def deployment(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the Deployment; without ``replicas`` where an autoscaler sets them."""
    spec: dict[str, Json] = {
        "selector": {"matchLabels": dict(workload.selector)},
        "strategy": workload.strategy,
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        "template": _template(workload, _spec(workload)),
    }
    if workload.replicas is not None:
        spec["replicas"] = workload.replicas
    return _object(plan, kinds.DEPLOYMENT, workload.name, workload.labels, spec)


def leader_worker_set(plan: DeploymentPlan, workload: Workload, workers: WorkerPods) -> Manifest:
    """Return the LeaderWorkerSet: the workload's pod leads, the workers' pods follow; a group starts again as a whole.

    Source: OME's LWS reconciler.
    """
    # The leader alone answers requests, so only it may be selected.
    follower = {key: value for key, value in workload.pod_labels.items() if key not in workload.selector}
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
            "leaderTemplate": _template(workload, _spec(workload)),
            "workerTemplate": {
                "metadata": {"labels": follower, "annotations": dict(workload.pod_annotations)},
                "spec": workers.pod,
            },
        },
    }
    kind = kinds.LEADER_WORKER_SET
    return _object(plan, kind, workload.name_of(kind), workload.labels, spec)


def _template(workload: Workload, spec: Manifest) -> Manifest:
    metadata = {"labels": dict(workload.pod_labels), "annotations": dict(workload.pod_annotations)}
    return {"metadata": metadata, "spec": spec}


def _spec(workload: Workload) -> Manifest:
    return {**workload.pod, "serviceAccountName": workload.name} if workload.reads_pods else workload.pod


def pod_reader(plan: DeploymentPlan, workload: Workload) -> tuple[Manifest, ...]:
    """Return the service account of a workload that finds its servers among the pods, and its role."""
    name, group = workload.name, "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    account = {"kind": "ServiceAccount", "name": name, "namespace": plan.ref.namespace}
    return (
        _object(plan, kinds.SERVICE_ACCOUNT, name, workload.labels, None),
        _object(plan, kinds.ROLE, name, workload.labels, None, rules=rules),
        _object(
            plan,
            kinds.ROLE_BINDING,
            name,
            workload.labels,
            None,
            roleRef={"apiGroup": group, "kind": "Role", "name": name},
            subjects=[account],
        ),
    )


def service(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the Service of a component."""
    spec = {"type": "ClusterIP", "selector": dict(workload.selector), "ports": _ports(workload.ports)}
    return _object(plan, kinds.SERVICE, workload.name, workload.labels, spec)


def entry(plan: DeploymentPlan, wanted: EntryService) -> Manifest:
    """Return the Service in front of the whole."""
    spec = {"type": wanted.type, "selector": dict(wanted.selector), "ports": _ports(wanted.ports)}
    return _object(plan, kinds.SERVICE, wanted.name, wanted.labels, spec)


def _ports(ports: Sequence[Port]) -> list[Json]:
    made: list[Json] = []
    for port in ports:
        one = {"name": port.name, "port": port.port, "targetPort": port.target_port, "protocol": "TCP"}
        made.append({**one, "appProtocol": port.app_protocol} if port.app_protocol else one)
    return made


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
    return _object(plan, kinds.HORIZONTAL_POD_AUTOSCALER, workload.name, workload.labels, spec)


def scaled_object(plan: DeploymentPlan, workload: Workload) -> Manifest:
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
    return _object(plan, kinds.SCALED_OBJECT, workload.name_of(kinds.SCALED_OBJECT), workload.labels, spec)


def pod_disruption_budget(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the budget that was asked for, or the one that lets one pod go at a time."""
    budget = workload.disruption_budget or {"maxUnavailable": 1}
    spec = {**budget, "selector": {"matchLabels": dict(workload.selector)}}
    return _object(plan, kinds.POD_DISRUPTION_BUDGET, workload.name, workload.labels, spec)


def http_route(plan: DeploymentPlan, route: Route) -> Manifest:
    """Return the Gateway API route."""
    parent = plan.route_parent
    headers = [{"name": name, "value": value} for name, value in route.request_headers.items()]
    spec = {
        "hostnames": list(route.hosts),
        "parentRefs": [
            {
                "group": "gateway.networking.k8s.io",
                "kind": "Gateway",
                "name": parent.gateway_name,
                "namespace": parent.gateway_namespace,
            }
        ],
        "rules": [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": headers}}],
                "backendRefs": [
                    {
                        "group": "",
                        "kind": "Service",
                        "name": backend.workload,
                        "namespace": plan.ref.namespace,
                        "port": backend.port,
                        "weight": backend.weight,
                    }
                    for backend in route.backends
                ],
                "timeouts": {"request": f"{route.timeout_seconds}s"},
            }
        ],
    }
    return _object(plan, kinds.HTTP_ROUTE, route.name, {}, spec)


def ingress(plan: DeploymentPlan) -> Manifest:
    """Return the Ingress of all routes, where there is no Gateway API."""
    rules = [
        {
            "host": host,
            "http": {
                "paths": [
                    {
                        "path": "/",
                        "pathType": "Prefix",
                        "backend": {"service": {"name": backend.workload, "port": {"number": backend.port}}},
                    }
                    for backend in route.backends
                ]
            },
        }
        for route in plan.routes
        for host in route.hosts
    ]
    spec: dict[str, Json] = {"rules": rules}
    if plan.route_parent.ingress_class is not None:
        spec["ingressClassName"] = plan.route_parent.ingress_class
    return _object(plan, kinds.INGRESS, plan.ref.name, {}, spec)


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
            trigger["authenticationRef"] = external["authenticationRef"].get("authenticationRef", {})
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
            return scaled_object(plan, workload)
        case AutoscalerClass.EXTERNAL | AutoscalerClass.NONE:
            return None
