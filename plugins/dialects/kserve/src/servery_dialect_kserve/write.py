"""From what a service means to an InferenceService manifest."""

from __future__ import annotations

from collections.abc import Iterator

from servery_sdk import intent, openapi
from servery_sdk.errors import FieldError, Invalid
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import (
    AutoscalerClass,
    Batching,
    Component,
    ComponentKind,
    InferenceService,
    ModelFormat,
    ModelTraits,
    Protocol,
    RuntimeRequest,
    Scaling,
)
from servery_sdk.runtimes import MODEL_DIR

from servery_dialect_kserve import companions, kinds, payload_logger
from servery_dialect_kserve.kinds import INFERENCE_SERVICE, MAIN_CONTAINER
from servery_dialect_kserve.trained import ALONE

_NAME = "KServe"
_MODES = {"raw": "Standard", "knative": "Knative"}
_COMPANIONS = frozenset({ComponentKind.TRANSFORMER, ComponentKind.EXPLAINER})
_PROTOCOLS = frozenset({Protocol.V1, Protocol.V2, Protocol.GRPC_V1, Protocol.GRPC_V2})
_BUDGETS = (None, {"maxUnavailable": 1})
"""What one pod at a time comes to; KServe has no words for a disruption budget."""


def write(service: InferenceService) -> tuple[Manifest, ...]:
    """Return the InferenceService that means ``service``.

    Raises:
        Invalid: Every error at once.
    """
    if errors := [*_errors(service)]:
        raise Invalid(sorted(errors, key=lambda error: error.path))
    return (_manifest(service),)


def _errors(service: InferenceService) -> Iterator[FieldError]:
    yield from intent.metadata_errors(service, _NAME, kinds.OWN, shared=True)
    if service.mode is not None and service.mode not in _MODES:
        yield intent.refusal("metadata.annotations", _NAME, f"mode {service.mode}")
    if service.entry is not None and service.entry.type != "ClusterIP":
        yield intent.refusal("metadata.annotations", _NAME, f"a Service of type {service.entry.type}")
    first, *others = service.components
    seen: set[ComponentKind] = set()
    for other in others:
        if other.kind not in _COMPANIONS or other.kind in seen:
            yield intent.refusal(other.field_path, _NAME, f"{other.name} beside {first.name}: it has one predictor")
        seen.add(other.kind)
    if first.kind is not ComponentKind.PREDICTOR:
        yield intent.refusal(first.field_path, _NAME, f"a {first.kind} without a predictor")
    for component in (first, *(other for other in others if other.kind in _COMPANIONS)):
        for what in _unsayable(component):
            yield intent.refusal(component.field_path, _NAME, what)
        yield from intent.name_errors(component, _NAME, MAIN_CONTAINER)
        if component.runtime is not None:
            yield from _runtime_errors(component)
        yield from _artifact_errors(component)
    for component in service.components:
        if component.scaling.autoscaler_class is not first.scaling.autoscaler_class:
            yield intent.refusal(component.field_path, _NAME, "an autoscaler class other than that of the predictor")


def _unsayable(component: Component) -> Iterator[str]:
    is_companion = component.kind in _COMPANIONS
    if component.workers is not None:
        yield "pods that each replica leads"
    if component.batching is not None and not component.batching.is_in_front:
        yield "batching in the model server"
    if component.held is None and _would_hold(component):
        yield "a model without a source, other than one that its server finds by itself: there it holds TrainedModels"
    if component.scaling.initial_replicas not in {None, component.scaling.min_replicas}:
        yield f"{component.scaling.initial_replicas} replicas to begin with, other than minReplicas"
    if component.disruption_budget not in _BUDGETS:
        yield "a disruption budget"
    if component.accelerators_env is not None and intent.uses(component, component.accelerators_env):
        yield f"variable {component.accelerators_env}, which counts the GPUs of a pod and its workers"
    if component.default_resources != (companions.RESOURCES if is_companion else {}):
        yield f"{', '.join(sorted(component.default_resources))} where the runtime does not ask for it"
    if component.reads_pods:
        yield "the right to look at the pods of the namespace"
    if (replaced := component.replaced & intent.fields(component)) and component.runtime is not None:
        listed = ", ".join(sorted(replaced))
        yield f"{listed} in the place of the runtime's: they come behind them"
    for key in sorted(component.pod.keys() - openapi.POD.keys()):
        yield f"{key} of the pod"
    for key in sorted(component.container.keys() - openapi.CONTAINER.keys()):
        yield f"{key} of the container"


def _would_hold(component: Component) -> bool:
    """Return whether the predictor that is written would be one of many models."""
    request = component.runtime
    is_alone = request is None or (request.format is not None and request.format.name in ALONE)
    return component.kind is ComponentKind.PREDICTOR and not is_alone and not component.artifacts


def _runtime_errors(component: Component) -> Iterator[FieldError]:
    request = component.runtime
    assert request is not None
    path = request.field_path
    if component.kind in _COMPANIONS:
        is_art = component.kind is ComponentKind.EXPLAINER and request.format == ModelFormat(name=companions.ART)
        if not is_art or request != RuntimeRequest(
            format=request.format, version=request.version, field_path=request.field_path
        ):
            yield intent.refusal(
                path, _NAME, f"a runtime of a {component.kind}, but for explainers of {companions.ART}"
            )
        return
    if request.format is None:
        yield intent.refusal(path, _NAME, "a model without its format")
    elif request.format.name in kinds.V2_MODELS and request.protocol is None:
        yield intent.refusal(path, _NAME, f"format {request.format.name} without a protocol: it speaks v2 then")
    if request.protocol is not None and request.protocol not in _PROTOCOLS:
        yield intent.refusal(path, _NAME, f"protocol {request.protocol}")
    if request.traits != ModelTraits():
        yield intent.refusal(path, _NAME, "a model's architecture, framework, quantization, size or accelerators")


def _artifact_errors(component: Component) -> Iterator[FieldError]:
    for artifact in component.artifacts:
        if artifact.env:
            names = ", ".join(str(variable["name"]) for variable in artifact.env)
            what = f"what opens this source ({names}): it takes that from the secrets of the service account"
            yield intent.refusal(artifact.field_path, _NAME, what)
        is_single = len(component.artifacts) == 1 and artifact.mount_path == MODEL_DIR
        if artifact.storage is not None and not (is_single and component.runtime is not None):
            yield intent.refusal(artifact.field_path, _NAME, f"a credential entry for files at {artifact.mount_path}")


def _manifest(service: InferenceService) -> Manifest:
    metadata = intent.metadata(service)
    component = service.predictor
    annotations = {**metadata.get("annotations", {}), **dict(_annotations(service, component))}
    labels = {**metadata.get("labels", {}), **({kinds.VISIBILITY[0]: "cluster-local"} if service.cluster_local else {})}
    for field, found in (("labels", labels), ("annotations", annotations)):
        if found:
            metadata[field] = found
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": INFERENCE_SERVICE.kind,
        "metadata": metadata,
        "spec": {str(found.kind): _component(service, found) for found in service.components},
    }


def _annotations(service: InferenceService, component: Component) -> Iterator[tuple[str, str]]:
    if service.mode is not None:
        yield kinds.MODE, _MODES[service.mode]
    if component.scaling.autoscaler_class is not AutoscalerClass.HPA:
        yield kinds.AUTOSCALER_CLASS, str(component.scaling.autoscaler_class)
    if service.stopped:
        yield kinds.STOP, "true"
    if component.canary is not None and component.canary.tagged:
        yield kinds.TAG_ROUTING, "true"
    if component.merges_metrics:
        yield kinds.MERGED_METRICS, "true"


def _component(service: InferenceService, component: Component) -> Manifest:
    variables = intent.carried(service, component)
    made: dict[str, Json] = {}
    own = _own_name(service.ref.name, component.object_name)
    if own is not None and component.kind is ComponentKind.PREDICTOR:
        made["name"] = own
    if component.runtime is not None:
        container = intent.with_env(component.container, variables)
        if component.kind is ComponentKind.PREDICTOR:
            made["model"] = _model(component, component.runtime, container)
        else:
            made[companions.ART] = _art(component, component.runtime, container)
    listed = intent.containers(component, MAIN_CONTAINER)
    if listed and component.runtime is None:
        listed = [intent.with_env(listed[0], variables), *listed[1:]]
    if len(component.artifacts) > 1 or any(
        _is_elsewhere(component, index) for index in range(len(component.artifacts))
    ):
        made["storageUris"] = [{"uri": found.uri, "mountPath": found.mount_path} for found in component.artifacts]
    made |= component.pod
    if listed:
        made["containers"] = listed
    made |= _scaling(component.scaling) | intent.beyond(service, component)
    said = {
        "timeout": component.timeout_seconds,
        "containerConcurrency": component.container_concurrency,
        "deploymentStrategy": component.strategy,
        "logger": payload_logger.written(component.logging),
        "canaryTrafficPercent": component.canary.percent if component.canary is not None else None,
    }
    if component.batching is not None:
        made["batcher"] = _batcher(component.batching)
    return {**made, **{key: value for key, value in said.items() if value is not None}}


def _batcher(batching: Batching) -> dict[str, Json]:
    latency = batching.max_latency_seconds
    said = {
        "maxBatchSize": batching.max_batch_rows,
        "maxLatency": None if latency is None else round(latency * 1000),
        "timeout": None if batching.timeout_seconds is None else int(batching.timeout_seconds),
    }
    return {key: value for key, value in said.items() if value is not None}


def _own_name(service: str, object_name: str) -> str | None:
    """Return the predictor's name, where its objects have one of their own beside the service's."""
    middle = object_name.removeprefix(f"{service}-").removesuffix("-predictor")
    return middle if object_name == f"{service}-{middle}-predictor" else None


def _is_elsewhere(component: Component, index: int) -> bool:
    # Containers of one's own say no ``storageUri``.
    return component.artifacts[index].mount_path != MODEL_DIR or component.runtime is None


def _model(component: Component, request: RuntimeRequest, container: Manifest) -> Manifest:
    assert request.format is not None
    found: dict[str, Json] = {"modelFormat": {"name": request.format.name}}
    if request.format.version is not None:
        found["modelFormat"]["version"] = request.format.version
    said = {"runtime": request.name, "runtimeVersion": request.version, "protocolVersion": request.protocol}
    found |= {key: str(value) for key, value in said.items() if value is not None}
    return {**found, **_source(component), **container}


def _art(component: Component, request: RuntimeRequest, container: Manifest) -> Manifest:
    told = {key: value for key, value in component.flags.items() if key not in companions.TOLD}
    found: dict[str, Json] = {"type": told.pop("adversary_type")}
    if told:
        found["config"] = told
    if request.version is not None:
        found["runtimeVersion"] = request.version
    return {**found, **_source(component), **container}


def _source(component: Component) -> dict[str, Json]:
    found: dict[str, Json] = {}
    if len(component.artifacts) == 1 and not _is_elsewhere(component, 0):
        artifact = component.artifacts[0]
        if artifact.uri is not None:
            found["storageUri"] = artifact.uri
        if artifact.storage is not None:
            storage = {"path": artifact.storage.path or None, "key": artifact.storage.key}
            found["storage"] = {key: value for key, value in storage.items() if value is not None}
            if artifact.storage.parameters:
                found["storage"]["parameters"] = dict(artifact.storage.parameters)
    return found


def _scaling(scaling: Scaling) -> dict[str, Json]:
    made: dict[str, Json] = {"minReplicas": scaling.min_replicas}
    if scaling.max_replicas is not None:
        made["maxReplicas"] = scaling.max_replicas
    if scaling.metric is not None:
        made["scaleMetric"] = str(scaling.metric)
    if scaling.target is not None:
        made["scaleTarget"] = scaling.target
    own: dict[str, Json] = {"metrics": list(scaling.metrics)} if scaling.metrics else {}
    if scaling.behavior is not None:
        own["behavior"] = scaling.behavior
    return {**made, "autoScaling": own} if own else made
