"""From what is wanted to what is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from servery_sdk.manifests import Manifest
from servery_sdk.model import (
    Backend,
    Catalog,
    Component,
    ComponentKind,
    DeploymentPlan,
    Entry,
    EntryService,
    Explanations,
    InferenceService,
    Part,
    Port,
    Route,
    Selection,
    WorkerPods,
    Workload,
)
from servery_sdk.model.service import AutoscalerClass

from servery_controller.planning import held
from servery_controller.planning.agent import AGENT, AGENT_PORT, METRICS_PORT, needs_agent, speaks_http2
from servery_controller.planning.pod import DEFAULT_PORT, adapted_labels, given, pod, with_accelerators, workers
from servery_controller.planning.selection import select_runtime
from servery_controller.planning.settings import PlanningSettings

SERVICE_PORT = 80
_STRATEGY: Manifest = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}


def plan(service: InferenceService, catalog: Catalog, settings: PlanningSettings) -> DeploymentPlan:
    """Return every decision about ``service``.

    Raises:
        Invalid: A storage URI that no provider knows.
        NoPlan: No runtime serves the model, or a placeholder cannot be filled.
    """
    workloads = tuple(_workload(service, component, catalog, settings) for component in service.components)
    entry = max(workloads, key=lambda workload: workload.traffic_percent)
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
        entry=_entry(service.entry, entry) if service.entry is not None else None,
        routes=routes,
        route_parent=settings.route_parent,
        url=f"{settings.url_scheme}://{_host(service.ref.name, service, settings.ingress_domain)}" if routes else None,
        address=_address(service, entry, settings),
        cluster_domain=settings.cluster_domain,
        capabilities=catalog.capabilities,
        stopped=service.stopped,
        explanations=tuple(_explanations(service, workloads, settings)),
    )


def _workload(
    service: InferenceService, component: Component, catalog: Catalog, settings: PlanningSettings
) -> Workload:
    selection = None
    if component.runtime is not None:
        selection = select_runtime(component.runtime, catalog, service=service.ref, kind=component.kind)
    spec, followers = with_accelerators(
        component,
        pod(service, component, selection, catalog, settings),
        workers(service, component, selection, catalog, settings),
    )
    part = selection.runtime.parts[component.kind] if selection else Part()
    own = {**adapted_labels(component, selection), **component.labels}
    labels = {**part.labels, **own}
    scaling = component.scaling
    return Workload(
        kind=component.kind,
        component=component.name,
        name=component.object_name,
        selector=component.selector,
        labels=labels,
        annotations=component.annotations,
        pod_labels={**labels, **component.selector},
        pod_annotations={**part.annotations, **_scraped(component), **component.annotations},
        pod=spec,
        main_container=spec["containers"][0]["name"],
        model_name=service.ref.name,
        scaling=scaling,
        ports=tuple(_ports(component, spec["containers"][0])),
        strategy=component.strategy or _STRATEGY,
        replicas=scaling.min_replicas if scaling.autoscaler_class is AutoscalerClass.NONE else None,
        selection=selection,
        timeout_seconds=component.timeout_seconds,
        object_names=component.object_names,
        workers=_marked(followers, part, component, own) if followers is not None else None,
        canary=component.canary,
        traffic_percent=component.traffic_percent,
        concurrency=component.container_concurrency or None,
        batching=component.batching,
        disruption_budget=component.disruption_budget,
        reads_pods=component.reads_pods,
        held=held.held(service, component, selection, spec["containers"][0], settings),
        merges_metrics=AGENT if component.merges_metrics else None,
    )


def _scraped(component: Component) -> Mapping[str, str]:
    """Return what tells Prometheus where the metrics are. Source: KServe metrics_aggregate_injector.go."""
    if not component.merges_metrics:
        return {}
    return {"prometheus.io/port": str(METRICS_PORT), "prometheus.io/path": "/metrics"}


def _marked(followers: WorkerPods, part: Part, component: Component, own: Mapping[str, str]) -> WorkerPods:
    """Return workers with the labels and annotations of their leader, but for those that select it, and their own."""
    labels = {**part.labels, **part.worker_labels, **own}
    return replace(
        followers,
        labels={key: value for key, value in labels.items() if key not in component.selector},
        annotations={**part.annotations, **part.worker_annotations, **component.annotations},
    )


def _ports(component: Component, container: Manifest) -> Iterator[Port]:
    declared = container.get("ports") or [{"containerPort": DEFAULT_PORT}]
    own = component.container if component.runtime is not None else container
    asked = {port["containerPort"] for port in own.get("ports") or ()} - component.spoken_ports
    for index, port in enumerate(declared):
        number, name = port["containerPort"], port.get("name")
        yield Port(
            name=name or (component.object_name if index == 0 else f"port-{number}"),
            port=component.exposed_as[index] if index < len(component.exposed_as) else number,
            # The agent is asked first, and speaks HTTP/2 on the same port; other ports are none of its business.
            target_port=AGENT_PORT if needs_agent(component) and index == 0 else number,
            app_protocol=_app_protocol(name or ""),
            asked=number in asked,
        )


def _entry(wanted: Entry, first: Workload) -> EntryService:
    return EntryService(
        name=wanted.name, selector=wanted.selector, ports=first.ports, labels=wanted.labels, type=wanted.type
    )


def _address(service: InferenceService, first: Workload, settings: PlanningSettings) -> str:
    name = service.entry.name if service.entry is not None else first.name
    port = first.ports[0].port
    host = f"{name}.{service.ref.namespace}.svc.{settings.cluster_domain}"
    return f"http://{host}" if port == SERVICE_PORT else f"http://{host}:{port}"


def _app_protocol(name: str) -> str | None:
    return "kubernetes.io/h2c" if speaks_http2(name) else None


def _host(name: str, service: InferenceService, domain: str) -> str:
    return f"{name}-{service.ref.namespace}.{domain}"


def _routes(service: InferenceService, workloads: tuple[Workload, ...], settings: PlanningSettings) -> Iterator[Route]:
    headers = {"KServe-Isvc-Name": service.ref.name, "KServe-Isvc-Namespace": service.ref.namespace}
    domains = (settings.ingress_domain, *settings.extra_ingress_domains)
    first = [workload for workload in workloads if workload.traffic_percent > 0]
    yield Route(
        name=service.ref.name,
        hosts=tuple(_host(service.ref.name, service, domain) for domain in domains),
        backends=tuple(_backend(workload, workload.traffic_percent) for workload in first),
        timeout_seconds=max(workload.timeout_seconds or settings.default_timeout_seconds for workload in first),
        request_headers=headers,
        explanations=_explanations_of(service, workloads, settings),
    )
    for workload in workloads:
        yield Route(
            name=workload.name,
            hosts=(_host(workload.name, service, settings.ingress_domain),),
            backends=(_backend(workload, 100),),
            timeout_seconds=workload.timeout_seconds or settings.default_timeout_seconds,
            request_headers=headers,
        )


def _explanations_of(
    service: InferenceService, workloads: tuple[Workload, ...], settings: PlanningSettings
) -> Explanations | None:
    explainer = next((workload for workload in workloads if workload.kind is ComponentKind.EXPLAINER), None)
    if explainer is None:
        return None
    own = given(explainer.pod["containers"][0], "model_name")
    return Explanations(
        backend=_backend(explainer, 100),
        models=tuple(dict.fromkeys((service.ref.name, own or service.ref.name))),
        timeout_seconds=explainer.timeout_seconds or settings.default_timeout_seconds,
    )


def _backend(workload: Workload, weight: int) -> Backend:
    return Backend(workload=workload.name, port=workload.ports[0].port, weight=weight)


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
            yield f"{workload.component}: a container of the manifest's own, no runtime"
        for container in (*workload.pod.get("initContainers", ()), *workload.pod["containers"]):
            role = "answers requests" if container["name"] == workload.main_container else "runs beside it"
            if container in workload.pod.get("initContainers", ()):
                role = f"runs first: {' '.join(container.get('args', ()))}"
            yield f"container {container['name']} ({container.get('image', 'no image')}): {role}"
        if workload.held is not None:
            names = ", ".join(model.ref.name for model in workload.held.assigned) or "none yet"
            yield f"{workload.component}: models come and go, each with a manifest of its own; now {names}"
            for away in workload.held.turned_away:
                yield f"{workload.component}: model {away.model.ref.name} is turned away: {away.message}"
        if workload.workers is not None:
            yield f"{workload.component}: each pod leads {workload.workers.count} workers"
        if workload.kind is ComponentKind.TRANSFORMER:
            yield f"{workload.component}: gets all requests, and asks {workloads[0].name}"
        if workload.kind is ComponentKind.EXPLAINER:
            yield (
                f"{workload.component}: gets requests for explanations (:explain), where the mode does not route between "
                f"components from whoever gets the others, and asks {workloads[0].name}"
            )
        if workload.traffic_percent not in {0, 100}:
            yield f"{workload.component}: {workload.traffic_percent} % of the requests"
        if workload.concurrency is not None:
            yield (
                f"{workload.component}: at most {workload.concurrency} requests at once in one pod, where the mode has "
                "something before its pods that holds the others back"
            )
        if workload.merges_metrics is not None:
            yield f"{workload.component}: the agent tells the metrics of everything in the pod, on port {METRICS_PORT}"
        if workload.batching is not None and workload.batching.is_in_front:
            yield (
                f"{workload.component}: an agent in front of the server asks for many requests at once, those that come "
                "while the server is busy; v1 answers say which batch they were in"
            )
        elif workload.batching is not None and workload.batching.max_batch_rows:
            yield f"{workload.component}: {_batching(workload, workload.batching.max_batch_rows)}"
    yield from (f"default {default}" for default in service.defaults)
    yield from (f"warning: {warning}" for warning in service.warnings)


def _batching(workload: Workload, max_batch_rows: int) -> str:
    if workload.selection is not None and workload.selection.runtime.model_class is not None:
        return (
            f"batches of up to {max_batch_rows} rows gather in the model server, from what comes while the model "
            "computes; no request waits for others, so a latency needs no bound"
        )
    # The agent that gathers them is not there yet.
    return (
        f"batches of up to {max_batch_rows} rows are the agent's work, "
        "which Servery does not have yet; the server gets requests as they come"
    )


def _runtime_explanations(selection: Selection) -> Iterator[str]:
    yield f"runtime {selection.runtime.name}: {selection.reason}"
    yield from (f"not {rejection.runtime}: {rejection.reason}" for rejection in selection.rejected)
