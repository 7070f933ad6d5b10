"""From what a service means to an InferenceService and its BaseModel.

The newer form is written where it can say all; the older one where arguments join the runtime's, or a protocol or a
version of the runtime is asked for, for which the newer has no field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from servery_sdk import intent
from servery_sdk.errors import FieldError, Invalid
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import (
    Artifact,
    AutoscalerClass,
    Component,
    ComponentKind,
    InferenceService,
    ModelFormat,
    RuntimeRequest,
)

from servery_dialect_ome import kinds, modes, scaling, schema
from servery_dialect_ome.components import REPLACED
from servery_dialect_ome.labels import WORDS
from servery_dialect_ome.models import DEFAULT_PATH

_NAME = "OME"
_MODES = {mode: word for word, mode in reversed(modes.MODES.items())}
_PROTOCOLS = {protocol: word for word, protocol in kinds.PROTOCOLS.items()}
_BUDGET = {"maxUnavailable": 1}
_WHOLE = 100


def write(service: InferenceService) -> tuple[Manifest, ...]:
    """Return the InferenceService that means ``service``, and the BaseModel that it names, if any.

    Raises:
        Invalid: Every error at once.
    """
    if errors := [*_errors(service)]:
        raise Invalid(sorted(errors, key=lambda error: error.path))
    found = _inference_service(service)
    return (found, _base_model(service)) if _artifact(service) is not None else (found,)


def _is_serverless(service: InferenceService) -> bool:
    return service.mode is not None and _MODES.get(service.mode) == kinds.SERVERLESS


def _artifact(service: InferenceService) -> Artifact | None:
    return next(iter(service.predictor.artifacts), None)


def _errors(service: InferenceService) -> Iterator[FieldError]:
    yield from intent.metadata_errors(service, _NAME, kinds.OWN, shared=True)
    if service.stopped:
        yield intent.refusal("metadata.annotations", _NAME, "that nothing is to run for now")
    if service.mode is not None and service.mode not in _MODES:
        yield intent.refusal("metadata.annotations", _NAME, f"mode {service.mode}")
    seen: set[ComponentKind] = set()
    for component in service.components:
        if component.kind not in WORDS:
            yield intent.refusal(component.field_path, _NAME, f"a {component.kind}")
        elif component.kind in seen:
            what = f"{component.name} beside {service.predictor.name}: it has one {WORDS[component.kind]}"
            yield intent.refusal(component.field_path, _NAME, what)
        seen.add(component.kind)
        for what in (*_unsayable(service, component), *_unsayable_scaling(service, component)):
            yield intent.refusal(component.field_path, _NAME, what)
        yield from intent.name_errors(component, _NAME, kinds.MAIN_CONTAINER)
        yield from _runtime_errors(service, component)
        yield from _artifact_errors(service, component)


def _unsayable(service: InferenceService, component: Component) -> Iterator[str]:
    if component.batching is not None:
        yield (
            "batching in the model server" if not component.batching.is_in_front else "a batcher in front of the server"
        )
    if component.default_resources:
        yield f"{', '.join(sorted(component.default_resources))} where the runtime does not ask for it"
    if component.logging is not None:
        yield "payload logging"
    if component.merges_metrics:
        yield "metrics of the whole pod on one page"
    if component.held is not None:
        yield "models that come and go while it runs"
    if component.canary is not None and component.canary.tagged:
        yield "an address for the newest revision alone"
    if component.canary is not None and component.canary.percent != _WHOLE and not _is_serverless(service):
        yield "a share for the newest revision without its mode Serverless"
    if component.container_concurrency == 0:
        yield "no bound of the requests at once; leave it out"
    if component.env.keys() & {kinds.MODEL_CONFIGURATION} and _configuration(component) is None:
        yield f"a {kinds.MODEL_CONFIGURATION} that is no JSON object"
    if component.workers is not None and component.workers.container and component.runtime is None:
        yield "a container of the workers over a runtime's, without a runtime"
    if component.kind is ComponentKind.ROUTER and component is service.predictor:
        yield "a router without an engine"
    for key in sorted(component.pod.keys() - schema.POD.keys()):
        yield f"{key} of the pod"


def _unsayable_scaling(service: InferenceService, component: Component) -> Iterator[str]:
    found = component.scaling
    if found.autoscaler_class is AutoscalerClass.NONE:
        yield "a number of replicas that nobody moves: its services have autoscalers"
    if found.initial_replicas not in {None, found.min_replicas}:
        yield f"{found.initial_replicas} replicas to begin with, other than minReplicas"
    if found.behavior is not None:
        yield "the behavior of its autoscaler"
    if found.max_replicas is None and _is_serverless(service):
        yield "no bound of the replicas, which this mode would have; say maxReplicas"
    if found.autoscaler_class is AutoscalerClass.KEDA:
        if _keda(component) is None:
            yield "what KEDA looks at: it knows one query of Prometheus"
    elif [*found.metrics] != _of_memory(service, component):
        yield "metrics of its autoscaler as they stand; its target for memory is a percentage"
    if service.mode is None and (component.workers is not None or component.kind is ComponentKind.DECODER):
        yield "several pods a replica in the installation's default mode; ask for a mode"
    is_moved = found.autoscaler_class is AutoscalerClass.HPA
    if service.mode is None and found.min_replicas == 0 and is_moved:
        yield "no replica in the installation's default mode: it takes Serverless then; ask for a mode"


def _of_memory(service: InferenceService, component: Component) -> list[Manifest]:
    """Return the metrics that OME's words for memory mean."""
    found = component.scaling
    if found.metric != "memory" or _is_serverless(service):
        return []
    return [scaling.of_memory(found.target)]


def _keda(component: Component) -> Manifest | None:
    """Return the ``kedaConfig`` that means the component's metrics, None where none does."""
    if len(component.scaling.metrics) != 1:
        return None
    external = component.scaling.metrics[0].get("external", {})
    metric, target = external.get("metric", {}), external.get("target", {})
    if metric.get("backend") != "prometheus" or target.get("type") != "AverageValue" or "%s" in metric.get("query", ""):
        return None
    made: dict[str, Json] = {
        "enableKeda": True,
        "promServerAddress": metric["serverAddress"],
        "customPromQuery": metric["query"],
        "scalingThreshold": str(target["value"]),
    }
    authentication = external.get("authenticationRef", {})
    if "authenticationRef" in authentication:
        made["authenticationRef"] = authentication["authenticationRef"]
    if "authModes" in authentication:
        made["authModes"] = authentication["authModes"]
    return made


def _runtime_errors(service: InferenceService, component: Component) -> Iterator[FieldError]:
    request = component.runtime
    if request is None:
        return
    path = request.field_path
    if request.name is None and component.container.get("image"):
        yield intent.refusal(path, _NAME, "an image of one's own over a runtime that is to be chosen; name the runtime")
    if request.format is None and request.name is None:
        yield intent.refusal(path, _NAME, "a runtime that is to be chosen for a model without a format")
    if request.format is not None and _artifact(service) is None:
        yield intent.refusal(path, _NAME, "a model's format without its files: a base model has both")
    if request.protocol is not None and request.protocol not in _PROTOCOLS:
        yield intent.refusal(path, _NAME, f"protocol {request.protocol}")
    if len(request.traits.accelerators) > 1:
        yield intent.refusal(path, _NAME, "several accelerator classes")
    is_engine = component.kind is ComponentKind.PREDICTOR
    joined = REPLACED & intent.fields(component)
    if _is_older(component) and not is_engine:
        yield intent.refusal(path, _NAME, "what its newer form lacks of another component than the engine")
    elif _is_older(component) and joined & component.replaced:
        listed = ", ".join(sorted(joined & component.replaced))
        yield intent.refusal(path, _NAME, f"{listed} in the place of the runtime's, in its older form")
    elif any(other.runtime != request and other.runtime is not None for other in service.components):
        yield intent.refusal(path, _NAME, "another runtime for each component")


def _artifact_errors(service: InferenceService, component: Component) -> Iterator[FieldError]:
    first = _artifact(service)
    for artifact in component.artifacts[1:]:
        yield intent.refusal(artifact.field_path, _NAME, "a second source of files")
    if component.kind is not ComponentKind.ROUTER and next(iter(component.artifacts), None) != first:
        yield intent.refusal(component.field_path, _NAME, "another model for each component")
    if component.kind is ComponentKind.ROUTER and component.artifacts:
        yield intent.refusal(component.field_path, _NAME, "files of a router")
    if component is not service.predictor or first is None:
        return
    if first.uri is None or first.storage is not None:
        yield intent.refusal(first.field_path, _NAME, "a credential entry; a base model has a URI")
    elif first.env and _opened(first) is None:
        names = ", ".join(str(variable["name"]) for variable in first.env)
        yield intent.refusal(first.field_path, _NAME, f"what opens this source ({names})")


def _opened(artifact: Artifact) -> Manifest | None:
    """Return the fields of a BaseModel's storage that bring the artifact's variables, None where none do."""
    uri, env = artifact.uri or "", [*artifact.env]
    region = next((found["value"] for found in env if found["name"] == "AWS_DEFAULT_REGION" and "value" in found), None)
    if region is not None and uri.startswith("s3://"):
        bucket, slash, path = uri.removeprefix("s3://").partition("/")
        return {"storageUri": f"s3://{bucket}@{region}{slash}{path}"} if len(env) == 1 else None
    if len(env) != 1 or not uri.startswith("hf://") or env[0]["name"] != "HF_TOKEN":
        return None
    secret = env[0].get("valueFrom", {}).get("secretKeyRef")
    if secret is None:
        return {"parameters": {"token": env[0]["value"]}} if env[0].get("value") else None
    return {"key": secret["name"], "parameters": {"secretKey": secret["key"]}} if secret.get("optional") else None


def _configuration(component: Component) -> dict[str, Json] | None:
    try:
        found = json.loads(component.env.get(kinds.MODEL_CONFIGURATION, "{}"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _is_older(component: Component) -> bool:
    request = component.runtime
    if request is None:
        return False
    joined = REPLACED & intent.fields(component)
    return request.protocol is not None or request.version is not None or bool(joined - component.replaced)


def _inference_service(service: InferenceService) -> Manifest:
    metadata = intent.metadata(service)
    annotations = {**metadata.get("annotations", {}), **dict(_annotations(service))}
    if annotations:
        metadata["annotations"] = annotations
    spec: dict[str, Json] = {}
    first, is_older = service.predictor, _is_older(service.predictor)
    if _artifact(service) is not None and not is_older:
        spec["model"] = {"name": service.ref.name, "kind": kinds.BASE_MODEL.kind}
    request = next((component.runtime for component in service.components if component.runtime is not None), None)
    if request is not None and request.name is not None and not is_older:
        spec["runtime"] = {"name": request.name}
    for component in service.components:
        found = _component(service, component)
        if component is first and is_older:
            assert component.runtime is not None
            spec["predictor"] = {"model": _model(service, component, component.runtime), **found}
        else:
            spec[WORDS[component.kind]] = found
    identity = kinds.INFERENCE_SERVICE
    return {"apiVersion": identity.api_version, "kind": identity.kind, "metadata": metadata, "spec": spec}


def _annotations(service: InferenceService) -> Iterator[tuple[str, str]]:
    if service.mode is not None:
        yield kinds.MODES[0], _MODES[service.mode]
    if service.cluster_local:
        yield kinds.NO_INGRESS, "true"
    if service.entry is not None and service.entry.type != "ClusterIP":
        yield kinds.SERVICE_TYPE, service.entry.type
    runtime = service.predictor.runtime
    if runtime is not None:
        yield from ((kinds.ACCELERATOR, name) for name in runtime.traits.accelerators)


def _model(service: InferenceService, component: Component, request: RuntimeRequest) -> Manifest:
    made: dict[str, Json] = {"baseModel": service.ref.name} if _artifact(service) is not None else {}
    said = {
        "runtime": request.name,
        "runtimeVersion": request.version,
        "protocolVersion": _PROTOCOLS[request.protocol] if request.protocol is not None else None,
    }
    made |= {key: value for key, value in said.items() if value is not None}
    return {**made, **intent.with_env(component.container, _variables(service, component))}


def _variables(service: InferenceService, component: Component) -> dict[str, str]:
    """Return the promised variables to say, but for what a base model says, and what OME promises itself."""
    artifact = _artifact(service)
    own = {kinds.MODEL_PATH: artifact.mount_path} if artifact is not None else {}
    if _configures(service) and component.kind is not ComponentKind.ROUTER:
        own[kinds.MODEL_CONFIGURATION] = component.env[kinds.MODEL_CONFIGURATION]
    return {name: value for name, value in intent.carried(service, component).items() if own.get(name) != value}


def _configures(service: InferenceService) -> bool:
    return _artifact(service) is not None and kinds.MODEL_CONFIGURATION in service.predictor.env


def _component(service: InferenceService, component: Component) -> Manifest:
    variables, is_older = _variables(service, component), _is_older(component)
    pod: dict[str, Json] = {key: value for key, value in component.pod.items() if key != "containers"}
    listed = intent.containers(component, kinds.MAIN_CONTAINER)
    if component.runtime is None:
        main, *listed = listed
        pod["runner"] = intent.with_env(main, variables)
    elif not is_older and (component.container or variables or listed):
        # Without a runner, the first of the sidecars would be taken for what answers.
        pod["runner"] = intent.with_env(component.container, variables)
    if listed:
        pod["containers"] = listed
    # Workers take what lies beside them, but nothing of the leader's.
    made: dict[str, Json] = {"leader": pod} if component.workers is not None and not is_older else pod
    made |= _scaling(component)
    own = intent.beyond(service, component)
    if component.scaling.autoscaler_class is AutoscalerClass.EXTERNAL:
        own["annotations"] = {**own.get("annotations", {}), kinds.AUTOSCALER_CLASS: str(AutoscalerClass.EXTERNAL)}
    made |= own
    said = {
        "timeoutSeconds": component.timeout_seconds,
        "containerConcurrency": component.container_concurrency,
        # OME's own default lets no pod go before another is there; Kubernetes' says more shortly.
        "deploymentStrategy": component.strategy or {"type": "RollingUpdate"},
        "canaryTrafficPercent": component.canary.percent if component.canary is not None else None,
    }
    made |= {key: value for key, value in said.items() if value is not None}
    if component.disruption_budget not in (None, _BUDGET):
        made |= component.disruption_budget or {}
    if component.workers is not None:
        made["workerSpec" if is_older else "worker"] = _worker(component)
    return made


def _worker(component: Component) -> Manifest:
    assert component.workers is not None
    workers = component.workers
    made: dict[str, Json] = {"size": workers.count, **{k: v for k, v in workers.pod.items() if k != "containers"}}
    listed = list(workers.pod.get("containers") or ())
    if component.runtime is None:
        main, *listed = listed
        made["runner"] = {**main, "name": kinds.MAIN_CONTAINER}
    elif workers.container or listed:
        made["runner"] = dict(workers.container)
    return {**made, "containers": listed} if listed else made


def _scaling(component: Component) -> dict[str, Json]:
    found = component.scaling
    made: dict[str, Json] = {
        "minReplicas": found.min_replicas,
        "maxReplicas": max(1, found.min_replicas) if found.max_replicas is None else found.max_replicas,
    }
    if found.metric is not None:
        made["scaleMetric"] = str(found.metric)
    if found.target is not None:
        made["scaleTarget"] = found.target
    if found.autoscaler_class is AutoscalerClass.KEDA:
        made["kedaConfig"] = _keda(component)
    return made


def _base_model(service: InferenceService) -> Manifest:
    artifact = _artifact(service)
    assert artifact is not None
    request, spec = service.predictor.runtime, dict[str, Json]()
    if request is not None:
        traits = request.traits
        said = {
            "modelFormat": _versioned(request.format),
            "modelFramework": _versioned(traits.framework),
            "modelArchitecture": traits.architecture,
            "quantization": traits.quantization,
            "modelParameterSize": str(traits.parameters) if traits.parameters is not None else None,
        }
        spec = {key: value for key, value in said.items() if value is not None}
    if _configures(service):
        spec["modelConfiguration"] = _configuration(service.predictor)
    storage: dict[str, Json] = {"storageUri": artifact.uri}
    if artifact.mount_path != DEFAULT_PATH:
        storage["path"] = artifact.mount_path
    if artifact.env:
        storage |= _opened(artifact) or {}
    identity = kinds.BASE_MODEL
    return {
        "apiVersion": identity.api_version,
        "kind": identity.kind,
        "metadata": {"name": service.ref.name, "namespace": service.ref.namespace},
        "spec": {**spec, "storage": storage},
    }


def _versioned(found: ModelFormat | None) -> Manifest | None:
    if found is None:
        return None
    return {"name": found.name, "version": found.version} if found.version is not None else {"name": found.name}
