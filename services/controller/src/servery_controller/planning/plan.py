"""From what is wanted to what is run."""

from __future__ import annotations

from collections.abc import Iterator

from servery_sdk.manifests import Manifest
from servery_sdk.model import (
    Backend,
    Catalog,
    Component,
    DeploymentPlan,
    InferenceService,
    Port,
    Route,
    Selection,
    Workload,
)
from servery_sdk.model.service import AutoscalerClass

from servery_controller.planning.pod import DEFAULT_PORT, adapted_labels, pod
from servery_controller.planning.selection import select_runtime
from servery_controller.planning.settings import PlanningSettings

SERVICE_PORT = 80
_STRATEGY: Manifest = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
_H2C = ("grpc", "h2c")


def plan(service: InferenceService, catalog: Catalog, settings: PlanningSettings) -> DeploymentPlan:
    """Return every decision about ``service``.

    Raises:
        Invalid: A storage URI that no provider knows.
        NoPlan: No runtime serves the model, or a placeholder cannot be filled.
    """
    workloads = tuple(_workload(service, component, catalog, settings) for component in service.components)
    entry = workloads[0]
    routes = () if service.cluster_local or service.stopped else tuple(_routes(service, workloads, settings))
    metadata = service.metadata
    return DeploymentPlan(
        ref=service.ref,
        owner={
            "apiVersion": service.ref.kind.api_version,
            "kind": service.ref.kind.kind,
            "name": service.ref.name,
            "uid": metadata.get("uid", ""),
            "controller": True,
            "blockOwnerDeletion": True,
        },
        generation=metadata.get("generation", 0),
        mode=service.mode or settings.default_mode,
        owned_labels=service.owned_labels,
        workloads=workloads,
        routes=routes,
        route_parent=settings.route_parent,
        url=f"{settings.url_scheme}://{_host(service.ref.name, service, settings.ingress_domain)}" if routes else None,
        address=f"http://{entry.name}.{service.ref.namespace}.svc.{settings.cluster_domain}",
        capabilities=frozenset(map(str, catalog.capabilities)),
        stopped=service.stopped,
        explanations=tuple(_explanations(service, workloads, settings)),
    )


def _workload(
    service: InferenceService, component: Component, catalog: Catalog, settings: PlanningSettings
) -> Workload:
    selection = None
    if component.runtime is not None:
        selection = select_runtime(component.runtime, catalog, namespace=service.ref.namespace)
    spec = pod(service, component, selection, catalog, settings)
    runtime_labels = selection.runtime.labels if selection else {}
    runtime_annotations = selection.runtime.annotations if selection else {}
    labels = {**runtime_labels, **adapted_labels(component, selection), **component.labels}
    scaling = component.scaling
    return Workload(
        kind=component.kind,
        name=component.object_name,
        selector=component.selector,
        labels=labels,
        annotations=component.annotations,
        pod_labels={**labels, **component.selector},
        pod_annotations={**runtime_annotations, **component.annotations},
        pod=spec,
        main_container=component.main_container,
        model_name=service.ref.name,
        scaling=scaling,
        ports=tuple(_ports(component, spec["containers"][0])),
        strategy=component.strategy or _STRATEGY,
        replicas=scaling.min_replicas if scaling.autoscaler_class is AutoscalerClass.NONE else None,
        selection=selection,
        timeout_seconds=component.timeout_seconds,
    )


def _ports(component: Component, container: Manifest) -> Iterator[Port]:
    declared = container.get("ports") or [{"containerPort": DEFAULT_PORT}]
    first = declared[0]
    yield Port(
        name=first.get("name") or component.object_name,
        port=SERVICE_PORT,
        target_port=first["containerPort"],
        app_protocol=_app_protocol(first.get("name", "")),
    )
    for port in declared[1:]:
        yield Port(
            name=port.get("name") or f"port-{port['containerPort']}",
            port=port["containerPort"],
            target_port=port["containerPort"],
            app_protocol=_app_protocol(port.get("name", "")),
        )


def _app_protocol(name: str) -> str | None:
    return "kubernetes.io/h2c" if any(word in name for word in _H2C) else None


def _host(name: str, service: InferenceService, domain: str) -> str:
    return f"{name}-{service.ref.namespace}.{domain}"


def _routes(service: InferenceService, workloads: tuple[Workload, ...], settings: PlanningSettings) -> Iterator[Route]:
    headers = {"KServe-Isvc-Name": service.ref.name, "KServe-Isvc-Namespace": service.ref.namespace}
    entry = workloads[0]
    domains = (settings.ingress_domain, *settings.extra_ingress_domains)
    timeout = entry.timeout_seconds or settings.default_timeout_seconds
    backend = (Backend(workload=entry.name, port=SERVICE_PORT),)
    hosts = tuple(_host(service.ref.name, service, domain) for domain in domains)
    yield Route(name=service.ref.name, hosts=hosts, backends=backend, timeout_seconds=timeout, request_headers=headers)
    for workload in workloads:
        yield Route(
            name=workload.name,
            hosts=(_host(workload.name, service, settings.ingress_domain),),
            backends=(Backend(workload=workload.name, port=SERVICE_PORT),),
            timeout_seconds=workload.timeout_seconds or settings.default_timeout_seconds,
            request_headers=headers,
        )


def _explanations(
    service: InferenceService, workloads: tuple[Workload, ...], settings: PlanningSettings
) -> Iterator[str]:
    if service.mode:
        yield f"mode {service.mode}: the manifest asks for it"
    else:
        yield f"mode {settings.default_mode}: the installation's default"
    for workload in workloads:
        if workload.selection is not None:
            yield from _runtime_explanations(workload.selection)
        else:
            yield f"{workload.kind}: a container of the manifest's own, no runtime"
        for container in (*workload.pod.get("initContainers", ()), *workload.pod["containers"]):
            role = "answers requests" if container["name"] == workload.main_container else "runs beside it"
            if container in workload.pod.get("initContainers", ()):
                role = f"runs first: {' '.join(container.get('args', ()))}"
            yield f"container {container['name']} ({container.get('image', 'no image')}): {role}"
    yield from (f"default {default}" for default in service.defaults)


def _runtime_explanations(selection: Selection) -> Iterator[str]:
    yield f"runtime {selection.runtime.name}: {selection.reason}"
    yield from (f"not {rejection.runtime}: {rejection.reason}" for rejection in selection.rejected)
