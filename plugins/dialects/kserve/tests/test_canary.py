"""A canary from its first request to its last, as the status remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from servery_dialect_kserve.plugin import KServeDialect
from servery_sdk.model import (
    Canary,
    Catalog,
    ComponentKind,
    ComponentStatus,
    Condition,
    ConditionStatus,
    Revisions,
    ServiceStatus,
)

DIALECT = KServeDialect()
TAGGED = {"serving.kserve.io/enable-tag-routing": "true"}


def canary(percent: int | None, status: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> Any:
    predictor: dict[str, Any] = {"sklearn": {"storageUri": "s3://b/m"}}
    if percent is not None:
        predictor["canaryTrafficPercent"] = percent
    manifest = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris", "annotations": annotations or {}},
        "spec": {"predictor": predictor},
        "status": status,
    }
    return DIALECT.parse(manifest, Catalog()).predictor.canary


def seen(*shares: tuple[str, int], created: str | None = None) -> Revisions:
    """The newest revision's share first."""
    (newest, percent), *rest = shares
    latest = {"latestRevision": True, "revisionName": newest, "percent": percent}
    before = [{"latestRevision": False, "revisionName": name, "percent": share, "tag": "prev"} for name, share in rest]
    return Revisions(
        latest_created=created or newest,
        latest_ready=newest,
        rolled_out=newest if percent == 100 else None,
        traffic=(latest, *before),
    )


def written(revisions: Revisions | None, before: Mapping[str, Any]) -> Mapping[str, Any]:
    component = ComponentStatus(kind=ComponentKind.PREDICTOR, name="predictor", url="http://iris", revisions=revisions)
    return DIALECT.status(ServiceStatus(observed_generation=1, conditions=(), components=(component,), previous=before))


def rolled_out(status: Mapping[str, Any]) -> tuple[Any, Any]:
    fields = status["components"]["predictor"]
    return fields.get("latestRolledoutRevision"), fields.get("previousRolledoutRevision")


def test_canary_is_tried_promoted_and_taken_back() -> None:
    first = written(seen(("r1", 100)), {})
    assert rolled_out(first) == ("r1", None)
    assert canary(10, first) == Canary(percent=10, stable_revision="r1")

    # The template is new: until its revision is ready, the old one has both shares.
    waiting = written(seen(("r1", 10), ("r1", 90), created="r2"), first)
    tried = written(seen(("r2", 10), ("r1", 90)), waiting)
    assert rolled_out(waiting) == rolled_out(tried) == ("r1", None)
    assert canary(50, tried) == Canary(percent=50, stable_revision="r1")

    promoted = written(seen(("r2", 100)), tried)
    assert rolled_out(promoted) == ("r2", "r1")
    assert canary(None, promoted) is None

    # The template is the same: the newest revision is to share with the one before it.
    asked = written(seen(("r2", 0), ("r2", 100)), promoted)
    taken_back = written(seen(("r2", 0), ("r1", 100)), asked)
    assert rolled_out(asked) == rolled_out(taken_back) == ("r1", "r1")
    assert canary(0, taken_back) == Canary(percent=0, stable_revision="r1")


def test_status_names_the_revisions_as_kserve_does() -> None:
    shares = seen(("r2", 10), ("r1", 90))
    before = {"components": {"predictor": {"latestRolledoutRevision": "r1"}}}
    assert written(shares, before)["components"] == {
        "predictor": {
            "url": "http://iris",
            "latestCreatedRevision": "r2",
            "latestReadyRevision": "r2",
            "latestRolledoutRevision": "r1",
            "traffic": [dict(share) for share in shares.traffic],
        }
    }


def test_engine_without_revisions_has_none() -> None:
    before = {"components": {"predictor": {"latestRolledoutRevision": "r1"}}}
    assert written(None, before)["components"] == {"predictor": {"url": "http://iris"}}


def test_refused_manifest_and_silent_engine_forget_nothing() -> None:
    before = {"components": {"predictor": {"url": "http://iris", "latestRolledoutRevision": "r1"}}}
    refused = DIALECT.status(ServiceStatus(observed_generation=2, conditions=(), previous=before))
    assert refused["components"] == {"predictor": {"latestRolledoutRevision": "r1"}}
    assert rolled_out(written(Revisions(), before)) == ("r1", None)


@pytest.mark.parametrize("status", [{}, {"components": None}, {"components": {"predictor": []}}], ids=str)
def test_first_canary_has_nothing_beside_it(status: Mapping[str, Any]) -> None:
    assert canary(10, status) == Canary(percent=10)


def test_tag_routing_gives_the_newest_revision_an_address() -> None:
    assert canary(None, {}, TAGGED) == Canary(percent=100, tagged=True)
    assert canary(10, {}, TAGGED) == Canary(percent=10, tagged=True)


def test_conditions_over_all_components_are_those_of_the_worst() -> None:
    def condition(name: str, status: ConditionStatus, reason: str = "") -> Condition:
        return Condition(type=name, status=status, reason=reason, severity="Info", last_transition_time="t")

    found = DIALECT.status(
        ServiceStatus(
            observed_generation=1,
            conditions=(
                condition("PredictorConfigurationReady", ConditionStatus.TRUE),
                condition("PredictorRouteReady", ConditionStatus.TRUE),
                condition("TransformerRouteReady", ConditionStatus.FALSE, "RevisionMissing"),
            ),
        )
    )
    said = {c["type"]: (c["status"], c.get("reason"), c["severity"]) for c in found["conditions"]}
    assert said["RoutesReady"] == ("False", "RevisionMissing", "Info")
    assert said["LatestDeploymentReady"] == ("True", None, "Info")
