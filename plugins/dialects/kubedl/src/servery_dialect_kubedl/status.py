"""KubeDL's status, written from ours; conditions, which it has none of, in Kubernetes' own form."""

from __future__ import annotations

from collections.abc import Mapping

from servery_sdk import statuses
from servery_sdk.manifests import Json
from servery_sdk.model import ComponentStatus, ServiceStatus


def status(found: ServiceStatus) -> Mapping[str, Json]:
    """Return ``.status`` as KubeDL's users and tools read it."""
    written: dict[str, Json] = {
        "observedGeneration": found.observed_generation,
        "conditions": [statuses.condition(condition) for condition in sorted(found.conditions, key=lambda c: c.type)],
        "inferenceEndpoint": _host(found.address).removesuffix(".svc") if found.address else None,
        "predictorStatuses": [_predictor(component) for component in found.components] or None,
        "url": found.url,
    }
    return {key: value for key, value in written.items() if value is not None}


def _predictor(component: ComponentStatus) -> dict[str, Json]:
    return {
        "name": component.name,
        "replicas": component.replicas,
        "readyReplicas": component.ready_replicas,
        "trafficPercent": component.traffic_percent,
        "endpoint": _host(component.address or ""),
    }


def _host(address: str) -> str:
    """Return the host of a cluster's address up to its ``svc``: what KubeDL calls an endpoint."""
    host = address.partition("://")[2]
    name, svc, _ = host.partition(".svc.")
    return f"{name}.svc" if svc else host
