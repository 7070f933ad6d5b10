from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from servery_mode_knative.plugin import KnativeMode
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

MODE = KnativeMode()
MAIN: Manifest = {
    "name": "kserve-container",
    "image": "servery/predictor-sklearn:1",
    "args": ["--model_name=iris"],
    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
    "readinessProbe": {
        "tcpSocket": {"port": 8080},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    },
    "volumeMounts": [{"name": "model", "mountPath": "/mnt/models", "readOnly": True}],
}
INIT: Manifest = {
    "name": "storage-initializer",
    "image": "i",
    "volumeMounts": [{"name": "model", "mountPath": "/mnt/models"}],
}
POD: Manifest = {
    "containers": [MAIN],
    "initContainers": [INIT],
    "volumes": [{"name": "model", "emptyDir": {}}],
    "terminationGracePeriodSeconds": 30,
}
ROUTE = Route(name="iris", hosts=("h",), backends=(Backend(workload="iris-predictor", port=80),), timeout_seconds=60)


@pytest.fixture
def workload() -> Workload:
    labels = {"component": "predictor", "app": "isvc.iris-predictor"}
    return Workload(
        kind=ComponentKind.PREDICTOR,
        component="predictor",
        name="iris-predictor",
        selector={"app": "isvc.iris-predictor"},
        labels={"component": "predictor"},
        annotations={},
        pod_labels=labels,
        pod_annotations={},
        pod=POD,
        main_container="kserve-container",
        model_name="iris",
        scaling=Scaling(),
        ports=(Port(name="iris-predictor", port=80, target_port=8080),),
        strategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
    )


@pytest.fixture
def make_plan(workload: Workload) -> Any:
    def make(*, routes: tuple[Route, ...] = (ROUTE,), entry: EntryService | None = None, **changes: Any) -> Any:
        return DeploymentPlan(
            ref=ObjectRef(
                Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"), Namespace("demo"), "iris"
            ),
            owner={"kind": "InferenceService", "name": "iris", "uid": "u"},
            generation=1,
            mode="knative",
            owned_labels={"service": "iris"},
            workloads=(replace(workload, **changes),),
            routes=routes,
            entry=entry,
        )

    return make


def only(plan: DeploymentPlan) -> Any:
    (found,) = [o for o in MODE.render(plan) if o["apiVersion"] == kinds.KNATIVE_SERVICE.api_version]
    return found


def template(plan: DeploymentPlan) -> Any:
    return only(plan)["spec"]["template"]


class TestKnative(ModeContract):
    mode = MODE


def test_service_is_kserves(make_plan: Any) -> None:
    made = only(make_plan(scaling=Scaling(min_replicas=0, max_replicas=3), timeout_seconds=60, concurrency=4))
    without_probe = {key: value for key, value in MAIN.items() if key != "readinessProbe"}
    assert made == {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": "iris-predictor",
            "namespace": "demo",
            "labels": {"component": "predictor", "service": "iris"},
            "ownerReferences": [{"kind": "InferenceService", "name": "iris", "uid": "u"}],
        },
        "spec": {
            "template": {
                "metadata": {
                    "labels": {"component": "predictor", "app": "isvc.iris-predictor"},
                    "annotations": {
                        "autoscaling.knative.dev/class": "kpa.autoscaling.knative.dev",
                        "autoscaling.knative.dev/min-scale": "0",
                        "autoscaling.knative.dev/max-scale": "3",
                    },
                },
                "spec": {
                    "containerConcurrency": 4,
                    "timeoutSeconds": 60,
                    "responseStartTimeoutSeconds": 60,
                    "containers": [
                        {**without_probe, "ports": [{"name": "http1", "containerPort": 8080, "protocol": "TCP"}]}
                    ],
                    "initContainers": [INIT],
                    "volumes": [{"name": "model", "emptyDir": {}}],
                },
            },
            "traffic": [{"latestRevision": True, "percent": 100}],
        },
    }
    assert MODE.objections(make_plan()) == ()
    assert MODE.requires(make_plan()) == {Capability.KNATIVE}


@pytest.mark.parametrize(
    ("scaling", "annotations", "expected"),
    [
        (Scaling(), {}, {"class": "kpa", "min-scale": "1"}),
        (
            Scaling(max_replicas=5, initial_replicas=0),
            {},
            {"class": "kpa", "min-scale": "1", "max-scale": "5", "initial-scale": "0"},
        ),
        (
            Scaling(metric=ScaleMetric.RPS, target=20),
            {"target": "3", "window": "30s"},
            {"class": "kpa", "min-scale": "1", "metric": "rps", "target": "20", "window": "30s"},
        ),
        (
            Scaling(metric=ScaleMetric.CPU, target=80),
            {},
            {"class": "hpa", "min-scale": "1", "metric": "cpu", "target": "80"},
        ),
        (
            Scaling(target=7),
            {"class": "hpa.autoscaling.knative.dev"},
            {"class": "hpa", "min-scale": "1", "target": "7"},
        ),
        (
            Scaling(min_replicas=2, max_replicas=9, autoscaler_class=AutoscalerClass.NONE),
            {},
            {"class": "kpa", "min-scale": "2", "max-scale": "2"},
        ),
    ],
    ids=["least", "bounds", "requests", "resources", "class-of-the-user", "fixed"],
)
def test_scaling_is_annotations(make_plan: Any, scaling: Scaling, annotations: Any, expected: Any) -> None:
    given = {f"autoscaling.knative.dev/{key}": value for key, value in annotations.items()}
    found = template(make_plan(scaling=scaling, pod_annotations=given))["metadata"]["annotations"]
    wanted = {f"autoscaling.knative.dev/{key}": value for key, value in expected.items()}
    wanted["autoscaling.knative.dev/class"] += ".autoscaling.knative.dev"
    assert found == wanted


@pytest.mark.parametrize(
    ("canary", "expected"),
    [
        (None, [{"latestRevision": True, "percent": 100}]),
        (Canary(percent=10), [{"latestRevision": True, "percent": 100}]),
        (Canary(percent=100, stable_revision="r1"), [{"latestRevision": True, "percent": 100}]),
        (Canary(percent=100, tagged=True), [{"latestRevision": True, "percent": 100, "tag": "latest"}]),
        (
            Canary(percent=10, stable_revision="r1"),
            [
                {"latestRevision": True, "percent": 10},
                {"latestRevision": False, "revisionName": "r1", "percent": 90, "tag": "prev"},
            ],
        ),
        (
            Canary(percent=0, stable_revision="r1", tagged=True),
            [
                {"latestRevision": True, "percent": 0, "tag": "latest"},
                {"latestRevision": False, "revisionName": "r1", "percent": 100, "tag": "prev"},
            ],
        ),
    ],
    ids=["none", "nothing-rolled-out", "promoted", "tagged", "canary", "taken-back"],
)
def test_traffic_is_split_between_the_newest_and_the_stable_revision(
    make_plan: Any, canary: Canary | None, expected: Any
) -> None:
    assert only(make_plan(canary=canary))["spec"]["traffic"] == expected


def test_service_without_routes_is_for_the_cluster_alone(make_plan: Any) -> None:
    label = "networking.knative.dev/visibility"
    assert only(make_plan(routes=()))["metadata"]["labels"][label] == "cluster-local"
    assert label not in only(make_plan())["metadata"]["labels"]
    asked = make_plan(pod_labels={label: "cluster-local"}, routes=())
    assert label not in template(asked)["metadata"]["labels"]


def test_rollout_duration_is_the_services_annotation(make_plan: Any) -> None:
    said = {"serving.knative.dev/rollout-duration": "60s", "example.com/a": "b"}
    made = only(make_plan(annotations=said, pod_annotations=said))
    assert made["metadata"]["annotations"] == {"serving.knative.dev/rollout-duration": "60s"}
    assert "serving.knative.dev/rollout-duration" not in made["spec"]["template"]["metadata"]["annotations"]
    assert made["spec"]["template"]["metadata"]["annotations"]["example.com/a"] == "b"


def pod_of(make_plan: Any, pod: Any, **changes: Any) -> Any:
    return template(make_plan(pod=pod, **changes))["spec"]


def test_port_is_one_and_named_by_its_protocol(make_plan: Any) -> None:
    sidecar = {
        "name": "sidecar",
        "image": "s",
        "ports": [{"name": "metrics", "containerPort": 9000}],
        "livenessProbe": {"httpGet": {"path": "/", "port": "metrics"}},
    }
    h2c = Port(name="h2c", port=80, target_port=8080, app_protocol="kubernetes.io/h2c")
    main, other = pod_of(make_plan, {"containers": [MAIN, sidecar]}, ports=(h2c,))["containers"]
    assert main["ports"] == [{"name": "h2c", "containerPort": 8080, "protocol": "TCP"}]
    assert "ports" not in other
    assert other["livenessProbe"]["httpGet"]["port"] == 9000


def test_port_with_a_name_of_knatives_is_taken_and_what_a_runtime_speaks_besides_is_no_objection(
    make_plan: Any,
) -> None:
    spoken = [{"containerPort": 8080}, {"containerPort": 8081}]
    ports = (
        Port(name="iris-predictor", port=80, target_port=8080),
        Port(name="h2c", port=8081, target_port=8081, app_protocol="kubernetes.io/h2c"),
    )
    ports = (replace(ports[0], asked=False), ports[1])
    plan = make_plan(pod=main_with(ports=spoken), ports=ports)
    assert MODE.objections(plan) == ()
    (main,) = template(plan)["spec"]["containers"]
    assert main["ports"] == [{"name": "h2c", "containerPort": 8081, "protocol": "TCP"}]


def test_port_is_of_the_container_that_requests_come_to(make_plan: Any) -> None:
    agent = {"name": "agent", "image": "a", "ports": [{"containerPort": 9081}]}
    port = Port(name="agent-port", port=80, target_port=9081)
    main, front = pod_of(make_plan, {"containers": [MAIN, agent]}, ports=(port,))["containers"]
    assert "ports" not in main
    assert front["ports"] == [{"name": "http1", "containerPort": 9081, "protocol": "TCP"}]


def test_who_tells_all_metrics_tells_those_of_queue_proxy_too(make_plan: Any) -> None:
    agent = {"name": "agent", "image": "a", "args": ["--metrics-port", "9088"]}
    both = {"containers": [MAIN, agent]}
    main, beside = pod_of(make_plan, both, merges_metrics="agent")["containers"]
    assert beside["args"] == ["--metrics-port", "9088", "--queue-proxy-metrics-port", "9091"]
    assert main.get("args") == MAIN.get("args")
    assert pod_of(make_plan, both)["containers"][1]["args"] == agent["args"]


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ({"tcpSocket": {"port": 8080}}, None),
        ({"tcpSocket": {"port": 8080}, "periodSeconds": 2}, {"tcpSocket": {"port": 8080}, "periodSeconds": 2}),
        (
            {"httpGet": {"path": "/r", "port": 8080}, "timeoutSeconds": 5},
            {"httpGet": {"path": "/r", "port": 8080}, "timeoutSeconds": 5, "periodSeconds": 10},
        ),
        ({"httpGet": {"path": "/r", "port": 8080}}, {"httpGet": {"path": "/r", "port": 8080}}),
    ],
    ids=["knatives-own", "faster", "no-period", "knatives-period"],
)
def test_probe_is_one_that_knative_takes(make_plan: Any, probe: Any, expected: Any) -> None:
    (main,) = pod_of(make_plan, {"containers": [{**MAIN, "readinessProbe": probe}]})["containers"]
    assert main.get("readinessProbe") == expected


def test_volumes_are_mounted_and_read_only_where_they_can_be(make_plan: Any) -> None:
    mounts = [
        {"name": "claim", "mountPath": "/c", "readOnly": True},
        {"name": "written", "mountPath": "/w"},
        {"name": "secret", "mountPath": "/s"},
    ]
    claim = {"claimName": "models"}
    volumes = [
        {"name": "claim", "persistentVolumeClaim": claim},
        {"name": "written", "persistentVolumeClaim": claim},
        {"name": "secret", "secret": {"secretName": "s"}},
        {"name": "unmounted", "emptyDir": {}},
    ]
    made = pod_of(make_plan, {"containers": [{**MAIN, "volumeMounts": mounts}], "volumes": volumes})
    assert made["volumes"] == [
        {"name": "claim", "persistentVolumeClaim": {**claim, "readOnly": True}},
        {"name": "written", "persistentVolumeClaim": claim},
        {"name": "secret", "secret": {"secretName": "s"}},
    ]
    assert [mount.get("readOnly") for mount in made["containers"][0]["volumeMounts"]] == [True, None, True]


def test_what_kubernetes_does_anyway_is_not_said(make_plan: Any) -> None:
    plain = {
        **POD,
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "hostNetwork": False,
        "containers": [{**MAIN, "tty": False, "securityContext": {"privileged": False, "runAsNonRoot": True}}],
        "automountServiceAccountToken": False,
        "nodeSelector": {"gpu": "a100"},
    }
    made = pod_of(make_plan, plain)
    assert not {"restartPolicy", "dnsPolicy", "hostNetwork", "terminationGracePeriodSeconds"} & made.keys()
    assert made["containers"][0]["securityContext"] == {"runAsNonRoot": True}
    assert (made["automountServiceAccountToken"], made["nodeSelector"]) == (False, {"gpu": "a100"})
    assert MODE.objections(make_plan(pod=plain)) == ()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"serviceAccount": "old"}, "old"),
        ({"serviceAccount": "old", "serviceAccountName": "new"}, "new"),
    ],
    ids=["alone", "both"],
)
def test_old_name_of_the_service_account_is_the_new_one(make_plan: Any, given: Manifest, expected: str) -> None:
    made = pod_of(make_plan, {**POD, **given})
    assert "serviceAccount" not in made
    assert made["serviceAccountName"] == expected


def test_containers_say_what_they_can_of_the_pods_security(make_plan: Any) -> None:
    profile = {"type": "RuntimeDefault"}
    given = {
        **POD,
        "securityContext": {"seccompProfile": profile, "runAsUser": 1000, "fsGroup": 2000},
        "containers": [{**MAIN, "securityContext": {"runAsUser": 7}}],
    }
    made = pod_of(make_plan, given)
    assert made["securityContext"] == {"fsGroup": 2000}
    assert made["containers"][0]["securityContext"] == {"seccompProfile": profile, "runAsUser": 7}
    assert made["initContainers"][0]["securityContext"] == {"seccompProfile": profile, "runAsUser": 1000}


def main_with(**fields: Any) -> Manifest:
    return {"containers": [{**MAIN, **fields}]}


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        ({**POD, "terminationGracePeriodSeconds": 90}, "terminationGracePeriodSeconds"),
        ({**POD, "restartPolicy": "Never"}, "restartPolicy"),
        ({**POD, "hostname": "h"}, "hostname"),
        ({**POD, "securityContext": {"fsGroup": 1, "sysctls": []}}, "securityContext.sysctls"),
        ({**POD, "volumes": [{"name": "model", "nfs": {}}]}, "volumes[model].nfs"),
        (main_with(lifecycle={}), "containers[kserve-container].lifecycle"),
        (main_with(securityContext={"privileged": True}), "containers[kserve-container].securityContext.privileged"),
        (main_with(resources={"claims": []}), "containers[kserve-container].resources.claims"),
        (main_with(livenessProbe={"exec": {}, "terminationGracePeriodSeconds": 1}), "livenessProbe.termination"),
        (main_with(ports=[{"containerPort": 8080, "protocol": "UDP"}]), "TCP ports"),
        (main_with(ports=[{"containerPort": 8080, "hostPort": 80}]), "hostPort"),
        (main_with(env=[{"name": "PORT", "value": "1"}]), "variable PORT: Knative sets it"),
        (main_with(volumeMounts=[{"name": "m", "mountPath": "/dev"}]), "mountPath /dev"),
        ({"containers": [MAIN, {"name": "queue-proxy", "image": "q"}]}, "container queue-proxy"),
        (
            {**POD, "initContainers": [{**INIT, "restartPolicy": "Always"}]},
            "initContainers[storage-initializer].restart",
        ),
    ],
    ids=lambda value: value.replace("/", "") if isinstance(value, str) else "",
)
def test_what_knative_lets_nobody_say_is_an_objection(make_plan: Any, pod: Manifest, expected: str) -> None:
    (objection,) = MODE.objections(make_plan(pod=pod))
    assert expected in objection
    assert objection.startswith("predictor: ")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"workers": WorkerPods(count=1, pod=POD)}, "needs several together"),
        ({"scaling": Scaling(autoscaler_class=AutoscalerClass.KEDA)}, "autoscaler class keda"),
        ({"scaling": Scaling(autoscaler_class=AutoscalerClass.EXTERNAL)}, "autoscaler class external"),
        ({"scaling": Scaling(metrics=({"type": "External"},))}, "not on a list of metrics"),
        ({"scaling": Scaling(behavior={"scaleDown": {}})}, "no scaling behavior"),
        (
            {
                "scaling": Scaling(metric=ScaleMetric.RPS),
                "pod_annotations": {"autoscaling.knative.dev/class": "hpa.autoscaling.knative.dev"},
            },
            "scales on cpu and memory, not on rps",
        ),
        ({"strategy": {"type": "Recreate"}}, "deployment strategy"),
        ({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}, "deployment strategy"),
        (
            {
                "ports": (Port(name="p", port=80, target_port=8012),),
                "pod": {"containers": [{**MAIN, "ports": [{"containerPort": 8012}]}]},
            },
            "port 8012",
        ),
        ({"traffic_percent": 50}, "not between components"),
        (
            {"ports": tuple(Port(name=f"p-{number}", port=number, target_port=number) for number in (8080, 8081))},
            "ports 8081 beside 8080",
        ),
        ({"entry": EntryService(name="e", selector={}, ports=(), type="LoadBalancer")}, "type LoadBalancer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_knative_has_no_words_for_is_an_objection(make_plan: Any, changes: Any, expected: str) -> None:
    (objection,) = MODE.objections(make_plan(**changes))
    assert expected in objection


def test_strategy_that_takes_no_pod_away_is_knatives_own(make_plan: Any) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert MODE.objections(make_plan(strategy=strategy)) == ()


def test_disruption_budget_is_over_the_pods_of_all_revisions(make_plan: Any) -> None:
    (budget,) = [
        o for o in MODE.render(make_plan(disruption_budget={"minAvailable": 1})) if o["kind"] == "PodDisruptionBudget"
    ]
    assert budget["spec"] == {"minAvailable": 1, "selector": {"matchLabels": {"app": "isvc.iris-predictor"}}}


def test_router_may_look_at_the_pods(make_plan: Any) -> None:
    rendered = MODE.render(make_plan(reads_pods=True))
    assert [o["kind"] for o in rendered] == ["ServiceAccount", "Role", "RoleBinding", "Service"]
    assert rendered[-1]["spec"]["template"]["spec"]["serviceAccountName"] == "iris-predictor"


TRAFFIC = [{"latestRevision": True, "percent": 100, "revisionName": "r2"}]
READY = {
    "observedGeneration": 2,
    "conditions": [
        {"type": "Ready", "status": "True"},
        {"type": "ConfigurationsReady", "status": "True"},
        {"type": "RoutesReady", "status": "True"},
    ],
    "url": "http://iris-predictor.demo.example.com",
    "address": {"url": "http://iris-predictor.demo.svc.cluster.local"},
    "latestCreatedRevisionName": "r2",
    "latestReadyRevisionName": "r2",
    "traffic": TRAFFIC,
}


def read(workload: Workload, status: Any) -> Any:
    ref = ObjectRef(kinds.KNATIVE_SERVICE, Namespace("demo"), workload.name)
    found = {} if status is None else {ref: {"metadata": {"generation": 2}, "status": status}}
    return MODE.readiness(workload, found)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, ("Unknown", "KnativeServiceMissing")),
        ({}, ("Unknown", "Progressing")),
        (READY, ("True", "")),
        ({**READY, "observedGeneration": 1}, ("Unknown", "Progressing")),
        (
            {
                "observedGeneration": 2,
                "conditions": [{"type": "Ready", "status": "False", "reason": "RevisionFailed", "message": "no image"}],
            },
            ("False", "RevisionFailed"),
        ),
        (
            {
                "observedGeneration": 2,
                "conditions": [{"type": "Ready", "status": "Unknown", "reason": "RevisionMissing"}],
            },
            ("Unknown", "RevisionMissing"),
        ),
    ],
    ids=["missing", "new", "ready", "of-an-earlier-template", "failed", "on-its-way"],
)
def test_readiness_is_what_knative_says(workload: Workload, status: Any, expected: tuple[str, str]) -> None:
    said = read(workload, status)
    assert (str(said.status), said.reason) == expected


def test_ready_service_says_where_it_is_and_which_revisions_it_has(workload: Workload) -> None:
    said = read(workload, READY)
    assert (said.url, said.address) == (READY["url"], "http://iris-predictor.demo.svc.cluster.local")
    assert [(part.type, str(part.status)) for part in said.parts] == [("Configuration", "True"), ("Route", "True")]
    assert (said.revisions.latest_created, said.revisions.latest_ready, said.revisions.rolled_out) == ("r2", "r2", "r2")
    assert said.revisions.traffic == tuple(TRAFFIC)


def test_revision_with_a_share_is_not_rolled_out(workload: Workload) -> None:
    shares = [{**TRAFFIC[0], "percent": 10}, {"revisionName": "r1", "percent": 90, "tag": "prev"}]
    assert read(workload, {**READY, "traffic": shares}).revisions.rolled_out is None
