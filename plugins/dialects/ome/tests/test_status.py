from __future__ import annotations

from servery_dialect_ome.plugin import OMEDialect
from servery_sdk.model import (
    ComponentKind,
    ComponentStatus,
    Condition,
    ConditionStatus,
    Failure,
    ModelState,
    ModelStatus,
    Revisions,
    ServiceStatus,
    TransitionStatus,
)


def condition(name: str, status: ConditionStatus = ConditionStatus.TRUE, **words: str) -> Condition:
    return Condition(type=name, status=status, last_transition_time="2026-01-01T00:00:00Z", **words)


def test_status_is_in_omes_words() -> None:
    found = ServiceStatus(
        observed_generation=3,
        conditions=(condition("Ready"), condition("EngineReady"), condition("Stopped", ConditionStatus.FALSE)),
        mode="raw",
        url="http://llama-demo.example.com",
        address="http://llama.demo.svc.cluster.local:8080",
        components=(
            ComponentStatus(
                kind=ComponentKind.PREDICTOR,
                name="engine",
                url="http://llama-engine-demo.example.com",
                address="http://llama-engine.demo.svc.cluster.local",
                revisions=Revisions(latest_created="r2", latest_ready="r2", rolled_out="r1", traffic=({"percent": 9},)),
            ),
            ComponentStatus(kind=ComponentKind.ROUTER, name="router"),
        ),
        model=ModelStatus(
            transition=TransitionStatus.UP_TO_DATE,
            target=ModelState.LOADED,
            active=ModelState.LOADED,
            total_copies=2,
        ),
    )
    assert OMEDialect().status(found) == {
        "observedGeneration": 3,
        "conditions": [
            {"type": "EngineReady", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        ],
        "url": "http://llama-demo.example.com",
        "address": {"url": "http://llama.demo.svc.cluster.local:8080"},
        "components": {
            "engine": {
                "url": "http://llama-engine-demo.example.com",
                "address": {"url": "http://llama-engine.demo.svc.cluster.local"},
                "latestCreatedRevision": "r2",
                "latestReadyRevision": "r2",
                "latestRolledoutRevision": "r1",
                "traffic": [{"percent": 9}],
            },
            "router": {},
        },
        "modelStatus": {
            "transitionStatus": "UpToDate",
            "modelRevisionStates": {"targetModelState": "Loaded", "activeModelState": "Loaded"},
            "modelCopies": {"failedCopies": 0, "totalCopies": 2},
        },
    }


def test_failure_keeps_its_own_words() -> None:
    found = ServiceStatus(
        observed_generation=1,
        conditions=(condition("EngineReady", ConditionStatus.FALSE, reason="ModelLoadFailed", message="no weights"),),
        model=ModelStatus(
            transition=TransitionStatus.BLOCKED_BY_FAILED_LOAD,
            target=ModelState.FAILED_TO_LOAD,
            failure=Failure(reason="ModelLoadFailed", message="no weights", location="pod p", exit_code=1, time="t"),
        ),
    )
    written = OMEDialect().status(found)
    assert written["conditions"][0]["message"] == "no weights"
    assert written["modelStatus"]["lastFailureInfo"] == {
        "reason": "ModelLoadFailed",
        "message": "no weights",
        "location": "pod p",
        "time": "t",
        "exitCode": 1,
    }
    assert "components" not in written
