"""Constructors of the objects that modes have in common: Services, routes, the rights of a router.

Each returns manifests that the service owns and that carry its ``owned_labels``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from servery_sdk import kinds
from servery_sdk.manifests import Json, Kind, Manifest
from servery_sdk.model import Backend, Capability, DeploymentPlan, EntryService, Port, Route, Workload

_EXPLAIN = "^/(v1/models/[^/]+:explain|v2/models/[^/]+(/versions/[^/]+)?/explain)$"


def owned(
    plan: DeploymentPlan, kind: Kind, name: str, labels: Mapping[str, str], spec: Json, **beside: Json
) -> Manifest:
    """Return an object of ``kind`` with metadata and ``spec``; ``beside`` are fields next to it."""
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


def pod_reader(plan: DeploymentPlan, workload: Workload) -> Iterator[Manifest]:
    """Yield what lets a workload find its servers among the pods: a role for the service account of its pod.

    A pod that names no account has one of its own, which is made here; ``account`` says which it is.
    """
    name, group = workload.name, "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    subject = {"kind": "ServiceAccount", "name": account(workload), "namespace": plan.ref.namespace}
    if _named_account(workload) is None:
        yield owned(plan, kinds.SERVICE_ACCOUNT, name, workload.labels, None)
    yield owned(plan, kinds.ROLE, name, workload.labels, None, rules=rules)
    yield owned(
        plan,
        kinds.ROLE_BINDING,
        name,
        workload.labels,
        None,
        roleRef={"apiGroup": group, "kind": "Role", "name": name},
        subjects=[subject],
    )


def pod_spec(workload: Workload) -> Manifest:
    """Return the workload's pod, with its service account where it has one of its own."""
    return {**workload.pod, "serviceAccountName": account(workload)} if workload.reads_pods else workload.pod


def account(workload: Workload) -> str:
    """Return the service account of a workload that looks at pods: what its pod names, or its own."""
    return _named_account(workload) or workload.name


def _named_account(workload: Workload) -> str | None:
    # The second is the name that the field had before Kubernetes 1.0.
    return workload.pod.get("serviceAccountName") or workload.pod.get("serviceAccount") or None


def pod_disruption_budget(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the budget that was asked for, or the one that lets one pod go at a time."""
    budget = workload.disruption_budget or {"maxUnavailable": 1}
    spec = {**budget, "selector": {"matchLabels": dict(workload.selector)}}
    return owned(plan, kinds.POD_DISRUPTION_BUDGET, workload.name, workload.labels, spec)


def service(plan: DeploymentPlan, workload: Workload) -> Manifest:
    """Return the Service of a component."""
    spec = {"type": "ClusterIP", "selector": dict(workload.selector), "ports": _ports(workload.ports)}
    return owned(plan, kinds.SERVICE, workload.name, workload.labels, spec)


def entry(plan: DeploymentPlan, wanted: EntryService) -> Manifest:
    """Return the Service in front of the whole."""
    spec = {"type": wanted.type, "selector": dict(wanted.selector), "ports": _ports(wanted.ports)}
    return owned(plan, kinds.SERVICE, wanted.name, wanted.labels, spec)


def _ports(ports: Sequence[Port]) -> list[Json]:
    made: list[Json] = []
    for port in ports:
        one = {"name": port.name, "port": port.port, "targetPort": port.target_port, "protocol": "TCP"}
        made.append({**one, "appProtocol": port.app_protocol} if port.app_protocol else one)
    return made


def routes(plan: DeploymentPlan) -> Iterator[Manifest]:
    """Yield the plan's routes: HTTPRoutes where the cluster has the Gateway API, else one Ingress."""
    if plan.routes and Capability.GATEWAY_API in plan.capabilities:
        yield from (http_route(plan, route) for route in plan.routes)
    elif plan.routes:
        yield ingress(plan)


def http_route(plan: DeploymentPlan, route: Route) -> Manifest:
    """Return the Gateway API route."""
    parent = plan.route_parent
    rules = [_rule(plan, route, [{"type": "PathPrefix", "value": "/"}], route.backends, route.timeout_seconds)]
    if (found := route.explanations) is not None:
        # Every gateway puts whole paths before prefixes; where patterns come, and which there are, is its own affair.
        paths = [{"type": "Exact", "value": path} for model in found.models for path in _explained(model)]
        paths.append({"type": "RegularExpression", "value": _EXPLAIN})
        rules.insert(0, _rule(plan, route, paths, (found.backend,), found.timeout_seconds))
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
        "rules": rules,
    }
    return owned(plan, kinds.HTTP_ROUTE, route.name, {}, spec)


def _rule(
    plan: DeploymentPlan, route: Route, paths: Sequence[Manifest], backends: Sequence[Backend], timeout_seconds: int
) -> Manifest:
    headers = [{"name": name, "value": value} for name, value in route.request_headers.items()]
    return {
        "matches": [{"path": path} for path in paths],
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
            for backend in backends
        ],
        "timeouts": {"request": f"{timeout_seconds}s"},
    }


def ingress(plan: DeploymentPlan) -> Manifest:
    """Return the Ingress of all routes, where there is no Gateway API."""
    rules = [
        {
            "host": host,
            "http": {"paths": [*_explained_paths(route), *(_path("/", "Prefix", one) for one in route.backends)]},
        }
        for route in plan.routes
        for host in route.hosts
    ]
    spec: dict[str, Json] = {"rules": rules}
    if plan.route_parent.ingress_class is not None:
        spec["ingressClassName"] = plan.route_parent.ingress_class
    return owned(plan, kinds.INGRESS, plan.ref.name, {}, spec)


def _explained_paths(route: Route) -> Iterator[Manifest]:
    # An Ingress has no patterns that all controllers know; whole paths come before prefixes with all of them.
    if route.explanations is not None:
        for model in route.explanations.models:
            yield from (_path(path, "Exact", route.explanations.backend) for path in _explained(model))


def _explained(model: str) -> tuple[str, ...]:
    return (f"/v1/models/{model}:explain", f"/v2/models/{model}/explain")


def _path(path: str, kind: str, backend: Backend) -> Manifest:
    service = {"name": backend.workload, "port": {"number": backend.port}}
    return {"path": path, "pathType": kind, "backend": {"service": service}}
