"""Deployment plans as planning makes them, for Hypothesis."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import strategies as st

from servery_sdk.manifests import Json, Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    AutoscalerClass,
    Backend,
    Capability,
    ComponentKind,
    DeploymentPlan,
    Port,
    Route,
    RouteParent,
    ScaleMetric,
    Scaling,
    Workload,
)

_KIND = Kind("example.com/v1", "InferenceService", "inferenceservices")
_LABEL_VALUES = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=63)
_WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=12)
_IMAGES = _WORDS.map(lambda word: f"acme/{word}:1")
_LABELS = st.dictionaries(_WORDS.map(lambda word: f"example.com/{word}"), _LABEL_VALUES, max_size=2)


def names(*, longest: int = 63) -> st.SearchStrategy[str]:
    """Return the strategy of DNS labels, the longest among them."""
    inner = st.text(string.ascii_lowercase + string.digits + "-", max_size=longest - 2)
    return st.sampled_from(string.ascii_lowercase) | st.just("n" * longest) | inner.map(lambda text: f"a{text}z")


@st.composite
def pods(draw: st.DrawFn) -> Manifest:
    """Return the strategy of complete PodSpecs: every mount has its volume, every container its own name."""
    found = draw(st.lists(names(), min_size=1, max_size=4, unique=True))
    volumes = draw(st.lists(names(), max_size=2, unique=True))
    containers = [draw(_containers(name, volumes)) for name in found]
    first = draw(st.integers(0, len(containers) - 1))
    pod: dict[str, Json] = {"containers": containers[first:], "serviceAccountName": draw(names())}
    if first:
        pod["initContainers"] = containers[:first]
    if volumes:
        pod["volumes"] = [{"name": name, "emptyDir": {}} for name in volumes]
    return pod


@st.composite
def _containers(draw: st.DrawFn, name: str, volumes: list[str]) -> Manifest:
    container: dict[str, Json] = {"name": name, "image": draw(_IMAGES)}
    if draw(st.booleans()):
        container["ports"] = [{"containerPort": draw(st.integers(1024, 65535))}]
    if draw(st.booleans()):
        container["env"] = [{"name": "A", "value": draw(_WORDS)}]
    mounts = draw(st.lists(st.sampled_from(volumes), unique=True)) if volumes else []
    if mounts:
        container["volumeMounts"] = [{"name": mount, "mountPath": f"/mnt/{mount}"} for mount in mounts]
    return container


@st.composite
def _scalings(draw: st.DrawFn, capabilities: frozenset[Capability]) -> Scaling:
    # Planning does not ask KEDA to scale where there is none.
    classes = [
        found for found in AutoscalerClass if found is not AutoscalerClass.KEDA or Capability.KEDA in capabilities
    ]
    fewest = draw(st.integers(0, 3))
    return Scaling(
        min_replicas=fewest,
        max_replicas=draw(st.none() | st.integers(max(1, fewest), 9)),
        autoscaler_class=draw(st.sampled_from(classes)),
        metric=draw(st.none() | st.sampled_from([ScaleMetric.CPU, ScaleMetric.MEMORY])),
        target=draw(st.none() | st.integers(1, 100)),
        behavior=draw(st.none() | st.just({"scaleDown": {"stabilizationWindowSeconds": 60}})),
    )


@st.composite
def _workloads(
    draw: st.DrawFn, kind: ComponentKind, name: str, owned: Manifest, capabilities: frozenset[Capability]
) -> Workload:
    selector = {"app": name}
    labels = {**draw(_LABELS), **owned, "component": str(kind)}
    ports = draw(st.lists(st.integers(1, 65535), min_size=1, max_size=3, unique=True))
    pod = draw(pods())
    scaling = draw(_scalings(capabilities))
    return Workload(
        kind=kind,
        component=str(kind),
        name=name,
        selector=selector,
        labels=labels,
        annotations=draw(_LABELS),
        pod_labels={**labels, **selector},
        pod_annotations=draw(_LABELS),
        pod=pod,
        main_container=pod["containers"][0]["name"],
        model_name=draw(_WORDS),
        scaling=scaling,
        ports=tuple(
            Port(
                name=f"port-{index}",
                port=port,
                target_port=draw(st.integers(1, 65535)),
                app_protocol=draw(st.none() | st.just("kubernetes.io/h2c")),
            )
            for index, port in enumerate(ports)
        ),
        strategy={"type": "RollingUpdate"},
        replicas=scaling.min_replicas if scaling.autoscaler_class is AutoscalerClass.NONE else None,
        timeout_seconds=draw(st.none() | st.integers(1, 600)),
    )


@st.composite
def deployment_plans(draw: st.DrawFn, *, mode: str = "raw", stopped: bool = False) -> DeploymentPlan:
    """Return the strategy of plans of ``mode``, with one workload or more, with routes or without.

    Names reach the 63 characters that Kubernetes allows. A plan asks for KEDA only where its cluster has it.
    """
    ref = ObjectRef(_KIND, Namespace(draw(names())), draw(names()))
    capabilities = draw(st.frozensets(st.sampled_from(Capability)))
    owned = {"example.com/service": ref.name}
    components = draw(st.lists(st.sampled_from(ComponentKind), min_size=1, unique=True))
    own = draw(st.lists(names(), min_size=len(components), max_size=len(components), unique=True))
    workloads = tuple(
        draw(_workloads(kind, name, owned, capabilities)) for kind, name in zip(components, own, strict=True)
    )
    routed: list[Any] = draw(st.lists(st.sampled_from(workloads), unique_by=lambda workload: workload.name))
    routes = () if stopped else tuple(_route(workload, ref) for workload in routed)
    gateway = draw(st.booleans())
    return DeploymentPlan(
        ref=ref,
        owner={
            "apiVersion": _KIND.api_version,
            "kind": _KIND.kind,
            "name": ref.name,
            "uid": draw(st.uuids().map(str)),
            "controller": True,
            "blockOwnerDeletion": True,
        },
        generation=draw(st.integers(0, 9)),
        mode=mode,
        owned_labels=owned,
        workloads=workloads,
        routes=routes,
        route_parent=RouteParent(gateway_namespace="gateways", gateway_name="main")
        if gateway
        else RouteParent(ingress_class=draw(st.none() | st.just("nginx"))),
        url=f"http://{ref.name}.example.com" if routes else None,
        address=f"http://{workloads[0].name}.{ref.namespace}.svc.cluster.local",
        capabilities=capabilities,
        stopped=stopped,
    )


def _route(workload: Workload, ref: ObjectRef) -> Route:
    return Route(
        name=workload.name,
        hosts=(f"{workload.name}.example.com",),
        backends=(Backend(workload=workload.name, port=workload.ports[0].port),),
        timeout_seconds=workload.timeout_seconds or 60,
        request_headers={"Service-Name": ref.name},
    )
