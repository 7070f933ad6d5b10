"""The agent in a component's pod. No dialect lets a manifest ask for it yet: payload logging is refused by its field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from servery_agent.cli import parser
from servery_controller.planning import PlanningSettings
from servery_controller.planning.plan import plan
from servery_sdk.manifests import Kind, Namespace, ObjectRef
from servery_sdk.model import (
    Batching,
    Catalog,
    Component,
    ComponentKind,
    InferenceService,
    PayloadLogging,
    Workload,
)
from servery_sdk.model.service import LogMode

SERVICE = ObjectRef(Kind("acme.io/v1", "Inference", "inferences"), Namespace("demo"), "iris")
PORTS = [{"containerPort": 8085}, {"name": "metrics", "containerPort": 9090}]
LOGGING = PayloadLogging(
    url="http://sink", mode=LogMode.REQUEST, metadata_headers=("x-a", "x-b"), metadata_annotations=("team", "none")
)


def planned(**more: Any) -> Workload:
    main = {"name": "main", "image": "i", "ports": PORTS, "securityContext": {"runAsUser": 7}}
    component = Component(
        kind=ComponentKind.PREDICTOR,
        name="predictor",
        object_name="iris-predictor",
        main_container="main",
        selector={"app": "iris"},
        pod={"containers": [main]},
        **more,
    )
    metadata = {"name": "iris", "namespace": "demo", "annotations": {"team": "red", "other": "no"}}
    service = InferenceService(ref=SERVICE, metadata=metadata, owned_labels={"s": "iris"}, components=(component,))
    return plan(service, Catalog(), PlanningSettings(agent_image="agent:1")).workloads[0]


def test_component_whose_payloads_are_logged_is_asked_through_an_agent() -> None:
    workload = planned(logging=LOGGING)
    main, agent = workload.pod["containers"]
    assert (main["name"], agent["name"], agent["image"], workload.main_container) == (
        "main",
        "agent",
        "agent:1",
        "main",
    )
    assert [(port.port, port.target_port) for port in workload.ports] == [(80, 9081), (9090, 9090)]
    assert agent["ports"] == [{"name": "agent-port", "containerPort": 9081, "protocol": "TCP"}]
    assert agent["securityContext"] == main["securityContext"]
    assert agent["readinessProbe"]["httpGet"]["httpHeaders"] == [{"name": "K-Network-Probe", "value": "queue"}]
    (probe,) = agent["env"]
    assert (probe["name"], json.loads(probe["value"])) == ("SERVING_READINESS_PROBE", main["readinessProbe"])


def test_agent_is_told_what_kserves_is() -> None:
    told = vars(parser().parse_args(planned(logging=LOGGING).pod["containers"][1]["args"]))
    assert told == {
        "log_url": "http://sink",
        "log_mode": "request",
        "inference_service": "iris",
        "namespace": "demo",
        "component": "predictor",
        "metadata_headers": "x-a,x-b",
        "metadata_annotations": "team=red",
        "component_port": "8085",
    }


@pytest.mark.parametrize("more", [{}, {"batching": Batching(max_batch_rows=8)}], ids=["nothing asked", "batching"])
def test_component_that_needs_none_has_none(more: dict[str, Any]) -> None:
    workload = planned(**more)
    assert [container["name"] for container in workload.pod["containers"]] == ["main"]
    assert [port.target_port for port in workload.ports] == [8085, 9090]
