"""The agent beside a component: asked in its place, it passes on, and does on the way what the manifest wants done."""

from __future__ import annotations

import json
from collections.abc import Iterator

from servery_sdk.manifests import Json, Manifest
from servery_sdk.model import Component, InferenceService, PayloadLogging, Selection

from servery_controller.planning import held
from servery_controller.planning.settings import PlanningSettings

AGENT = "agent"
AGENT_PORT = 9081


def needs_agent(component: Component) -> bool:
    """Return whether what is asked of ``component`` is done on the way to it. Our own server batches by itself."""
    return component.logging is not None or component.held is not None


def agent(
    service: InferenceService,
    component: Component,
    selection: Selection | None,
    main: Manifest,
    port: Json,
    settings: PlanningSettings,
) -> Manifest:
    """Return the container that stands in front of ``main``, which answers on ``port``.

    Source: KServe pkg/webhook/admission/pod/agent_injector.go; its names, port, flags and probe.
    """
    models = held.held(service, component, selection, main, settings)
    pulling = [] if models is None else [*held.agent_args(models, service, selection, settings)]
    args = [*pulling, *_logging(service, component, component.logging), "--component-port", str(port)]
    made: dict[str, Json] = {
        "name": AGENT,
        "image": settings.agent_image,
        "args": args,
        "ports": [{"name": "agent-port", "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "env": [{"name": "SERVING_READINESS_PROBE", "value": json.dumps(main["readinessProbe"], sort_keys=True)}],
        "resources": settings.agent_resources,
        "readinessProbe": {
            "httpGet": {
                "httpHeaders": [{"name": "K-Network-Probe", "value": "queue"}],
                "path": "/",
                "port": AGENT_PORT,
                "scheme": "HTTP",
            }
        },
    }
    if "securityContext" in main:
        made["securityContext"] = main["securityContext"]
    if models is not None:
        made["volumeMounts"] = held.agent_mounts()
        made["env"] += held.agent_variables(settings)
    return made


def _logging(service: InferenceService, component: Component, logging: PayloadLogging | None) -> Iterator[str]:
    if logging is None:
        return
    yield from ("--log-url", logging.url or "", "--log-mode", logging.mode.value)
    yield from ("--inference-service", service.ref.name, "--namespace", service.ref.namespace)
    yield from ("--component", component.kind.value)
    if logging.metadata_headers:
        yield from ("--metadata-headers", ",".join(logging.metadata_headers))
    annotations = service.metadata.get("annotations") or {}
    named = [f"{name}={annotations[name]}" for name in logging.metadata_annotations if name in annotations]
    if named:
        yield from ("--metadata-annotations", ",".join(named))
