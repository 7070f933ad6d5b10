"""What of a plan is the user's, so that plans of one intent in several dialects are equal; and where two differ.

Erased is what a dialect names by itself, and what follows from that:

- kind and owner of the service; names and selectors of its components, objects, Services and routes; ``owned_labels``;
  the labels and annotations in ``InferenceService.own``; the address inside the cluster.
- The name of the container that answers, and the variables that a dialect promises it (``intent.carried`` says which of
  them stay). Its variables are compared by name, whatever their order.
- Numbers and names of ports. What stays is where the first one leads and whether it speaks HTTP/2; a dialect may promise
  more ports, and declaring one opens nothing.
- How a runtime was chosen: all that it brings is in the pod, its labels and its annotations; among those of the pod are
  the component's own.
- The revision that a canary shares with, which is no wish but what was rolled out.

Written in one way is what means the same:

- No most replicas: as many as the fewest, at least one. Where a mode takes none for no bound, ``convert`` asks the mode.
- No strategy: Kubernetes' own, whose missing parts are filled in.
- No disruption budget: one pod at a time. For a single pod that allows the same as none.
- A canary with all requests: none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

from servery_sdk import intent
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import Canary, Component, DeploymentPlan, InferenceService, Route, Scaling, Workload

MAIN = "main"
"""Stands for the name of every container that answers requests."""

_ROLLING: Json = {"maxUnavailable": "25%", "maxSurge": "25%"}
_BUDGET: Json = {"maxUnavailable": 1}
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS = ("httpGet", "tcpSocket")
_WHOLE = 100


def essence(service: InferenceService, plan: DeploymentPlan) -> Json:
    """Return the part of ``plan`` that is compared, as JSON; ``service`` is what it was made for."""
    names = {workload.name: index for index, workload in enumerate(plan.workloads)}
    return {
        "namespace": plan.ref.namespace,
        "name": plan.ref.name,
        "mode": plan.mode,
        "stopped": plan.stopped,
        "url": plan.url,
        "entry": {"type": plan.entry.type if plan.entry is not None else "ClusterIP"},
        "routes": [_route(route, names) for route in plan.routes],
        "workloads": [
            _workload(service, component, workload)
            for component, workload in zip(service.components, plan.workloads, strict=True)
        ],
    }


def differences(one: Json, other: Json, path: str = "") -> Iterator[str]:
    """Yield where two essences differ: ``workloads[0].timeout_seconds: 30, and null``."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from differences(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{path}[{index}]")
    elif one != other:
        yield f"{path}: {_shown(one)}, and {_shown(other)}"


def spelled_out(service: InferenceService, plan: DeploymentPlan) -> InferenceService:
    """Return ``service`` with whole pods in the place of runtimes and of files to fetch, as ``plan`` has decided them."""
    components = tuple(
        replace(
            component,
            runtime=None,
            artifacts=(),
            container={},
            pod=_with_ports(_without_promises(service, component, workload.pod), workload),
            main_container=workload.main_container,
            labels=workload.labels,
            annotations=workload.pod_annotations,
            env={},
            accelerators_env=None,
            default_resources={},
            replaced=frozenset(),
        )
        for component, workload in zip(service.components, plan.workloads, strict=True)
    )
    return replace(service, components=components)


def _with_ports(pod: Manifest, workload: Workload) -> Manifest:
    """Return a pod that declares where requests go, of which each dialect has a notion of its own."""
    first, *others = pod["containers"]
    ports = first.get("ports") or [{"containerPort": workload.ports[0].target_port, "protocol": "TCP"}]
    return {**pod, "containers": [{**first, "ports": ports}, *others]}


def _shown(value: Json) -> str:
    return "nothing" if value is None else repr(value) if isinstance(value, str) else str(value)


def _workload(service: InferenceService, component: Component, workload: Workload) -> dict[str, Json]:
    port = workload.ports[0]
    workers = workload.workers
    return {
        "kind": str(workload.kind),
        "labels": intent.users(service, workload.labels),
        "pod_labels": intent.users(service, _beyond(workload.pod_labels, workload.selector)),
        "pod_annotations": intent.users(service, workload.pod_annotations),
        "pod": main_pod(service, component, workload.pod),
        "workers": None
        if workers is None
        else {
            "count": workers.count,
            "labels": intent.users(service, workers.labels),
            "annotations": intent.users(service, workers.annotations),
            "pod": main_pod(service, component, workers.pod),
        },
        "model_name": workload.model_name,
        "scaling": _scaling(workload.scaling),
        "replicas": workload.replicas,
        "port": {"target_port": port.target_port, "app_protocol": port.app_protocol},
        "strategy": _strategy(workload.strategy),
        "timeout_seconds": workload.timeout_seconds,
        "canary": _canary(workload.canary),
        "traffic_percent": workload.traffic_percent,
        "concurrency": workload.concurrency,
        "batching": asdict(workload.batching) if workload.batching is not None else None,
        "disruption_budget": dict(workload.disruption_budget or _BUDGET),
        "reads_pods": workload.reads_pods,
    }


def _beyond(labels: Mapping[str, str], selector: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key not in selector}


def main_pod(service: InferenceService, component: Component, pod: Manifest) -> dict[str, Json]:
    """Return the pod of a plan with the container that answers as it is compared."""
    found = _without_promises(service, component, pod)
    first, *others = found["containers"]
    numbers = {port["name"]: port["containerPort"] for port in first.get("ports") or () if "name" in port}
    main: dict[str, Json] = {key: value for key, value in first.items() if key != "ports"} | {"name": MAIN}
    if "env" in main:
        main["env"] = sorted(main["env"], key=lambda variable: str(variable["name"]))
    for name in _PROBES:
        if name in main:
            main[name] = {
                key: {**value, "port": numbers.get(value.get("port"), value.get("port"))} if key in _HANDLERS else value
                for key, value in main[name].items()
            }
    return {**found, "containers": [main, *others]}


def _without_promises(service: InferenceService, component: Component, pod: Manifest) -> dict[str, Json]:
    """Return a pod without the variables that are no more than a dialect's promise."""
    first, *others = pod["containers"]
    promised = intent.promises(service, component)
    left = [variable for variable in first.get("env") or () if variable["name"] not in promised]
    main = {key: value for key, value in first.items() if key != "env"}
    return {**pod, "containers": [{**main, "env": left} if left else main, *others]}


def _scaling(scaling: Scaling) -> dict[str, Json]:
    fewest = scaling.min_replicas
    most = scaling.max_replicas if scaling.max_replicas is not None else max(1, fewest)
    return {**asdict(scaling), "metrics": list(scaling.metrics), "max_replicas": most}


def _strategy(strategy: Manifest) -> Manifest:
    kind = strategy.get("type", "RollingUpdate")
    if kind != "RollingUpdate":
        return {"type": kind}
    return {"type": kind, "rollingUpdate": {**_ROLLING, **(strategy.get("rollingUpdate") or {})}}


def _canary(canary: Canary | None) -> Json:
    if canary is None or (canary.percent == _WHOLE and not canary.tagged):
        return None
    return {"percent": canary.percent, "tagged": canary.tagged}


def _route(route: Route, workloads: Mapping[str, int]) -> dict[str, Json]:
    return {
        "backends": [[workloads[backend.workload], backend.weight] for backend in route.backends],
        "timeout_seconds": route.timeout_seconds,
        "request_headers": dict(route.request_headers),
        "explanations": _explanations(route, workloads),
    }


def _explanations(route: Route, workloads: Mapping[str, int]) -> Json:
    found = route.explanations
    if found is None:
        return None
    return {"backend": workloads[found.backend.workload], "timeout_seconds": found.timeout_seconds}
