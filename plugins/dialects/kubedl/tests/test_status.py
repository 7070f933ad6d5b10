from __future__ import annotations

from servery_dialect_kubedl.plugin import KubeDLDialect
from servery_sdk.model import ComponentKind, ComponentStatus, Condition, ConditionStatus, ServiceStatus


def component(name: str, percent: int, ready: int) -> ComponentStatus:
    return ComponentStatus(
        kind=ComponentKind.PREDICTOR,
        name=name,
        address=f"http://hello-{name}.demo.svc.cluster.local",
        replicas=2,
        ready_replicas=ready,
        traffic_percent=percent,
    )


def test_status_has_every_predictor_in_kubedls_words() -> None:
    found = KubeDLDialect().status(
        ServiceStatus(
            observed_generation=3,
            conditions=(
                Condition(type="Ready", status=ConditionStatus.TRUE, last_transition_time="t"),
                Condition(type="BlueReady", status=ConditionStatus.TRUE, reason="r", message="m"),
            ),
            mode="raw",
            url="http://hello-demo.example.com",
            address="http://hello.demo.svc.cluster.local:8080",
            components=(component("a", 90, 2), component("b", 10, 1)),
        )
    )
    assert found == {
        "observedGeneration": 3,
        "conditions": [
            {"type": "BlueReady", "status": "True", "reason": "r", "message": "m"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "t"},
        ],
        "inferenceEndpoint": "hello.demo",
        "predictorStatuses": [
            {"name": "a", "replicas": 2, "readyReplicas": 2, "trafficPercent": 90, "endpoint": "hello-a.demo.svc"},
            {"name": "b", "replicas": 2, "readyReplicas": 1, "trafficPercent": 10, "endpoint": "hello-b.demo.svc"},
        ],
        "url": "http://hello-demo.example.com",
    }


def test_service_without_a_plan_has_no_endpoint() -> None:
    refusal = Condition(type="Ready", status=ConditionStatus.FALSE, reason="InvalidSpec", message="why")
    found = KubeDLDialect().status(ServiceStatus(observed_generation=1, conditions=(refusal,)))
    assert found == {
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "False", "reason": "InvalidSpec", "message": "why"}],
    }
