"""From an InferenceService manifest to what it means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from servery_sdk import names, openapi, quantities, revisions
from servery_sdk import schema as structural
from servery_sdk.errors import FieldError, FieldErrorKind, Invalid, unsupported
from servery_sdk.kinds import SERVICE_ACCOUNT
from servery_sdk.lenient import mapping
from servery_sdk.manifests import Json, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    Artifact,
    AutoscalerClass,
    Canary,
    Component,
    ComponentKind,
    InferenceService,
    ModelFormat,
    Protocol,
    RuntimeRequest,
    ScaleMetric,
    Scaling,
    StorageReference,
)

from servery_dialect_kserve import kinds, schema
from servery_dialect_kserve.kinds import FRAMEWORKS, INFERENCE_SERVICE, MAIN_CONTAINER

_PREDICTOR = "spec.predictor"
_MODES = {"Standard": "raw", "RawDeployment": "raw", "Knative": "knative", "Serverless": "knative"}
_CUSTOM_TARGET = 80
"""Of a metric that KServe has no default for: what it takes for a CPU's."""
_SHARE, _AVERAGE = "Utilization", "AverageValue"
_AMOUNT = (_AVERAGE,)
_METRIC_TYPES: Mapping[str, tuple[str, ...]] = {ScaleMetric.CPU: (_SHARE,), ScaleMetric.MEMORY: (_SHARE, _AVERAGE)}
"""How the targets of resources count (KServe's rule for KEDA); those of all other metrics are amounts."""
_PLAIN = frozenset({"Standard", "RawDeployment"})
"""KServe's words for plain Kubernetes objects."""

_NOT_YET: Mapping[str, str] = {
    "spec.transformer": "transformers",
    "spec.explainer": "explainers",
    "spec.canary": "canaries",
    f"{_PREDICTOR}.logger": "payload logging",
    f"{_PREDICTOR}.batcher": "the agent's batcher (the model server batches by itself)",
    f"{_PREDICTOR}.workerSpec": "multi-node serving",
    f"{_PREDICTOR}.storageContainerName": "ClusterStorageContainers",
}
"""Field paths whose meaning Servery cannot give yet."""


def parse(manifest: Manifest) -> InferenceService:
    """Return what ``manifest`` means.

    Raises:
        Invalid: Every error at once.
    """
    errors = list(structural.check(manifest, schema.SERVICE))
    if manifest.get("metadata") is None:
        metadata_errors = [FieldError(path="metadata", kind=FieldErrorKind.REQUIRED)]
    else:
        metadata_errors = list(structural.check(manifest["metadata"], openapi.METADATA, "metadata"))
    errors += metadata_errors or _metadata_errors(manifest)
    errors += _refused(manifest)
    # The rules read what has the right shape; without a predictor or metadata there is nothing to read.
    if not metadata_errors and not any(error.path in {_PREDICTOR, "spec"} for error in errors):
        errors += _Predictor(manifest).errors()
    if errors:
        # A schema's error and a rule's may say the same.
        raise Invalid(sorted({str(error): error for error in errors}.values(), key=lambda error: error.path))
    return _service(manifest)


def references(manifest: Manifest) -> frozenset[ObjectRef]:
    """Return the predictor's service account where the model has to be fetched. Total: never raises."""
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    predictor = spec.get("predictor") if isinstance(spec, dict) else None
    if not isinstance(metadata, dict) or not isinstance(predictor, dict):
        return frozenset()
    models = [predictor.get(name) for name in (*FRAMEWORKS, "model")]
    uris = [model.get("storageUri") for model in models if isinstance(model, dict)]
    if not predictor.get("storageUris") and all(not isinstance(uri, str) or uri.startswith("pvc://") for uri in uris):
        return frozenset()
    account = predictor.get("serviceAccountName") or "default"
    namespace = metadata.get("namespace") or "default"
    return frozenset({ObjectRef(SERVICE_ACCOUNT, Namespace(str(namespace)), str(account))})


def _metadata_errors(manifest: Manifest) -> Iterator[FieldError]:
    metadata = manifest["metadata"]
    spec = manifest.get("spec")
    predictor = spec.get("predictor") if isinstance(spec, dict) else None
    suffix = _suffix(predictor if isinstance(predictor, dict) else {})
    if (wrong := names.objection(metadata.get("name"), "metadata.name", suffix=suffix)) is not None:
        yield wrong
    annotations = metadata.get("annotations") or {}
    mode = annotations.get(kinds.MODE)
    if mode is not None and mode not in _MODES:
        yield unsupported(f"metadata.annotations[{kinds.MODE}]", mode, _MODES)
    scaler = annotations.get(kinds.AUTOSCALER_CLASS)
    if scaler is not None and scaler not in set(AutoscalerClass):
        yield unsupported(f"metadata.annotations[{kinds.AUTOSCALER_CLASS}]", scaler, AutoscalerClass)


def _refused(manifest: Manifest) -> Iterator[FieldError]:
    for path, what in _NOT_YET.items():
        found: Json = manifest
        for step in path.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        if found is not None:
            yield FieldError(path=path, kind=FieldErrorKind.FORBIDDEN, detail=f"{what}: not supported by Servery yet")


class _Predictor:
    """Reads ``spec.predictor``; its errors come before its values."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self.name: str = str(manifest.get("metadata", {}).get("name", ""))
        given = manifest.get("metadata", {}).get("annotations") or {}
        self.annotations: Mapping[str, str] = {name: value for name, value in given.items() if value is not None}
        self.spec: Manifest = manifest["spec"]["predictor"]
        self.status: Manifest = mapping(manifest, "status")
        self.frameworks = [name for name in FRAMEWORKS if self.spec.get(name) is not None]

    @property
    def implementations(self) -> list[str]:
        found = [*self.frameworks]
        if self.spec.get("model") is not None:
            found.append("model")
        # Containers beside a model are sidecars of the runtime; alone they are the predictor.
        if not found and self.spec.get("containers"):
            found.append("containers")
        return found

    @property
    def model_field(self) -> str | None:
        found = self.implementations
        return found[0] if found and found[0] != "containers" else None

    @property
    def model(self) -> Manifest:
        return self.spec[self.model_field] if self.model_field else {}

    def errors(self) -> Iterator[FieldError]:
        choices = ", ".join((*FRAMEWORKS, "model", "containers"))
        if len(self.implementations) != 1:
            found = ", ".join(self.implementations) or "none"
            yield FieldError(
                path=_PREDICTOR,
                kind=FieldErrorKind.INVALID,
                value=found,
                detail=f"exactly one of [{choices}] must be specified in PredictorSpec",
            )
        # All at once: what is wrong inside of each that was given, too.
        for field in self.implementations:
            yield from self._model_errors(field)
            yield from self._storage_errors(field)
        yield from self._container_errors()
        yield from self._scaling_errors()

    def _model_errors(self, field: str) -> Iterator[FieldError]:
        model = self.spec[field]
        if not isinstance(model, dict):
            return
        yield from _container_errors(f"{_PREDICTOR}.{field}", model)
        path = f"{_PREDICTOR}.{field}"
        if field == "model" and model.get("modelFormat") is None:
            yield FieldError(path=f"{path}.modelFormat", kind=FieldErrorKind.REQUIRED, detail="the model's format")
        if model.get("name") is not None:
            yield FieldError(
                path=f"{path}.name",
                kind=FieldErrorKind.FORBIDDEN,
                detail="the 'name' field is not allowed in standard predictor",
            )
        if model.get("confidential") is not None:
            yield FieldError(
                path=f"{path}.confidential",
                kind=FieldErrorKind.FORBIDDEN,
                detail="confidential models: not supported by Servery yet",
            )

    def _container_errors(self) -> Iterator[FieldError]:
        containers = self.spec.get("containers")
        listed = containers if isinstance(containers, list) else []
        for index, container in enumerate(listed):
            yield from _container_errors(f"{_PREDICTOR}.containers[{index}]", container)
        # The one that answers requests has its name from KServe.
        unnamed = [index for index, found in enumerate(listed) if isinstance(found, dict) and not found.get("name")]
        has_main = any(isinstance(found, dict) and found.get("name") == MAIN_CONTAINER for found in listed)
        for index in unnamed if self.model_field or has_main else unnamed[1:]:
            yield FieldError(path=f"{_PREDICTOR}.containers[{index}].name", kind=FieldErrorKind.REQUIRED)
        if self.model_field:
            return
        given = [container.get("name") for container in listed if isinstance(container, dict)]
        if len(given) > 1 and MAIN_CONTAINER not in given and None not in given:
            yield FieldError(
                path=f"{_PREDICTOR}.containers",
                kind=FieldErrorKind.INVALID,
                value=given,
                detail=f"one of several containers must be named {MAIN_CONTAINER}: the one that answers requests",
            )
        for index, container in enumerate(listed):
            if isinstance(container, dict) and not container.get("image"):
                yield FieldError(path=f"{_PREDICTOR}.containers[{index}].image", kind=FieldErrorKind.REQUIRED)

    def _storage_errors(self, field: str) -> Iterator[FieldError]:
        model = self.spec[field] if isinstance(self.spec[field], dict) else {}
        uri, storage = model.get("storageUri"), model.get("storage")
        several = self.spec.get("storageUris")
        path = f"{_PREDICTOR}.{field}"
        if uri is not None and several is not None:
            yield FieldError(
                path=f"{_PREDICTOR}.storageUris",
                kind=FieldErrorKind.FORBIDDEN,
                detail="Setting both StorageURI and StorageURIs is not supported.",
            )
        if uri is not None and isinstance(storage, dict) and storage.get("path"):
            yield FieldError(
                path=f"{path}.storage.path",
                kind=FieldErrorKind.FORBIDDEN,
                detail="must provide only one of storageUri and storage.path",
            )
        if uri == "":
            yield FieldError(
                path=f"{path}.storageUri", kind=FieldErrorKind.INVALID, value="", detail="must not be empty"
            )
        seen: set[str] = set()
        for index, source in enumerate(several if isinstance(several, list) else ()):
            if not isinstance(source, dict):
                continue
            mount = source.get("mountPath", "/mnt/models")
            at = f"{_PREDICTOR}.storageUris[{index}].mountPath"
            if not isinstance(mount, str) or mount == "/" or ".." in mount.split("/"):
                detail = "must be an absolute directory other than '/', without '..'"
                yield FieldError(path=at, kind=FieldErrorKind.INVALID, value=mount, detail=detail)
            elif mount in seen:
                yield FieldError(path=at, kind=FieldErrorKind.DUPLICATE, value=mount)
            else:
                seen.add(mount)

    def _scaling_errors(self) -> Iterator[FieldError]:
        fewest, most = self.spec.get("minReplicas"), self.spec.get("maxReplicas")
        if isinstance(fewest, int) and isinstance(most, int) and 0 < most < fewest:
            yield FieldError(
                path=f"{_PREDICTOR}.maxReplicas",
                kind=FieldErrorKind.INVALID,
                value=most,
                detail=f"must be greater than or equal to minReplicas ({fewest})",
            )
        metric, target = self.spec.get("scaleMetric"), self.spec.get("scaleTarget")
        if metric in (None, "cpu") and isinstance(target, int) and self.is_plain and not 1 <= target <= 100:
            yield FieldError(
                path=f"{_PREDICTOR}.scaleTarget",
                kind=FieldErrorKind.INVALID,
                value=target,
                detail="the target utilization percentage should be a [1-100] integer",
            )
        elif isinstance(target, int) and target < 1:
            yield FieldError(
                path=f"{_PREDICTOR}.scaleTarget", kind=FieldErrorKind.INVALID, value=target, detail="must be at least 1"
            )
        yield from self._metric_type_errors()

    def _metric_type_errors(self) -> Iterator[FieldError]:
        found, metric = self.spec.get("scaleMetricType"), _metric(self)
        if found not in {_SHARE, _AVERAGE} or mapping(self.spec, "autoScaling").get("metrics"):
            return
        if metric is None and self.is_plain:
            metric = ScaleMetric.CPU
        if metric is None:
            detail = "scaleMetricType says how the target of a metric counts"
            yield FieldError(path=f"{_PREDICTOR}.scaleMetric", kind=FieldErrorKind.REQUIRED, detail=detail)
        elif not isinstance(metric, str):
            return
        elif found not in (allowed := _METRIC_TYPES.get(metric, _AMOUNT)):
            yield unsupported(f"{_PREDICTOR}.scaleMetricType", found, allowed, what=f"types of metric {metric}")
        elif found == _AVERAGE and metric == ScaleMetric.MEMORY and _target(self) is None:
            detail = "MiB of memory for each pod"
            yield FieldError(path=f"{_PREDICTOR}.scaleTarget", kind=FieldErrorKind.REQUIRED, detail=detail)

    @property
    def mode(self) -> str | None:
        return _MODES.get(self.annotations.get(kinds.MODE, ""))

    @property
    def is_plain(self) -> bool:
        return self.annotations.get(kinds.MODE) in _PLAIN

    @property
    def object_name(self) -> str:
        return f"{self.name}{_suffix(self.spec)}"


def _suffix(predictor: Manifest) -> str:
    """Return what the objects' names have behind the service's."""
    own = predictor.get("name")
    return f"-{own}-predictor" if own else "-predictor"


def _container_errors(path: str, container: Json) -> Iterator[FieldError]:
    if not isinstance(container, dict):
        return
    yield from quantities.resource_errors(container.get("resources"), f"{path}.resources")
    env = container.get("env")
    for index, variable in enumerate(env if isinstance(env, list) else ()):
        if isinstance(variable, dict) and variable.get("name") == "PYTHONPATH":
            yield FieldError(
                path=f"{path}.env[{index}].name",
                kind=FieldErrorKind.FORBIDDEN,
                detail="setting PYTHONPATH is not allowed for security reasons",
            )


def _service(manifest: Manifest) -> InferenceService:
    metadata = manifest["metadata"]
    predictor = _Predictor(manifest)
    labels = {kinds.SERVICE_LABEL: metadata["name"]}
    namespace = metadata.get("namespace") or "default"
    return InferenceService(
        ref=ObjectRef(INFERENCE_SERVICE, Namespace(namespace), metadata["name"]),
        metadata={**metadata, "namespace": namespace, "annotations": _annotations(predictor)},
        components=(_component(predictor, metadata.get("labels") or {}),),
        owned_labels=labels,
        mode=predictor.mode,
        stopped=predictor.annotations.get(kinds.STOP, "").lower() == "true",
        cluster_local=any((metadata.get("labels") or {}).get(label) == "cluster-local" for label in kinds.VISIBILITY),
        own=kinds.OWN,
        defaults=tuple(_defaults(predictor)),
        warnings=tuple(_warnings(predictor)),
    )


def _annotations(predictor: _Predictor) -> Mapping[str, str]:
    """Return the service's annotations with KServe's own ``modelFormat``, which runtimes' placeholders read."""
    if predictor.model_field is None:
        return predictor.annotations
    request = _runtime(predictor)
    assert request.format is not None
    return {"modelFormat": request.format.name, **predictor.annotations}


def _component(predictor: _Predictor, service_labels: Mapping[str, str]) -> Component:
    spec, field = predictor.spec, predictor.model_field
    own = {kinds.SERVICE_LABEL: predictor.name, "component": str(ComponentKind.PREDICTOR)}
    path = f"{_PREDICTOR}.{field or 'containers'}"
    return Component(
        kind=ComponentKind.PREDICTOR,
        name=str(ComponentKind.PREDICTOR),
        object_name=predictor.object_name,
        main_container=MAIN_CONTAINER,
        runtime=_runtime(predictor) if field else None,
        artifacts=_artifacts(predictor),
        container={
            key: value for key, value in predictor.model.items() if key in openapi.CONTAINER and value is not None
        },
        pod=_pod(predictor),
        labels={**service_labels, **(spec.get("labels") or {}), **own},
        annotations={
            **{key: value for key, value in predictor.annotations.items() if key not in kinds.NOT_COPIED},
            **(spec.get("annotations") or {}),
        },
        # KServe's label, in the 63 characters of a label where its five more than the name are too many.
        selector={"app": names.shortened(f"isvc.{predictor.object_name}")},
        env={"INFERENCE_SERVICE_NAME": predictor.name},
        scaling=_scaling(predictor),
        timeout_seconds=spec.get("timeout"),
        container_concurrency=spec.get("containerConcurrency"),
        strategy=spec.get("deploymentStrategy"),
        field_path=path,
        canary=_canary(predictor),
    )


def _canary(predictor: _Predictor) -> Canary | None:
    """Return how the newest revision shares the requests with the one that the service's status says was rolled out."""
    percent = predictor.spec.get("canaryTrafficPercent")
    tagged = predictor.annotations.get(kinds.TAG_ROUTING) == "true"
    if percent is None and not tagged:
        return None
    before = mapping(mapping(predictor.status, "components"), str(ComponentKind.PREDICTOR))
    return Canary(percent=100 if percent is None else percent, stable_revision=revisions.stable(before), tagged=tagged)


def _runtime(predictor: _Predictor) -> RuntimeRequest:
    model, field = predictor.model, predictor.model_field
    assert field is not None
    protocol = model.get("protocolVersion")
    if field == "model":
        found = model["modelFormat"]
        wanted = ModelFormat(name=found["name"], version=found.get("version"))
        by_default = found["name"] in kinds.V2_MODELS
    else:
        wanted = ModelFormat(name=field)
        by_default = field in kinds.V2_BY_DEFAULT
    if protocol is None and by_default:
        protocol = Protocol.V2
    return RuntimeRequest(
        name=model.get("runtime"),
        format=wanted,
        protocol=Protocol(protocol) if protocol else None,
        version=model.get("runtimeVersion"),
        field_path=f"{_PREDICTOR}.{field}",
    )


def _artifacts(predictor: _Predictor) -> tuple[Artifact, ...]:
    model, path = predictor.model, f"{_PREDICTOR}.{predictor.model_field}"
    several = predictor.spec.get("storageUris")
    if several:
        return tuple(
            Artifact(
                uri=source["uri"],
                mount_path=source.get("mountPath", "/mnt/models"),
                field_path=f"{_PREDICTOR}.storageUris[{index}].uri",
            )
            for index, source in enumerate(several)
        )
    uri, storage = model.get("storageUri"), model.get("storage")
    if uri is None and storage is None:
        return ()
    reference = None
    if storage is not None:
        reference = StorageReference(
            path=storage.get("path") or "", key=storage.get("key"), parameters=storage.get("parameters") or {}
        )
    field = "storageUri" if uri is not None else "storage"
    return (Artifact(uri=uri, storage=reference, field_path=f"{path}.{field}"),)


def _pod(predictor: _Predictor) -> Manifest:
    pod = {key: value for key, value in predictor.spec.items() if key in openapi.POD and value is not None}
    if predictor.model_field is None:
        containers = [dict(container) for container in pod["containers"]]
        unnamed = [container for container in containers if not container.get("name")]
        if len(containers) == 1:
            containers[0]["name"] = MAIN_CONTAINER
        elif unnamed and MAIN_CONTAINER not in [container.get("name") for container in containers]:
            unnamed[0]["name"] = MAIN_CONTAINER
        pod["containers"] = containers
    return pod


def _scaling(predictor: _Predictor) -> Scaling:
    spec, annotations = predictor.spec, predictor.annotations
    own = spec.get("autoScaling") or {}
    metric, target = _metric(predictor), _target(predictor)
    fewest = spec.get("minReplicas")
    metrics = tuple(own.get("metrics") or ())
    if metric is not None and metric not in set(ScaleMetric) and not metrics:
        metrics = (_of_pods(metric, _CUSTOM_TARGET if target is None else target),)
    if metric == ScaleMetric.MEMORY and spec.get("scaleMetricType") == _SHARE and not metrics:
        metrics = (_of_requested(metric, _CUSTOM_TARGET if target is None else target),)
    return Scaling(
        min_replicas=1 if fewest is None else fewest,
        max_replicas=spec.get("maxReplicas") or None,
        autoscaler_class=AutoscalerClass(annotations.get(kinds.AUTOSCALER_CLASS, "hpa")),
        metric=ScaleMetric(metric) if metric in set(ScaleMetric) else None,
        target=target,
        metrics=metrics,
        behavior=own.get("behavior"),
    )


def _metric(predictor: _Predictor) -> str | None:
    """Return the name of what is scaled on, one of ScaleMetric or a custom metric's."""
    annotated = (predictor.annotations.get(name) for name in kinds.METRICS)
    return predictor.spec.get("scaleMetric") or next((name for name in annotated if name), None)


def _target(predictor: _Predictor) -> int | None:
    """Return the metric's target, None for its default."""
    given: int | None = predictor.spec.get("scaleTarget")
    annotated = predictor.annotations.get(kinds.TARGET_UTILIZATION, "")
    return int(annotated) if given is None and annotated.isdigit() else given


def _of_requested(name: str, percent: int) -> Manifest:
    """Return the ``autoscaling/v2`` entry of a resource at ``percent`` of what is requested."""
    target = {"type": _SHARE, "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": name, "target": target}}


def _of_pods(name: str, target: int) -> Manifest:
    """Return the ``autoscaling/v2`` entry of a custom metric: its average over the pods."""
    return {
        "type": "Pods",
        "pods": {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": str(target)}},
    }


def _warnings(predictor: _Predictor) -> Iterator[str]:
    metric = _metric(predictor)
    if metric is not None and metric not in set(ScaleMetric):
        yield (
            f"metric {metric!r}: no part of Kubernetes measures it; an adapter has to serve it for pods under "
            "custom.metrics.k8s.io, such as prometheus-adapter over what NVIDIA's dcgm-exporter says of GPUs"
        )


def _defaults(predictor: _Predictor) -> Iterator[str]:
    if predictor.model_field in FRAMEWORKS:
        yield f"{_PREDICTOR}.model.modelFormat.name: {predictor.model_field} (from the field {predictor.model_field})"
    if predictor.spec.get("minReplicas") is None:
        yield f"{_PREDICTOR}.minReplicas: 1 (KServe's default)"
    if predictor.model_field and not predictor.model.get("protocolVersion"):
        implied = _runtime(predictor).protocol
        yield f"{_PREDICTOR}.{predictor.model_field}.protocolVersion: " + (
            f"{implied} (KServe's default for the format)" if implied else "the runtime's first"
        )
