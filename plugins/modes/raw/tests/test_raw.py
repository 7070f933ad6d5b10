from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from servery_mode_raw.plugin import RawMode
from servery_sdk import kinds
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    AutoscalerClass,
    Backend,
    Canary,
    Capability,
    ComponentKind,
    DeploymentPlan,
    EntryService,
    Port,
    Route,
    ScaleMetric,
    Scaling,
    WorkerPods,
    Workload,
)
from servery_sdk.testing import ModeContract

SERVICE = ObjectRef(
    Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"), Namespace("demo"), "iris"
)


@pytest.fixture
def workload() -> Workload:
    return Workload(
        kind=ComponentKind.PREDICTOR,
        component="predictor",
        name="iris-predictor",
        selector={"app": "isvc.iris-predictor"},
        labels={"component": "predictor"},
        annotations={},
        pod_labels={"component": "predictor", "app": "isvc.iris-predictor"},
        pod_annotations={},
        pod={"containers": [{"name": "c", "image": "i"}]},
        main_container="c",
        model_name="iris",
        scaling=Scaling(),
        ports=(Port(name="http1", port=80, target_port=8080),),
        strategy={"type": "RollingUpdate"},
    )


@pytest.fixture
def plan(workload: Workload) -> DeploymentPlan:
    route = Route(
        name="iris",
        hosts=("iris-demo.example.com",),
        backends=(Backend(workload="iris-predictor", port=80),),
        timeout_seconds=60,
    )
    return DeploymentPlan(
        ref=SERVICE,
        owner={"kind": "InferenceService", "name": "iris", "uid": "u"},
        generation=1,
        mode="raw",
        owned_labels={"serving.kserve.io/inferenceservice": "iris"},
        workloads=(workload,),
        routes=(route,),
    )


def by_kind(plan: DeploymentPlan) -> dict[str, Manifest]:
    return {found["kind"]: found for found in RawMode().render(plan)}


def scaled(plan: DeploymentPlan, **scaling: Any) -> DeploymentPlan:
    return replace(plan, workloads=(replace(plan.workloads[0], scaling=Scaling(**scaling)),))


class TestRaw(ModeContract):
    mode = RawMode()


def test_route_is_an_ingress_where_there_is_no_gateway_api(plan: DeploymentPlan) -> None:
    assert by_kind(plan).keys() == {"Deployment", "Service", "HorizontalPodAutoscaler", "Ingress"}
    gateway = replace(plan, capabilities=frozenset({Capability.GATEWAY_API}))
    assert by_kind(gateway).keys() == {"Deployment", "Service", "HorizontalPodAutoscaler", "HTTPRoute"}


def test_stopped_service_has_no_objects(plan: DeploymentPlan) -> None:
    assert RawMode().render(replace(plan, stopped=True)) == ()


@pytest.mark.parametrize(
    ("scaling", "kind"),
    [
        ({}, "HorizontalPodAutoscaler"),
        ({"autoscaler_class": AutoscalerClass.KEDA}, "ScaledObject"),
        ({"autoscaler_class": AutoscalerClass.EXTERNAL}, None),
        ({"autoscaler_class": AutoscalerClass.NONE}, None),
    ],
)
def test_autoscaler_is_of_the_class_that_was_asked_for(
    plan: DeploymentPlan, scaling: dict[str, Any], kind: str | None
) -> None:
    assert (by_kind(scaled(plan, **scaling)).keys() & {"HorizontalPodAutoscaler", "ScaledObject"}) == (
        {kind} if kind else set()
    )


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        pytest.param({"min_replicas": 0}, {"minReplicas": 1, "maxReplicas": 1}, id="no-hpa-to-zero"),
        pytest.param({"min_replicas": 2, "max_replicas": 5}, {"minReplicas": 2, "maxReplicas": 5}, id="bounds"),
        pytest.param({"behavior": {"scaleDown": {}}}, {"behavior": {"scaleDown": {}}}, id="behavior-is-honoured"),
        pytest.param(
            {"metric": ScaleMetric.MEMORY, "target": 200},
            {
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "200Mi"}},
                    }
                ]
            },
            id="memory-in-mebibytes",
        ),
        pytest.param(
            {},
            {
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
                    }
                ]
            },
            id="cpu-by-default",
        ),
    ],
)
def test_hpa_says(plan: DeploymentPlan, scaling: dict[str, Any], expected: dict[str, Any]) -> None:
    spec = by_kind(scaled(plan, **scaling))["HorizontalPodAutoscaler"]["spec"]
    assert {key: spec[key] for key in expected} == expected


def test_budget_comes_with_the_second_replica(plan: DeploymentPlan) -> None:
    assert "PodDisruptionBudget" not in by_kind(plan)
    assert by_kind(scaled(plan, min_replicas=2))["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_replicas_are_left_to_the_autoscaler(plan: DeploymentPlan) -> None:
    assert "replicas" not in by_kind(plan)["Deployment"]["spec"]
    fixed = replace(plan, workloads=(replace(plan.workloads[0], replicas=3),))
    assert by_kind(fixed)["Deployment"]["spec"]["replicas"] == 3


def test_canary_by_revision_is_an_objection(plan: DeploymentPlan) -> None:
    def with_canary(percent: int) -> DeploymentPlan:
        canary = Canary(percent=percent, stable_revision="r1")
        return replace(plan, workloads=(replace(plan.workloads[0], canary=canary),))

    (objection,) = RawMode().objections(with_canary(10))
    assert "mode knative" in objection
    assert RawMode().objections(with_canary(100)) == ()


def test_metric_that_no_hpa_can_read_is_an_objection(plan: DeploymentPlan) -> None:
    (objection,) = RawMode().objections(scaled(plan, metric=ScaleMetric.CONCURRENCY))
    assert objection.startswith("predictor: a HorizontalPodAutoscaler cannot scale on concurrency")
    by_keda = {"metric": ScaleMetric.RPS, "autoscaler_class": AutoscalerClass.KEDA}
    assert RawMode().objections(scaled(plan, **by_keda)) == ()
    assert RawMode().objections(scaled(plan, metric=ScaleMetric.CPU)) == ()


def test_keda_asks_prometheus_with_credentials(plan: DeploymentPlan) -> None:
    metric = {
        "type": "External",
        "external": {
            "metric": {"backend": "prometheus", "serverAddress": "http://p", "query": "q"},
            "target": {"type": "AverageValue", "value": "5"},
            "authenticationRef": {"authModes": "basic", "authenticationRef": {"name": "a"}},
        },
    }
    made = RawMode().render(scaled(plan, autoscaler_class=AutoscalerClass.KEDA, metrics=(metric,)))
    (scaler,) = [found for found in made if found["kind"] == "ScaledObject"]
    assert scaler["spec"]["triggers"] == [
        {
            "type": "prometheus",
            "metadata": {"serverAddress": "http://p", "query": "q", "threshold": "5", "authModes": "basic"},
            "authenticationRef": {"name": "a"},
        }
    ]


def test_model_on_several_machines_is_a_leader_worker_set(plan: DeploymentPlan) -> None:
    worker = {"containers": [{"name": "w", "image": "i"}]}
    leader = replace(
        plan.workloads[0],
        workers=WorkerPods(count=3, pod=worker, labels={"side": "follows"}, annotations={"rdma": "yes"}),
        object_names={"LeaderWorkerSet": "lws-iris"},
        scaling=Scaling(min_replicas=2),
    )
    found = by_kind(replace(plan, workloads=(leader,)))
    assert {"Deployment", "HorizontalPodAutoscaler"} & found.keys() == set()
    made = found["LeaderWorkerSet"]
    assert made["metadata"]["name"] == "lws-iris"
    assert made["spec"]["replicas"] == 2
    template = made["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 4
    assert template["leaderTemplate"]["spec"] == leader.pod
    assert template["workerTemplate"]["spec"] == worker
    selector = found["Service"]["spec"]["selector"]
    assert selector.items() <= template["leaderTemplate"]["metadata"]["labels"].items()
    assert template["workerTemplate"]["metadata"] == {"labels": {"side": "follows"}, "annotations": {"rdma": "yes"}}
    assert RawMode().requires(replace(plan, workloads=(leader,))) == {Capability.LEADER_WORKER_SET}


def test_router_may_look_at_the_pods_and_at_nothing_else(plan: DeploymentPlan) -> None:
    found = by_kind(replace(plan, workloads=(replace(plan.workloads[0], reads_pods=True),)))
    assert found["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == "iris-predictor"
    assert found["Role"]["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
    assert found["RoleBinding"]["subjects"][0]["name"] == found["ServiceAccount"]["metadata"]["name"]


@pytest.mark.parametrize("field", ["serviceAccountName", "serviceAccount"])
def test_router_with_an_account_keeps_it_and_it_may_look_at_the_pods(plan: DeploymentPlan, field: str) -> None:
    pod = {**plan.workloads[0].pod, field: "mine"}
    found = by_kind(replace(plan, workloads=(replace(plan.workloads[0], reads_pods=True, pod=pod),)))
    assert found["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"] == "mine"
    assert found["RoleBinding"]["subjects"] == [{"kind": "ServiceAccount", "name": "mine", "namespace": "demo"}]
    assert "ServiceAccount" not in found


def test_entry_stands_before_the_whole(plan: DeploymentPlan) -> None:
    entry = EntryService(name="iris", selector={"a": "b"}, ports=plan.workloads[0].ports, type="LoadBalancer")
    names = {o["metadata"]["name"]: o for o in RawMode().render(replace(plan, entry=entry)) if o["kind"] == "Service"}
    assert names["iris"]["spec"]["type"] == "LoadBalancer"
    assert names["iris"]["spec"]["ports"] == names["iris-predictor"]["spec"]["ports"]


def test_traffic_by_weight_needs_the_gateway_api(plan: DeploymentPlan) -> None:
    split = (Backend(workload="a", port=80, weight=90), Backend(workload="b", port=80, weight=10))
    weighted = replace(plan, routes=(replace(plan.routes[0], backends=split),))
    assert RawMode().requires(weighted) == {Capability.GATEWAY_API}
    assert RawMode().requires(plan) == frozenset()


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([("Available", "True")], ("True", "")),
        ([("Available", "False"), ("Progressing", "True")], ("Unknown", "Progressing")),
        ([("Progressing", "False")], ("False", "Progressing")),
        ([], ("Unknown", "Progressing")),
    ],
)
def test_readiness_of_several_machines_is_the_leader_worker_sets(
    plan: DeploymentPlan, conditions: list[tuple[str, str]], expected: tuple[str, str]
) -> None:
    workload = replace(plan.workloads[0], workers=WorkerPods(count=1, pod={"containers": []}))
    found = {"status": {"conditions": [{"type": kind, "status": status} for kind, status in conditions]}}
    name = ObjectRef(kinds.LEADER_WORKER_SET, Namespace("demo"), workload.name)
    said = RawMode().readiness(workload, {name: found})
    assert (str(said.status), said.reason) == expected
    assert RawMode().readiness(workload, {}).reason == "LeaderWorkerSetMissing"
