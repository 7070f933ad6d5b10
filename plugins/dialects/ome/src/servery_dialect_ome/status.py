"""OME's status, written from ours."""

from __future__ import annotations

from collections.abc import Mapping

from servery_sdk import statuses
from servery_sdk.manifests import Json
from servery_sdk.model import ComponentStatus, ModelStatus, ServiceStatus

_NOT_OMES = frozenset({"Stopped"})
"""Conditions that OME has no word for: its services cannot be stopped."""


def status(found: ServiceStatus) -> Mapping[str, Json]:
    """Return ``.status`` as OME's users and tools read it."""
    conditions = sorted(found.conditions, key=lambda condition: condition.type)
    written: dict[str, Json] = {
        "observedGeneration": found.observed_generation,
        "conditions": [statuses.condition(condition) for condition in conditions if condition.type not in _NOT_OMES],
        "url": found.url,
        "address": {"url": found.address} if found.address else None,
        "components": {component.name: _component(component) for component in found.components} or None,
        "modelStatus": _model(found.model) if found.model else None,
    }
    return {key: value for key, value in written.items() if value is not None}


def _component(component: ComponentStatus) -> dict[str, Json]:
    revisions = component.revisions
    written: dict[str, Json] = {
        "url": component.url,
        "address": {"url": component.address} if component.address else None,
        "latestCreatedRevision": revisions.latest_created if revisions else None,
        "latestReadyRevision": revisions.latest_ready if revisions else None,
        "latestRolledoutRevision": revisions.rolled_out if revisions else None,
        "traffic": [dict(entry) for entry in revisions.traffic] if revisions and revisions.traffic else None,
    }
    return {key: value for key, value in written.items() if value is not None}


def _model(model: ModelStatus) -> dict[str, Json]:
    written: dict[str, Json] = {
        "transitionStatus": str(model.transition),
        "modelRevisionStates": {"targetModelState": str(model.target)},
        "modelCopies": {"failedCopies": model.failed_copies, "totalCopies": model.total_copies},
    }
    if model.active is not None:
        written["modelRevisionStates"]["activeModelState"] = str(model.active)
    if model.failure is not None:
        written["lastFailureInfo"] = statuses.failure(model.failure)
    return written
