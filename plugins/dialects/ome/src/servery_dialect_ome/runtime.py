"""From a ServingRuntime manifest to a Runtime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from servery_sdk import openapi
from servery_sdk import schema as structural
from servery_sdk.errors import FieldError, FieldErrorKind, Invalid, unsupported
from servery_sdk.lenient import mapping, mappings
from servery_sdk.manifests import CLUSTER, Json, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    ComponentKind,
    ParameterRange,
    Part,
    Runtime,
    RuntimeScope,
    SupportedFormat,
    VersionRule,
)

from servery_dialect_ome import kinds, labels, models, schema
from servery_dialect_ome.plain import (
    all_of,
    beyond,
    main_of,
    over,
    pod_errors,
    pod_of,
    sound,
    with_variables,
    without_nulls,
)

_PARTS = {
    "engineConfig": ComponentKind.PREDICTOR,
    "decoderConfig": ComponentKind.DECODER,
    "routerConfig": ComponentKind.ROUTER,
}
_DEFAULT_WEIGHTS = {"modelFormat": 10, "modelFramework": 5}
"""Of a weight of 0 (OME's scorer)."""

_NO_SCALING = "a runtime does not say this of the services that it serves; say it in the service"
_NOT_COMPARED = "not compared with AcceleratorClasses by Servery yet; list the classes in acceleratorClasses"
_NOT_YET: Mapping[str, str] = {
    **{f"spec.{part}.{name}": _NO_SCALING for part in _PARTS for name in (*schema.SCALING, "acceleratorOverride")},
    **{
        f"spec.acceleratorRequirements.{name}": _NOT_COMPARED
        for name in (
            "minMemory",
            "minComputePerformanceTFLOPS",
            "minArchitectureVersion",
            "requiredFeatures",
            "preferredPrecisions",
        )
    },
}
"""Field paths of which Servery cannot give the meaning, and what to do."""

_NOT_YET_OF_FORMATS: Mapping[str, str] = {
    "diffusionPipeline": "not compared with models by Servery yet; name the architecture in modelArchitecture",
    "acceleratorConfig": "not supported by Servery yet; make a runtime for each accelerator class",
}


def parse(manifest: Manifest) -> Runtime:
    """Return what a runtime object means.

    Raises:
        Invalid: Every error at once.
    """
    found = without_nulls(manifest)
    shape = [*structural.check(manifest, schema.RUNTIME), *_metadata_errors(found.get("metadata"))]
    spec = mapping(sound(found, schema.RUNTIME) or {}, "spec")
    errors = [*shape, *beyond(_spec_errors(spec), shape)]
    if errors:
        raise Invalid(all_of(errors))
    return _runtime(found)


def _metadata_errors(metadata: Json) -> Iterator[FieldError]:
    if metadata is not None:
        yield from structural.check(metadata, openapi.METADATA, "metadata")
    if metadata is None or (isinstance(metadata, dict) and not metadata.get("name")):
        yield FieldError(path="metadata.name", kind=FieldErrorKind.REQUIRED)


def _spec_errors(spec: Manifest) -> Iterator[FieldError]:
    for path, why in _NOT_YET.items():
        _, part, name = path.split(".")
        if name in mapping(spec, part):
            yield FieldError(path=path, kind=FieldErrorKind.FORBIDDEN, detail=why)
    if "engineConfig" not in spec and "containers" not in spec:
        yield FieldError(path="spec.engineConfig", kind=FieldErrorKind.REQUIRED, detail="what serves the model")
    yield from _container_errors(spec)
    for index, found in enumerate(mappings(spec, "supportedModelFormats")):
        yield from _format_errors(found, f"spec.supportedModelFormats[{index}]")
    for index, word in enumerate(spec.get("protocolVersions") or ()):
        if isinstance(word, str) and word not in kinds.PROTOCOLS:
            yield unsupported(f"spec.protocolVersions[{index}]", word, kinds.PROTOCOLS)
    for bound, size in mapping(spec, "modelSizeRange").items():
        if isinstance(size, str) and models.parameters(size) is None:
            detail = "must be a number, with M, B or T behind it for millions, billions or trillions of parameters"
            yield FieldError(
                path=f"spec.modelSizeRange.{bound}", kind=FieldErrorKind.INVALID, value=size, detail=detail
            )


def _container_errors(spec: Manifest) -> Iterator[FieldError]:
    yield from pod_errors(spec, "spec")
    for part in (*_PARTS, "workers"):
        yield from pod_errors(mapping(spec, part), f"spec.{part}")
    for part in _PARTS:
        found = mapping(spec, part)
        leader = mapping(found, "leader")
        if part in spec and not any(key in one for one in (found, leader) for key in ("runner", "containers")):
            detail = "the container that answers requests"
            yield FieldError(path=f"spec.{part}.runner", kind=FieldErrorKind.REQUIRED, detail=detail)
    names = [container.get("name") for container in mappings(spec, "containers")]
    if "engineConfig" not in spec and len(names) > 1 and kinds.MAIN_CONTAINER not in names:
        detail = f"one of several containers must be named {kinds.MAIN_CONTAINER}: the one that answers requests"
        yield FieldError(path="spec.containers", kind=FieldErrorKind.INVALID, value=names, detail=detail)
    elif "containers" in spec and not names:
        yield FieldError(path="spec.containers", kind=FieldErrorKind.REQUIRED)


def _format_errors(found: Manifest, path: str) -> Iterator[FieldError]:
    if "modelFormat" not in found and "name" not in found:
        yield FieldError(path=f"{path}.modelFormat", kind=FieldErrorKind.REQUIRED, detail="the format of the files")
    for name, why in _NOT_YET_OF_FORMATS.items():
        if name in found:
            yield FieldError(path=f"{path}.{name}", kind=FieldErrorKind.FORBIDDEN, detail=why)


def _runtime(manifest: Manifest) -> Runtime:
    metadata, spec = manifest["metadata"], manifest["spec"]
    is_cluster = manifest.get("kind") == kinds.CLUSTER_SERVING_RUNTIME.kind
    kind = kinds.CLUSTER_SERVING_RUNTIME if is_cluster else kinds.SERVING_RUNTIME
    namespace = CLUSTER if is_cluster else Namespace(metadata.get("namespace") or "default")
    parts = dict(_parts(metadata["name"], spec))
    bounds = spec.get("modelSizeRange", {})
    return Runtime(
        name=metadata["name"],
        scope=RuntimeScope.CLUSTER if is_cluster else RuntimeScope.NAMESPACE,
        ref=ObjectRef(kind, namespace, metadata["name"]),
        formats=tuple(_formats(spec.get("supportedModelFormats", ()))),
        protocols=frozenset(kinds.PROTOCOLS[word] for word in spec.get("protocolVersions", ())),
        image=parts[ComponentKind.PREDICTOR].container.get("image", ""),
        parts=parts,
        parameters=ParameterRange(
            fewest=models.parameters(bounds.get("min", "")), most=models.parameters(bounds.get("max", ""))
        ),
        accelerators=frozenset(spec.get("acceleratorRequirements", {}).get("acceleratorClasses", ())),
        disabled=spec.get("disabled", False),
        # Without a date: among equals OME takes the first by name, not the newest.
    )


def _formats(listed: Sequence[Manifest]) -> Iterator[SupportedFormat]:
    # One that says nothing may be chosen where another of the runtime's may.
    otherwise = any(found.get("autoSelect") for found in listed)
    for found in listed:
        named = found.get("modelFormat") or {key: found[key] for key in ("name", "version") if key in found}
        framework = found.get("modelFramework", {})
        yield SupportedFormat(
            name=named["name"],
            version=named.get("version"),
            rule=VersionRule(named.get("operator", "Equal")),
            auto_select=found.get("autoSelect", otherwise),
            priority=found.get("priority", 1),
            weight=_weight(named, "modelFormat") + (_weight(framework, "modelFramework") if framework else 0),
            framework=models.versioned(framework),
            framework_rule=VersionRule(framework.get("operator", "Equal")),
            architecture=found.get("modelArchitecture"),
            quantization=found.get("quantization"),
            is_exact=True,
        )


def _weight(found: Manifest, what: str) -> int:
    weight: int = found.get("weight", 1)
    return weight or _DEFAULT_WEIGHTS[what]


def _parts(name: str, spec: Manifest) -> Iterator[tuple[ComponentKind, Part]]:
    shared = pod_of(spec)
    marked = {**spec.get("labels", {}), kinds.RUNTIME_LABEL: labels.value(name)}
    annotations = {**spec.get("annotations", {}), f"{kinds.GROUP}/serving-runtime": name}
    if "engineConfig" not in spec:
        yield ComponentKind.PREDICTOR, _older(spec, shared, marked, annotations)
    for field, kind in _PARTS.items():
        if field not in spec:
            continue
        # The pod of the whole is of what runs models: a router needs no node with accelerators.
        base = {} if kind is ComponentKind.ROUTER else shared
        yield kind, _part(spec[field], base, marked, annotations)


def _part(found: Manifest, base: Manifest, marked: Mapping[str, str], annotations: Mapping[str, str]) -> Part:
    """Return a part in the newer form; a leader's pod is over the pod of the whole, and so are its workers'."""
    whole = over(base, pod_of(found))
    leader, worker = found.get("leader", {}), found.get("worker", {})
    container, others = main_of(leader) or main_of(found) or ({}, ())
    worker_main = main_of(worker)
    worker_container, worker_others = worker_main or (None, ())
    return Part(
        container=with_variables(container, found.get("config", {})),
        pod=_with_containers(over(whole, pod_of(leader)), others),
        labels={**marked, **found.get("labels", {})},
        annotations={**annotations, **found.get("annotations", {})},
        worker_container=worker_container,
        worker_pod=_with_containers(over(whole, pod_of(worker)), worker_others),
        worker_count=worker.get("size", 1) if worker else 0,
    )


def _older(spec: Manifest, shared: Manifest, marked: Mapping[str, str], annotations: Mapping[str, str]) -> Part:
    """Return the one part of the older form, whose main container has OME's name or is the only one."""
    container, *others = sorted(spec["containers"], key=lambda found: found["name"] != kinds.MAIN_CONTAINER)
    workers = spec.get("workers", {})
    worker_main = main_of(workers)
    worker_container, worker_others = worker_main or (None, ())
    return Part(
        container={key: value for key, value in container.items() if key != "name"},
        pod=_with_containers(shared, others),
        labels=marked,
        annotations=annotations,
        worker_container=worker_container,
        worker_pod=_with_containers(over(shared, pod_of(workers)), worker_others),
        worker_labels=workers.get("labels", {}),
        worker_annotations=workers.get("annotations", {}),
        worker_count=workers.get("size", 1) if workers else 0,
    )


def _with_containers(pod: Manifest, others: Sequence[Manifest]) -> Manifest:
    return {**pod, "containers": list(others)} if others else pod
