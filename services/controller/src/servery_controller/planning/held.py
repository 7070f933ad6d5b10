"""Many models in one predictor: which it gets, what its pod needs for that, and the ConfigMap that says them.

Source: KServe pkg/controller/v1alpha1/trainedmodel, pkg/modelconfig, pkg/webhook/admission/pod/agent_injector.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal

from servery_sdk import quantities
from servery_sdk.kinds import CONFIG_MAP
from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import (
    Component,
    DeploymentPlan,
    Held,
    HeldModel,
    InferenceService,
    Selection,
    TurnedAway,
)
from servery_sdk.runtimes import MODEL_DIR

from servery_controller.planning.credentials import Credentials
from servery_controller.planning.settings import PlanningSettings
from servery_controller.planning.storage import cache_mounts, cache_variables, cache_volumes, with_settings

CONFIG_DIR = "/mnt/configs"
MODELS_FILE = "models.json"
IDENTITY_DIR = "/var/run/secrets/servery/controller"
_IDENTITY = "token"
IDENTITY_SECONDS = 3600
"""How long a token counts; the kubelet renews it before."""
MODEL_VOLUME, CONFIG_VOLUME, IDENTITY_VOLUME = "model-dir", "model-config", "controller-token"
DAEMON = "storage-daemon"
DAEMON_METRICS_PORT = 9092
"""Of the daemon's own metrics: behind the agent's, ``qpext``'s and those of Knative's queue-proxy."""
_SOCKET = f"{MODEL_DIR}/.storage.sock"
MAIN_VARIABLES = {"MULTI_MODEL_SERVER": "true"}
"""What the server of many models is told: KServe's word, which ours understands."""


def held(
    service: InferenceService,
    component: Component,
    selection: Selection | None,
    main: Manifest,
    settings: PlanningSettings,
) -> Held | None:
    """Return which models ``component`` holds, whose main container is ``main``: the first ones, as far as memory goes."""
    if component.held is None:
        return None
    limit = int(quantities.parse(((main.get("resources") or {}).get("limits") or {}).get("memory") or 0))
    assigned: list[HeldModel] = []
    turned_away: list[TurnedAway] = []
    used = Decimal(0)
    for model in component.held:
        refusal = _refusal(model, selection, settings) or _lack(model, used, limit)
        if refusal is None:
            assigned.append(model)
            used += quantities.parse(model.memory)
        else:
            turned_away.append(refusal)
    return Held(
        # KServe has one, number 0; so does who looks for it.
        config_map=f"modelconfig-{service.ref.name}-0",
        assigned=tuple(assigned),
        turned_away=tuple(turned_away),
        memory_bytes=limit,
    )


def _refusal(model: HeldModel, selection: Selection | None, settings: PlanningSettings) -> TurnedAway | None:
    formats = sorted({found.name for found in selection.runtime.formats}) if selection is not None else []
    if formats and model.framework.lower() not in {name.lower() for name in formats}:
        return TurnedAway(
            model=model,
            condition="FrameworkSupported",
            reason="FrameworkNotSupported",
            message=f"spec.model.framework: {model.framework!r} is none of the predictor's: {', '.join(formats)}",
        )
    if (objection := _memory_objection(model.memory)) is not None:
        return TurnedAway(
            model=model,
            condition="MemoryResourceAvailable",
            reason="MemoryInvalid",
            message=f"spec.model.memory: Invalid value: {model.memory!r}: {objection}",
        )
    scheme = model.uri.partition("://")[0].lower() if "://" in model.uri else ""
    if scheme not in settings.storage_schemes:
        known = ", ".join(sorted(settings.storage_schemes))
        return TurnedAway(
            model=model,
            condition="StorageSupported",
            reason="StorageNotSupported",
            message=f"spec.model.storageUri: {model.uri!r}: supported schemes: {known}",
        )
    return None


def _memory_objection(memory: str) -> str | None:
    try:
        return None if quantities.parse(memory) >= 0 else "must be greater than or equal to 0"
    except ValueError as error:
        return str(error)


def _lack(model: HeldModel, used: Decimal, limit: int) -> TurnedAway | None:
    if not limit or used + quantities.parse(model.memory) <= limit:
        return None
    return TurnedAway(
        model=model,
        condition="MemoryResourceAvailable",
        reason="MemoryResourceNotAvailable",
        message=f"needs {model.memory}, and older models have {used:f} bytes of the predictor's {limit}",
    )


def volumes(held: Held, given: Credentials, settings: PlanningSettings) -> list[Manifest]:
    """Return the volumes of models, of what says which, of what tells the controller who asks, and the node's cache."""
    token = {"audience": settings.assignments_audience, "expirationSeconds": IDENTITY_SECONDS, "path": _IDENTITY}
    tokens = {"name": IDENTITY_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}
    return [
        {"name": MODEL_VOLUME, "emptyDir": {}},
        {"name": CONFIG_VOLUME, "configMap": {"name": held.config_map}},
        *([tokens] if _sends_token(settings) else []),
        *cache_volumes(settings),
        *given.volumes,
    ]


def _sends_token(settings: PlanningSettings) -> bool:
    return bool(settings.assignments_address and settings.assignments_audience)


def main_mount() -> Manifest:
    """Return how the server sees the models."""
    return {"name": MODEL_VOLUME, "mountPath": MODEL_DIR, "readOnly": True}


def agent_mounts(settings: PlanningSettings) -> list[Manifest]:
    """Return what the agent sees: the assignments, the socket among the models, and its token for the controller."""
    tokens = {"name": IDENTITY_VOLUME, "mountPath": IDENTITY_DIR, "readOnly": True}
    return [
        {"name": MODEL_VOLUME, "mountPath": MODEL_DIR, "readOnly": True},
        {"name": CONFIG_VOLUME, "mountPath": CONFIG_DIR, "readOnly": True},
        *([tokens] if _sends_token(settings) else []),
    ]


def agent_args(
    held: Held, service: InferenceService, selection: Selection | None, settings: PlanningSettings
) -> Iterator[str]:
    """Yield what the agent is told: KServe's flags, and what ours knows beside."""
    yield from ("--enable-puller", "--config-dir", CONFIG_DIR, "--model-dir", MODEL_DIR)
    if selection is None or selection.runtime.model_class is None:
        yield from ("--component-models", "v2")
    if held.memory_bytes:
        yield from ("--models-memory-bytes", str(held.memory_bytes))
    if settings.assignments_address:
        yield from ("--controller-address", settings.assignments_address)
        yield from ("--pod-namespace", service.ref.namespace, "--pod-service", service.ref.name)
    if _sends_token(settings):
        yield from ("--controller-token-file", f"{IDENTITY_DIR}/{_IDENTITY}")


def agent_variables(settings: PlanningSettings) -> list[Manifest]:
    """Return the variables by which the agent knows its pod."""
    if not settings.assignments_address:
        return []
    return [{"name": "SERVERY_AGENT_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]


def daemon(settings: PlanningSettings, given: Credentials, security: Json) -> Manifest:
    """Return the container that fetches models for the agent, with the credentials of the pod's account."""
    made: dict[str, Json] = {
        "name": DAEMON,
        "image": settings.storage_image,
        "command": ["servery-storage"],
        "args": [
            *("serve", f"--socket={_SOCKET}", f"--root={MODEL_DIR}"),
            *("--metrics-host=0.0.0.0", f"--metrics-port={DAEMON_METRICS_PORT}"),
        ],
        "ports": [{"name": "storage-metrics", "containerPort": DAEMON_METRICS_PORT, "protocol": "TCP"}],
        "resources": settings.storage_resources,
        "volumeMounts": [{"name": MODEL_VOLUME, "mountPath": MODEL_DIR}, *cache_mounts(settings), *given.mounts],
    }
    if env := with_settings((*cache_variables(settings), *given.env), settings):
        made["env"] = env
    if security is not None:
        made["securityContext"] = security
    return made


def config_maps(plan: DeploymentPlan) -> tuple[Manifest, ...]:
    """Return the objects that tell pods which models they hold, as KServe's controller writes them."""
    return tuple(
        {
            "apiVersion": CONFIG_MAP.api_version,
            "kind": CONFIG_MAP.kind,
            "metadata": {
                "name": workload.held.config_map,
                "namespace": plan.ref.namespace,
                "labels": dict(plan.owned_labels),
                "ownerReferences": [plan.owner],
            },
            "data": {MODELS_FILE: json.dumps([_entry(model) for model in workload.held.assigned])},
        }
        for workload in plan.workloads
        if workload.held is not None
    )


def _entry(model: HeldModel) -> Json:
    spec = {"storageUri": model.uri, "framework": model.framework, "memory": model.memory}
    return {"modelName": model.ref.name, "modelSpec": spec}
