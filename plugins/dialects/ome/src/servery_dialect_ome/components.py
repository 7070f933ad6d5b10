"""From what a manifest says of engine, decoder and router to components."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from servery_sdk.kinds import LEADER_WORKER_SET, SCALED_OBJECT
from servery_sdk.lenient import mapping
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import (
    Canary,
    Component,
    ComponentKind,
    Entry,
    RuntimeRequest,
    Workers,
)

from servery_dialect_ome import kinds, labels, scaling
from servery_dialect_ome.models import Accelerator
from servery_dialect_ome.places import both
from servery_dialect_ome.plain import main_of, over, pod_of, with_variables
from servery_dialect_ome.resolved import Resolved, has_own_containers
from servery_dialect_ome.shapes import Shape, Shapes

_LAST = 50
"""Characters of a component's name that OME keeps in the names of some objects."""
_STRATEGY: Manifest = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
REPLACED = frozenset({"args", "envFrom", "tolerations"})
"""Lists of a manifest in the newer form that come in the place of the runtime's."""


def components(manifest: Manifest, form: Shapes, resolved: Resolved, mode: str | None) -> tuple[Component, ...]:
    """Return the components of a manifest that is right: the engine first."""
    first = ComponentKind.ROUTER if _has_router(form) else ComponentKind.PREDICTOR
    return tuple(
        _component(manifest, form, shape, resolved, mode, is_first=shape.kind is first) for shape in form.components
    )


def entry(service: str, annotations: Mapping[str, str], found: Sequence[Component]) -> Entry:
    """Return the Service in front of router or engine.

    Where an engine leads workers, those have its labels as well; only its own selector tells it from them.
    """
    first = next(component for component in found if component.traffic_percent)
    selector = {kinds.SERVICE_LABEL: service, kinds.COMPONENT_LABEL: first.name}
    if first.kind is ComponentKind.PREDICTOR:
        selector |= first.selector
    return Entry(
        name=service,
        selector=selector,
        labels={kinds.SERVICE_LABEL: service, kinds.COMPONENT_LABEL: "external-service"},
        type=annotations.get(kinds.SERVICE_TYPE, "ClusterIP"),
    )


def _has_router(form: Shapes) -> bool:
    return any(shape.kind is ComponentKind.ROUTER for shape in form.components)


def _component(
    manifest: Manifest, form: Shapes, shape: Shape, resolved: Resolved, mode: str | None, *, is_first: bool
) -> Component:
    metadata, spec = manifest["metadata"], manifest["spec"]
    service, found = metadata["name"], shape.spec
    annotations: Mapping[str, str] = metadata.get("annotations", {})
    name = f"{service}-{shape.word}"
    request = _request(form, shape, resolved)
    container, pod = _leader(shape, resolved, is_own=request is None)
    is_router = shape.kind is ComponentKind.ROUTER
    return Component(
        kind=shape.kind,
        name=shape.word,
        object_name=name,
        object_names={
            LEADER_WORKER_SET.kind: f"lws-{_last(name)}",
            SCALED_OBJECT.kind: f"scaledobject-{_last(name)}",
        },
        main_container=_main_name(shape),
        runtime=request,
        artifacts=() if is_router else resolved.artifacts,
        container=container if request is not None else {},
        pod=pod,
        labels={
            **metadata.get("labels", {}),
            **found.get("labels", {}),
            "app": name,
            **labels.of_component(service, shape.word, resolved.model, resolved.weight, annotations),
        },
        annotations=labels.annotations_of(
            annotations, found.get("annotations", {}), resolved.model, spec.get("compartmentID")
        ),
        selector={"app": name},
        env={} if is_router else _env(resolved),
        accelerators_env=None if is_router else kinds.PARALLELISM,
        default_resources=resolved.accelerators.get(shape.kind, Accelerator()).resources,
        replaced=frozenset() if shape.joins_args else REPLACED,
        scaling=scaling.scaling(shape, spec, annotations, service=service, name=name, mode=mode),
        timeout_seconds=found.get("timeoutSeconds"),
        container_concurrency=found.get("containerConcurrency"),
        strategy=found.get("deploymentStrategy", _STRATEGY),
        field_path=shape.path,
        traffic_percent=100 if is_first else 0,
        # Knative answers on its own port, whatever the container's.
        exposed_as=(80,) if mode == kinds.SERVERLESS else (),
        workers=_workers(shape, resolved, is_own=request is None),
        canary=_canary(manifest, shape, mode),
        disruption_budget=_budget(found, mode),
        reads_pods=is_router,
    )


def _last(name: str) -> str:
    return name[-_LAST:].lstrip("-")


def _request(form: Shapes, shape: Shape, resolved: Resolved) -> RuntimeRequest | None:
    if not resolved.runtime and has_own_containers(shape):
        return None
    return RuntimeRequest(
        name=resolved.runtime or None,
        format=resolved.format,
        protocol=kinds.PROTOCOLS[form.protocol] if form.protocol else None,
        version=form.runtime_version,
        field_path=form.runtime_path,
        traits=resolved.traits,
        default_protocol=None,
    )


def _main_name(shape: Shape) -> str:
    holder = shape.spec.get("leader") or shape.spec
    container, _ = main_of(holder) or main_of(shape.spec) or ({}, ())
    found: str = container.get("name", kinds.MAIN_CONTAINER)
    return found


def _leader(shape: Shape, resolved: Resolved, *, is_own: bool) -> tuple[Manifest, Manifest]:
    """Return the container over the runtime's, and the PodSpec over the runtime's, of the pod that answers requests."""
    found = shape.spec
    leader = found.get("leader", {})
    pod = over(over(_place(shape, resolved), pod_of(found)), pod_of(leader))
    holder = leader if "runner" in leader or "containers" in leader else found
    return _with_main(holder, pod, shape, is_own=is_own)


def _workers(shape: Shape, resolved: Resolved, *, is_own: bool) -> Workers | None:
    found = shape.spec.get("worker")
    if found is None:
        return None
    pod = over(over(_place(shape, resolved), pod_of(shape.spec)), pod_of(found))
    container, whole = _with_main(found, pod, shape, is_own=is_own)
    part = resolved.found.parts.get(shape.kind) if resolved.found else None
    count = found.get("size", (part.worker_count if part else 0) or 1)
    return Workers(count=count, container={} if is_own else container, pod=whole)


def _with_main(holder: Manifest, pod: Manifest, shape: Shape, *, is_own: bool) -> tuple[Manifest, Manifest]:
    if not is_own:
        # Containers beside a runner are sidecars, or say more of the runtime's.
        container = over({"resources": holder["resources"]} if "resources" in holder else {}, holder.get("runner", {}))
        beside = holder.get("containers")
        return _configured(container, shape), {**pod, "containers": beside} if beside else pod
    container, others = main_of(holder) or ({}, ())
    main = {**_configured(container, shape), "name": _main_name(shape)}
    return {}, {**pod, "containers": [main, *others]}


def _configured(container: Manifest, shape: Shape) -> Manifest:
    """Return a router's container with the variables of its ``config``."""
    return with_variables(container, shape.spec.get("config", {}))


def _place(shape: Shape, resolved: Resolved) -> dict[str, Json]:
    """Return where a component's pods run, by its model's storage and its accelerators."""
    if shape.kind is ComponentKind.ROUTER:
        return {}
    return both(resolved.place, resolved.accelerators.get(shape.kind, Accelerator()).place).pod()


def _env(resolved: Resolved) -> dict[str, str]:
    made = {kinds.MODEL_PATH: resolved.path} if resolved.path else {}
    if resolved.configuration:
        made[kinds.MODEL_CONFIGURATION] = json.dumps(resolved.configuration, sort_keys=True)
    return made


def _canary(manifest: Manifest, shape: Shape, mode: str | None) -> Canary | None:
    percent = shape.spec.get("canaryTrafficPercent", 100)
    if percent == 100 or mode != kinds.SERVERLESS:
        return None
    status = mapping(mapping(mapping(manifest, "status"), "components"), shape.word)
    stable = status.get("latestRolledoutRevision")
    return Canary(percent=percent, stable_revision=stable if isinstance(stable, str) else None)


def _budget(found: Manifest, mode: str | None) -> Manifest | None:
    given = {key: found[key] for key in ("minAvailable", "maxUnavailable") if key in found}
    # OME's default; Knative's revisions have none.
    return given or (None if mode == kinds.SERVERLESS else {"maxUnavailable": 1})
