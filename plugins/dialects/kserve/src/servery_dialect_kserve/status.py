"""KServe's status, written from ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from servery_sdk import revisions, statuses
from servery_sdk.lenient import mapping
from servery_sdk.manifests import Json
from servery_sdk.model import Condition, ConditionStatus, ModelStatus, ServiceStatus

_MODES = {"raw": "Standard", "knative": "Knative"}
"""Modes that KServe has a word for; others keep ours."""

_OF_ALL = {"RoutesReady": "RouteReady", "LatestDeploymentReady": "ConfigurationReady"}
_WORST_FIRST = (ConditionStatus.FALSE, ConditionStatus.UNKNOWN, ConditionStatus.TRUE)


def status(found: ServiceStatus) -> Mapping[str, Json]:
    """Return ``.status`` as KServe's users and tools read it."""
    written: dict[str, Json] = {
        "observedGeneration": found.observed_generation,
        "conditions": [
            statuses.condition(condition)
            for condition in sorted((*found.conditions, *_of_all(found.conditions)), key=lambda c: c.type)
        ],
        "url": found.url,
        "address": {"url": found.address} if found.address else None,
        "components": _components(found) or None,
        "modelStatus": _model(found.model) if found.model else None,
        "deploymentMode": _MODES.get(found.mode, found.mode) if found.mode else None,
    }
    if found.runtime:
        field = "clusterServingRuntimeName" if found.runtime_is_cluster_scoped else "servingRuntimeName"
        written[field] = found.runtime
    return {key: value for key, value in written.items() if value is not None}


def _of_all(found: Sequence[Condition]) -> Iterator[Condition]:
    """Yield KServe's conditions over all components: the first that is not ready, by how bad it is, speaks."""
    for name, suffix in _OF_ALL.items():
        parts = [condition for condition in found if condition.type.endswith(suffix)]
        if parts:
            yield replace(min(parts, key=lambda part: _WORST_FIRST.index(part.status)), type=name)


def _components(found: ServiceStatus) -> dict[str, Json]:
    before = mapping(found.previous, "components")
    if not found.components:
        # A manifest that is refused for now still has what it rolled out.
        kept = {name: revisions.remembered(mapping(before, name)) for name in before}
    else:
        kept = {
            component.name: {
                **({"url": component.url} if component.url is not None else {}),
                **revisions.written(component.revisions, mapping(before, component.name)),
            }
            for component in found.components
        }
    return {name: component for name, component in kept.items() if component}


def _model(model: ModelStatus) -> dict[str, Json]:
    written: dict[str, Json] = {
        "transitionStatus": str(model.transition),
        "states": {"targetModelState": str(model.target)},
        "copies": {"failedCopies": model.failed_copies, "totalCopies": model.total_copies},
    }
    if model.active is not None:
        written["states"]["activeModelState"] = str(model.active)
    if model.failure is not None:
        written["lastFailureInfo"] = statuses.failure(model.failure)
    return written
