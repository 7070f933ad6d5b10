"""The agent beside a component: asked in its place, it passes on, and does on the way what the manifest wants done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from servery_sdk.manifests import Json, Manifest, ObjectRef
from servery_sdk.model import Batching, Catalog, Component, InferenceService, PayloadLogging, Selection

from servery_controller.planning import held
from servery_controller.planning.credentials import Credentials, credentials
from servery_controller.planning.errors import NoPlan
from servery_controller.planning.settings import PlanningSettings

AGENT = "agent"
AGENT_PORT = 9081
METRICS_PORT = 9088
"""Of the metrics of everything in a pod: KServe's ``qpext``'s."""
_TOLD_PORT, _TOLD_PATH = "prometheus.kserve.io/port", "prometheus.kserve.io/path"
_LAST_PORT = 65535
_H2C = ("grpc", "h2c")
SPOOL_VOLUME = "agent-spool"
SPOOL_PATH = "/var/spool/servery-agent"
"""Outlives the container, not the pod."""
_OWN = "logger-"


def needs_agent(component: Component) -> bool:
    """Return whether what is asked of ``component`` is done on the way to it."""
    is_batched = component.batching is not None and component.batching.is_in_front
    return is_batched or component.logging is not None or component.held is not None or component.merges_metrics


def agent(
    service: InferenceService,
    component: Component,
    selection: Selection | None,
    main: Manifest,
    port: Json,
    granted: Credentials,
    settings: PlanningSettings,
) -> Manifest:
    """Return the container that stands in front of ``main``, which answers on ``port``; ``granted`` opens its sink.

    Source: KServe pkg/webhook/admission/pod/agent_injector.go; its names, port, flags and probe.
    """
    models = held.held(service, component, selection, main, settings)
    pulling = [] if models is None else [*held.agent_args(models, service, selection, settings)]
    args = [*pulling, *_batching(component.batching), *_logging(service, component, component.logging, settings)]
    args += ["--component-port", str(port), *_grpc_port(main)]
    if component.merges_metrics:
        args += ["--metrics-port", str(METRICS_PORT), *_told_metrics(component, selection, port)]
        if models is not None:
            args += ["--storage-metrics-port", str(held.DAEMON_METRICS_PORT)]
    made: dict[str, Json] = {
        "name": AGENT,
        "image": settings.agent_image,
        "args": args,
        "ports": [{"name": "agent-port", "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "env": [
            {"name": "SERVING_READINESS_PROBE", "value": json.dumps(main["readinessProbe"], sort_keys=True)},
            # KServe's injector knows no name of a pod that a ReplicaSet makes; the pod does.
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *granted.env,
        ],
        "volumeMounts": [{"name": SPOOL_VOLUME, "mountPath": SPOOL_PATH}, *granted.mounts],
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
        made["volumeMounts"] += held.agent_mounts(settings)
        made["env"] += held.agent_variables(settings)
    return made


def _batching(batching: Batching | None) -> Iterator[str]:
    if batching is None or not batching.is_in_front:
        return
    yield "--enable-batcher"
    if batching.max_batch_rows is not None:
        yield from ("--max-batchsize", str(batching.max_batch_rows))
    if batching.max_latency_seconds is not None:
        yield from ("--max-latency", f"{batching.max_latency_seconds * 1000:g}")
    if batching.timeout_seconds is not None:
        yield from ("--timeout", f"{batching.timeout_seconds:g}")


def _grpc_port(main: Manifest) -> Iterator[str]:
    """Yield where ``main`` speaks HTTP/2, where that is a port of its own: no flag of KServe's, whose agent knows one port."""
    for port in (main.get("ports") or ())[1:]:
        if speaks_http2(port.get("name") or ""):
            yield from ("--component-grpc-port", str(port["containerPort"]))
            return


def _told_metrics(component: Component, selection: Selection | None, port: Json) -> Iterator[str]:
    """Yield where the component tells its metrics: its pods' annotations, the runtime's included, else where it answers.

    Source: KServe pkg/webhook/admission/pod/metrics_aggregate_injector.go, which has ``qpext`` ask there.
    """
    runtimes = selection.runtime.parts[component.kind].annotations if selection else {}
    annotations = {**runtimes, **component.annotations}
    told = annotations.get(_TOLD_PORT) or str(port)
    if not (told.isascii() and told.isdigit() and 0 < int(told) <= _LAST_PORT):
        raise NoPlan(f"annotation {_TOLD_PORT} of {component.name}: {told!r} is not the number of a port")
    yield from ("--component-metrics-port", told)
    if path := annotations.get(_TOLD_PATH):
        yield from ("--component-metrics-path", path)


def speaks_http2(port_name: str) -> bool:
    """Return whether a port of this name is taken to speak HTTP/2. Source: KServe raw service reconciler."""
    return any(word in port_name for word in _H2C)


def granted_to(component: Component, catalog: Catalog, account: ObjectRef) -> Credentials:
    """Return what opens the bucket that the agent logs to, nothing where it logs to none.

    The secrets of the account that the logger names, else those of the pod's ``account``.

    Source: KServe pkg/webhook/admission/pod/agent_injector.go, which adds both, so that the logger's count.
    """
    logging = component.logging
    if logging is None or logging.url is None or logging.url.partition("://")[0] in {"http", "https"}:
        return Credentials()
    if logging.account is not None:
        own = credentials(catalog, replace(account, name=logging.account))
        if own != Credentials():
            return _renamed(own)
    return credentials(catalog, account)


def _renamed(own: Credentials) -> Credentials:
    # The pod may have volumes of these names with another account's secrets.
    return replace(
        own,
        volumes=tuple({**volume, "name": f"{_OWN}{volume['name']}"} for volume in own.volumes),
        mounts=tuple({**mount, "name": f"{_OWN}{mount['name']}"} for mount in own.mounts),
    )


def _logging(
    service: InferenceService, component: Component, logging: PayloadLogging | None, settings: PlanningSettings
) -> Iterator[str]:
    if logging is None:
        return
    yield from ("--log-url", logging.url or settings.log_url, "--source-uri", "$(POD_NAME)")
    yield from ("--log-mode", logging.mode.value)
    yield from ("--inference-service", service.ref.name, "--namespace", service.ref.namespace)
    yield from ("--endpoint", "default", "--component", component.kind.value)
    yield from ("--log-spool-path", SPOOL_PATH)
    for flag, value in (
        ("--log-store-path", logging.store_path),
        ("--log-store-format", logging.store_format),
        ("--log-marshaller-url", logging.marshaller_url),
        ("--log-batch-size", logging.batch_size),
        ("--log-batch-interval", logging.batch_interval),
    ):
        if value is not None:
            yield from (flag, str(value))
    if logging.metadata_headers:
        yield from ("--metadata-headers", ",".join(logging.metadata_headers))
    annotations = service.metadata.get("annotations") or {}
    named = [f"{name}={annotations[name]}" for name in logging.metadata_annotations if name in annotations]
    if named:
        yield from ("--metadata-annotations", ",".join(named))
