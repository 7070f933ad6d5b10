"""What the components of an InferenceService have in common: pods, scaling, and how their requests are shared.

Source: KServe ComponentExtensionSpec and the PodSpec inline beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servery_sdk import names, openapi, quantities, revisions
from servery_sdk.errors import FieldError, FieldErrorKind, unsupported
from servery_sdk.lenient import mapping
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import (
    Artifact,
    AutoscalerClass,
    Batching,
    Canary,
    ComponentKind,
    ScaleMetric,
    Scaling,
    StorageReference,
)
from servery_sdk.runtimes import MODEL_DIR

from servery_dialect_kserve import kinds, payload_logger
from servery_dialect_kserve.kinds import MAIN_CONTAINER

_CUSTOM_TARGET = 80
"""Of a metric that KServe has no default for: what it takes for a CPU's."""
_SHARE, _AVERAGE = "Utilization", "AverageValue"
_AMOUNT = (_AVERAGE,)
_METRIC_TYPES: Mapping[str, tuple[str, ...]] = {ScaleMetric.CPU: (_SHARE,), ScaleMetric.MEMORY: (_SHARE, _AVERAGE)}
"""How the targets of resources count (KServe's rule for KEDA); those of all other metrics are amounts."""
_PLAIN = frozenset({"Standard", "RawDeployment"})
"""KServe's words for plain Kubernetes objects."""


class Extension:
    """Reads one component; its errors come before its values."""

    kind: ComponentKind

    def __init__(self, manifest: Manifest) -> None:
        metadata = manifest.get("metadata", {})
        self.name: str = str(metadata.get("name", ""))
        self.namespace: str = metadata.get("namespace") or "default"
        given = metadata.get("annotations") or {}
        self.annotations: Mapping[str, str] = {name: value for name, value in given.items() if value is not None}
        self.spec: Manifest = manifest["spec"][str(self.kind)]
        self.path = f"spec.{self.kind}"
        self._status: Manifest = mapping(manifest, "status")

    @property
    def suffix(self) -> str:
        """Return what the objects' names have behind the service's."""
        return f"-{self.kind}"

    @property
    def object_name(self) -> str:
        """Return the name of the component's objects."""
        return f"{self.name}{self.suffix}"

    @property
    def is_custom(self) -> bool:
        """Return whether the manifest's own container answers requests."""
        return True

    @property
    def is_plain(self) -> bool:
        """Return whether the manifest asks for plain Kubernetes objects."""
        return self.annotations.get(kinds.MODE) in _PLAIN

    def labels(self, of_service: Mapping[str, str]) -> dict[str, str]:
        """Return the labels of the component's objects."""
        own = {kinds.SERVICE_LABEL: self.name, "component": str(self.kind)}
        return {**of_service, **(self.spec.get("labels") or {}), **own}

    def shared(self, of_service: Mapping[str, str]) -> dict[str, Any]:
        """Return the fields of a Component that every kind of it has from the same words."""
        return {
            "kind": self.kind,
            "name": str(self.kind),
            "object_name": self.object_name,
            "main_container": MAIN_CONTAINER,
            "pod": self._pod(),
            "labels": self.labels(of_service),
            "annotations": {
                **{key: value for key, value in self.annotations.items() if key not in kinds.NOT_COPIED},
                **(self.spec.get("annotations") or {}),
            },
            # KServe's label, in the 63 characters of a label where its five more than the name are too many.
            "selector": {"app": names.shortened(f"isvc.{self.object_name}")},
            "scaling": self._scaling(),
            "timeout_seconds": self.spec.get("timeout"),
            "container_concurrency": self.spec.get("containerConcurrency"),
            "batching": self._batching(),
            "strategy": self.spec.get("deploymentStrategy"),
            "canary": self._canary(),
            "merges_metrics": self.annotations.get(kinds.MERGED_METRICS) == "true",
            "logging": payload_logger.logging(self.spec.get("logger")),
        }

    def _batching(self) -> Batching | None:
        found = self.spec.get("batcher")
        if found is None:
            return None
        milliseconds = found.get("maxLatency")
        return Batching(
            max_batch_rows=found.get("maxBatchSize"),
            max_latency_seconds=None if milliseconds is None else milliseconds / 1000,
            timeout_seconds=found.get("timeout"),
            is_in_front=True,
        )

    def defaults(self) -> Iterator[str]:
        """Yield what KServe would have said in the manifest's place."""
        if self.spec.get("minReplicas") is None:
            yield f"{self.path}.minReplicas: 1 (KServe's default)"

    def warnings(self) -> Iterator[str]:
        """Yield what is accepted, but worth a word."""
        metric = self._metric()
        if metric is not None and metric not in set(ScaleMetric):
            yield (
                f"metric {metric!r}: no part of Kubernetes measures it; an adapter has to serve it for pods under "
                "custom.metrics.k8s.io, such as prometheus-adapter over what NVIDIA's dcgm-exporter says of GPUs"
            )

    def pod_errors(self) -> Iterator[FieldError]:
        """Yield what is wrong with the containers of the manifest's own."""
        containers = self.spec.get("containers")
        listed = containers if isinstance(containers, list) else []
        for index, container in enumerate(listed):
            yield from container_errors(f"{self.path}.containers[{index}]", container)
        # The one that answers requests has its name from KServe.
        unnamed = [index for index, found in enumerate(listed) if isinstance(found, dict) and not found.get("name")]
        has_main = any(isinstance(found, dict) and found.get("name") == MAIN_CONTAINER for found in listed)
        for index in unnamed if not self.is_custom or has_main else unnamed[1:]:
            yield FieldError(path=f"{self.path}.containers[{index}].name", kind=FieldErrorKind.REQUIRED)
        if not self.is_custom:
            return
        given = [container.get("name") for container in listed if isinstance(container, dict)]
        if len(given) > 1 and MAIN_CONTAINER not in given and None not in given:
            yield FieldError(
                path=f"{self.path}.containers",
                kind=FieldErrorKind.INVALID,
                value=given,
                detail=f"one of several containers must be named {MAIN_CONTAINER}: the one that answers requests",
            )
        for index, container in enumerate(listed):
            if isinstance(container, dict) and not container.get("image"):
                yield FieldError(path=f"{self.path}.containers[{index}].image", kind=FieldErrorKind.REQUIRED)

    def source_errors(self, field: str | None) -> Iterator[FieldError]:
        """Yield what is wrong with where files come from: those of ``field``, and ``storageUris``."""
        found = self.spec.get(field) if field is not None else None
        model = found if isinstance(found, dict) else {}
        uri, storage = model.get("storageUri"), model.get("storage")
        several = self.spec.get("storageUris")
        path = f"{self.path}.{field}"
        if uri is not None and several is not None:
            yield FieldError(
                path=f"{self.path}.storageUris",
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
            mount = source.get("mountPath", MODEL_DIR)
            at = f"{self.path}.storageUris[{index}].mountPath"
            if not isinstance(mount, str) or mount == "/" or ".." in mount.split("/"):
                detail = "must be an absolute directory other than '/', without '..'"
                yield FieldError(path=at, kind=FieldErrorKind.INVALID, value=mount, detail=detail)
            elif mount in seen:
                yield FieldError(path=at, kind=FieldErrorKind.DUPLICATE, value=mount)
            else:
                seen.add(mount)

    def scaling_errors(self) -> Iterator[FieldError]:
        """Yield what is wrong with the number of replicas and what moves it, and with what is done on the way to them."""
        yield from payload_logger.errors(f"{self.path}.logger", self.spec.get("logger"))
        fewest, most = self.spec.get("minReplicas"), self.spec.get("maxReplicas")
        if isinstance(fewest, int) and isinstance(most, int) and 0 < most < fewest:
            yield FieldError(
                path=f"{self.path}.maxReplicas",
                kind=FieldErrorKind.INVALID,
                value=most,
                detail=f"must be greater than or equal to minReplicas ({fewest})",
            )
        metric, target = self.spec.get("scaleMetric"), self.spec.get("scaleTarget")
        if metric in (None, "cpu") and isinstance(target, int) and self.is_plain and not 1 <= target <= 100:
            yield FieldError(
                path=f"{self.path}.scaleTarget",
                kind=FieldErrorKind.INVALID,
                value=target,
                detail="the target utilization percentage should be a [1-100] integer",
            )
        elif isinstance(target, int) and target < 1:
            yield FieldError(
                path=f"{self.path}.scaleTarget", kind=FieldErrorKind.INVALID, value=target, detail="must be at least 1"
            )
        yield from self._metric_type_errors()

    def _metric_type_errors(self) -> Iterator[FieldError]:
        found, metric = self.spec.get("scaleMetricType"), self._metric()
        if found not in {_SHARE, _AVERAGE} or mapping(self.spec, "autoScaling").get("metrics"):
            return
        if metric is None and self.is_plain:
            metric = ScaleMetric.CPU
        if metric is None:
            detail = "scaleMetricType says how the target of a metric counts"
            yield FieldError(path=f"{self.path}.scaleMetric", kind=FieldErrorKind.REQUIRED, detail=detail)
        elif not isinstance(metric, str):
            return
        elif found not in (allowed := _METRIC_TYPES.get(metric, _AMOUNT)):
            yield unsupported(f"{self.path}.scaleMetricType", found, allowed, what=f"types of metric {metric}")
        elif found == _AVERAGE and metric == ScaleMetric.MEMORY and self._target() is None:
            detail = "MiB of memory for each pod"
            yield FieldError(path=f"{self.path}.scaleTarget", kind=FieldErrorKind.REQUIRED, detail=detail)

    def artifacts(self, field: str | None) -> tuple[Artifact, ...]:
        """Return the files that are fetched: those that ``storageUris`` or ``field`` name."""
        several = self.spec.get("storageUris")
        if several:
            return tuple(
                Artifact(
                    uri=source["uri"],
                    mount_path=source.get("mountPath", MODEL_DIR),
                    field_path=f"{self.path}.storageUris[{index}].uri",
                )
                for index, source in enumerate(several)
            )
        model = self.spec[field] if field is not None else {}
        uri, storage = model.get("storageUri"), model.get("storage")
        if uri is None and storage is None:
            return ()
        reference = None
        if storage is not None:
            reference = StorageReference(
                path=storage.get("path") or "", key=storage.get("key"), parameters=storage.get("parameters") or {}
            )
        said = "storageUri" if uri is not None else "storage"
        return (Artifact(uri=uri, storage=reference, field_path=f"{self.path}.{field}.{said}"),)

    def _canary(self) -> Canary | None:
        """Return how the newest revision shares with the one that the service's status says was rolled out."""
        percent = self.spec.get("canaryTrafficPercent")
        tagged = self.annotations.get(kinds.TAG_ROUTING) == "true"
        if percent is None and not tagged:
            return None
        before = mapping(mapping(self._status, "components"), str(self.kind))
        return Canary(
            percent=100 if percent is None else percent, stable_revision=revisions.stable(before), tagged=tagged
        )

    def _pod(self) -> Manifest:
        pod = {key: value for key, value in self.spec.items() if key in openapi.POD and value is not None}
        if self.is_custom:
            containers = [dict(container) for container in pod["containers"]]
            unnamed = [container for container in containers if not container.get("name")]
            if len(containers) == 1:
                containers[0]["name"] = MAIN_CONTAINER
            elif unnamed and MAIN_CONTAINER not in [container.get("name") for container in containers]:
                unnamed[0]["name"] = MAIN_CONTAINER
            pod["containers"] = containers
        return pod

    def _scaling(self) -> Scaling:
        spec = self.spec
        own = spec.get("autoScaling") or {}
        metric, target = self._metric(), self._target()
        fewest = spec.get("minReplicas")
        metrics = tuple(own.get("metrics") or ())
        if metric is not None and metric not in set(ScaleMetric) and not metrics:
            metrics = (_of_pods(metric, _CUSTOM_TARGET if target is None else target),)
        if metric == ScaleMetric.MEMORY and spec.get("scaleMetricType") == _SHARE and not metrics:
            metrics = (_of_requested(metric, _CUSTOM_TARGET if target is None else target),)
        return Scaling(
            min_replicas=1 if fewest is None else fewest,
            max_replicas=spec.get("maxReplicas") or None,
            autoscaler_class=AutoscalerClass(self.annotations.get(kinds.AUTOSCALER_CLASS, "hpa")),
            metric=ScaleMetric(metric) if metric in set(ScaleMetric) else None,
            target=target,
            metrics=metrics,
            behavior=own.get("behavior"),
        )

    def _metric(self) -> str | None:
        """Return the name of what is scaled on, one of ScaleMetric or a custom metric's."""
        annotated = (self.annotations.get(name) for name in kinds.METRICS)
        return self.spec.get("scaleMetric") or next((name for name in annotated if name), None)

    def _target(self) -> int | None:
        """Return the metric's target, None for its default."""
        given: int | None = self.spec.get("scaleTarget")
        annotated = self.annotations.get(kinds.TARGET_UTILIZATION, "")
        return int(annotated) if given is None and annotated.isdigit() else given


def container_errors(path: str, container: Json) -> Iterator[FieldError]:
    """Yield what KServe forbids in a container."""
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


def overlay(container: Manifest) -> Manifest:
    """Return the part of an inline container that goes over a runtime's."""
    return {key: value for key, value in container.items() if key in openapi.CONTAINER and value is not None}


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
