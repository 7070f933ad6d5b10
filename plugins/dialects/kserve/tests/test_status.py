from __future__ import annotations

from servery_dialect_kserve.plugin import KServeDialect
from servery_sdk.model import (
    ComponentKind,
    ComponentStatus,
    Condition,
    ConditionStatus,
    Failure,
    ModelState,
    ModelStatus,
    ServiceStatus,
    TransitionStatus,
)


def test_status_reads_as_kserve_writes_it() -> None:
    found = KServeDialect().status(
        ServiceStatus(
            observed_generation=3,
            conditions=(
                Condition(type="Ready", status=ConditionStatus.TRUE, last_transition_time="t"),
                Condition(type="IngressReady", status=ConditionStatus.TRUE, last_transition_time="t"),
            ),
            mode="raw",
            url="http://iris-demo.example.com",
            address="http://iris-predictor.demo.svc.cluster.local",
            components=(
                ComponentStatus(
                    kind=ComponentKind.PREDICTOR, name="predictor", url="http://iris-predictor-demo.example.com"
                ),
            ),
            model=ModelStatus(
                transition=TransitionStatus.UP_TO_DATE,
                target=ModelState.LOADED,
                active=ModelState.LOADED,
                total_copies=2,
            ),
            runtime="mine",
        )
    )
    assert found == {
        "observedGeneration": 3,
        "conditions": [
            {"type": "IngressReady", "status": "True", "lastTransitionTime": "t"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "t"},
        ],
        "url": "http://iris-demo.example.com",
        "address": {"url": "http://iris-predictor.demo.svc.cluster.local"},
        "components": {"predictor": {"url": "http://iris-predictor-demo.example.com"}},
        "modelStatus": {
            "transitionStatus": "UpToDate",
            "states": {"targetModelState": "Loaded", "activeModelState": "Loaded"},
            "copies": {"failedCopies": 0, "totalCopies": 2},
        },
        "deploymentMode": "Standard",
        "servingRuntimeName": "mine",
    }


def test_failure_keeps_its_own_words() -> None:
    failure = Failure(reason="ModelLoadFailed", message="no such file", location="pod p container c", exit_code=1)
    found = KServeDialect().status(
        ServiceStatus(
            observed_generation=1,
            conditions=(),
            model=ModelStatus(
                transition=TransitionStatus.BLOCKED_BY_FAILED_LOAD, target=ModelState.FAILED_TO_LOAD, failure=failure
            ),
            runtime="cluster-wide",
            runtime_is_cluster_scoped=True,
        )
    )
    assert found["modelStatus"]["lastFailureInfo"] == {
        "reason": "ModelLoadFailed",
        "message": "no such file",
        "location": "pod p container c",
        "exitCode": 1,
    }
    assert found["clusterServingRuntimeName"] == "cluster-wide"
