"""From what a service means to an Inference manifest.

KubeDL has no runtimes and fetches nothing: its pods say all of themselves, so a service is written whose components
hold whole pods. A model's volume is one of theirs, so no ModelVersion is needed.
"""

from __future__ import annotations

from collections.abc import Iterator

from servery_sdk import intent, openapi
from servery_sdk.errors import FieldError, Invalid
from servery_sdk.lenient import mappings
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import AutoscalerClass, Component, ComponentKind, InferenceService, Scaling

from servery_dialect_kubedl import server
from servery_dialect_kubedl.kinds import INFERENCE, MAIN_CONTAINER, OWN

_NAME = "KubeDL"
_SCALERS = {AutoscalerClass.HPA: "HorizontalPodAutoscaler", AutoscalerClass.KEDA: "ScaledObject"}
_ROLLING: Json = {"maxUnavailable": "25%", "maxSurge": "25%"}
_BUDGETS = (None, {"maxUnavailable": 1})
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_H2C = ("grpc", "h2c")
"""Parts of a port's name that say that it speaks HTTP/2 alone."""


def write(service: InferenceService) -> tuple[Manifest, ...]:
    """Return the Inference that means ``service``.

    Raises:
        Invalid: Every error at once.
    """
    if errors := [*_errors(service)]:
        raise Invalid(sorted(errors, key=lambda error: error.path))
    pods = [_pod(service, component) for component in service.components]
    weights = len(service.components) > 1
    manifest = {
        "apiVersion": INFERENCE.api_version,
        "kind": INFERENCE.kind,
        "metadata": intent.metadata(service),
        "spec": {
            "framework": _framework(pods),
            "predictors": [
                _predictor(service, component, pod, weights)
                for component, pod in zip(service.components, pods, strict=True)
            ],
        },
    }
    return (manifest,)


def _errors(service: InferenceService) -> Iterator[FieldError]:
    yield from intent.metadata_errors(service, _NAME, OWN, shared=False)
    if service.mode is not None:
        yield intent.refusal("metadata.annotations", _NAME, f"mode {service.mode}: the installation's default runs it")
    if service.stopped:
        yield intent.refusal("metadata.annotations", _NAME, "that nothing is to run for now")
    if service.cluster_local:
        yield intent.refusal("metadata", _NAME, "that nobody outside is to reach it")
    if service.entry is not None and service.entry.type != "ClusterIP":
        yield intent.refusal("metadata.annotations", _NAME, f"a Service of type {service.entry.type}")
    for component in service.components:
        if component.runtime is not None:
            what = "a runtime: its containers are the manifest's own"
            yield intent.refusal(component.runtime.field_path, _NAME, what)
        for artifact in component.artifacts:
            yield intent.refusal(artifact.field_path, _NAME, "a URI of a model that is to be fetched")
        for what in (*_unsayable(component), *_unsayable_scaling(component.scaling)):
            yield intent.refusal(component.field_path, _NAME, what)
        yield from intent.name_errors(component, _NAME, MAIN_CONTAINER)


def _unsayable(component: Component) -> Iterator[str]:
    if component.kind is not ComponentKind.PREDICTOR:
        yield f"a {component.kind}"
    if component.workers is not None:
        yield "pods that each replica leads"
    if _is_http2(next(mappings(intent.main(component), "ports"), {})):
        yield "a server of gRPC alone: the first port of its Service is REST's"
    if component.logging is not None:
        yield "payload logging"
    if component.merges_metrics:
        yield "metrics of the whole pod on one page"
    if component.held is not None:
        yield "models that come and go while it runs"
    if component.timeout_seconds is not None:
        yield f"how long a request may take ({component.timeout_seconds} seconds)"
    if component.container_concurrency:
        yield f"a bound of the requests at once ({component.container_concurrency})"
    if component.canary is not None:
        yield "a share for the newest revision; it has predictors with weights"
    if component.disruption_budget not in _BUDGETS:
        yield "a disruption budget"
    if not _is_usual(component.strategy):
        yield "a deployment strategy other than Kubernetes' own: deploymentStrategy: {type: RollingUpdate}"
    if component.accelerators_env is not None and intent.uses(component, component.accelerators_env):
        yield f"variable {component.accelerators_env}, which counts the GPUs of a pod"
    if component.default_resources:
        yield f"{', '.join(sorted(component.default_resources))} where the container does not ask for it"
    if component.reads_pods:
        yield "the right to look at the pods of the namespace"
    batching = component.batching
    if batching is not None and batching.is_in_front:
        yield "a batcher in front of the server"
    elif batching is not None and (batching.max_batch_rows is None or batching.timeout_seconds is not None):
        yield "batching without batchSize, or with a timeout of the batch"
    if batching is not None and (batching.max_latency_seconds or 0) % 1:
        yield "a latency of a part of a second"
    for key in sorted(component.pod.keys() - openapi.POD.keys()):
        yield f"{key} of the pod"


def _unsayable_scaling(scaling: Scaling) -> Iterator[str]:
    if scaling.autoscaler_class is AutoscalerClass.EXTERNAL:
        yield "an autoscaler of somebody else without its name"
    if scaling.metric is not None or scaling.target is not None or scaling.metrics:
        yield "what its autoscaler looks at"
    if scaling.behavior is not None:
        yield "the behavior of its autoscaler"


def _is_usual(strategy: Manifest | None) -> bool:
    if strategy is None:
        return True
    rolling = {**_ROLLING, **(strategy.get("rollingUpdate") or {})}
    return bool(strategy.get("type", "RollingUpdate") == "RollingUpdate" and rolling == _ROLLING)


def _predictor(service: InferenceService, component: Component, pod: Manifest, weights: bool) -> Manifest:
    made: dict[str, Json] = {"name": component.name}
    if weights:
        made["trafficWeight"] = component.traffic_percent
    scaling = component.scaling
    fewest = scaling.min_replicas
    if scaling.autoscaler_class is AutoscalerClass.NONE:
        made["replicas"] = fewest
    else:
        if scaling.initial_replicas is not None:
            made["replicas"] = scaling.initial_replicas
        most = scaling.max_replicas or max(1, fewest)
        kind = _SCALERS[scaling.autoscaler_class]
        made["autoScale"] = {"minReplicas": fewest, "maxReplicas": most, "autoScaler": {"kind": kind}}
    if component.batching is not None:
        made["batching"] = {"batchSize": component.batching.max_batch_rows}
        if component.batching.max_latency_seconds is not None:
            made["batching"]["timeoutSeconds"] = int(component.batching.max_latency_seconds)
    found = {"labels": component.labels, "annotations": component.annotations}
    metadata = {field: own for field, given in found.items() if (own := intent.users(service, given))}
    made["template"] = {"metadata": metadata, "spec": pod} if metadata else {"spec": pod}
    return made


def _pod(service: InferenceService, component: Component) -> Manifest:
    main, *others = intent.containers(component, MAIN_CONTAINER)
    main = intent.with_env(main, intent.carried(service, component))
    return {**component.pod, "containers": [_named_ports(main), *others]}


def _named_ports(container: Manifest) -> Manifest:
    """Return a container whose ports have the names by which KubeDL's Service finds them, its probes likewise."""
    ports = list(mappings(container, "ports"))
    if not ports:
        return container
    first, *rest = ports
    names = {id(first): "http"}
    if (speaks_grpc := next(filter(_is_http2, rest), None)) is not None:
        names[id(speaks_grpc)] = "grpc"
    renamed = {str(port["name"]): names[id(port)] for port in ports if id(port) in names and "name" in port}
    made: dict[str, Json] = {
        **container,
        "ports": [{**port, "name": names[id(port)]} if id(port) in names else port for port in ports],
    }
    for name in _PROBES:
        if name in made:
            made[name] = {key: _renamed(value, renamed) for key, value in made[name].items()}
    return made


def _is_http2(port: Manifest) -> bool:
    return any(word in str(port.get("name", "")) for word in _H2C)


def _renamed(handler: Json, names: dict[str, str]) -> Json:
    if isinstance(handler, dict) and handler.get("port") in names:
        return {**handler, "port": names[handler["port"]]}
    return handler


def _framework(pods: list[Manifest]) -> str:
    """Return the server in the containers; where it is neither, the one whose flags none of them has."""
    containers = [pod["containers"][0] for pod in pods]
    for name, found in server.SERVERS.items():
        if all(server.is_of(container, found) for container in containers):
            return name
    return next(name for name, found in server.SERVERS.items() if not found.finds_by_name)
