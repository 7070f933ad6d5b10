from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from servery_mode_ray.plugin import RayMode
from servery_sdk import kinds
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    AutoscalerClass,
    Canary,
    Capability,
    ComponentKind,
    DeploymentPlan,
    Port,
    Runtime,
    ScaleMetric,
    Scaling,
    Selection,
    WorkerPods,
    Workload,
)
from servery_sdk.testing import ModeContract

MODE = RayMode()
OWN = Selection(runtime=Runtime(name="servery-sklearn", model_class="m:M"), protocol=None, reason="named")
MAIN: Manifest = {
    "name": "kserve-container",
    "image": "servery/predictor-sklearn:1",
    "args": ["--runtime=sklearn", "--model_name=iris"],
    "env": [{"name": "A", "value": "b"}],
    "ports": [{"containerPort": 8080}],
    "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
    "resources": {"requests": {"cpu": "500m"}, "limits": {"nvidia.com/gpu": "1"}},
    "volumeMounts": [{"name": "model", "mountPath": "/mnt/models"}],
}
POD: Manifest = {
    "containers": [MAIN, {"name": "sidecar", "image": "s"}],
    "initContainers": [{"name": "storage-initializer", "image": "i"}],
    "volumes": [{"name": "model", "emptyDir": {}}],
}


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
        scaling=Scaling(min_replicas=1, max_replicas=4, target=5),
        ports=(Port(name="http1", port=80, target_port=8080),),
        strategy={},
        selection=OWN,
    )


@pytest.fixture
def make_plan(workload: Workload) -> Any:
    def make(**changes: Any) -> DeploymentPlan:
        service = Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices")
        return DeploymentPlan(
            ref=ObjectRef(service, Namespace("demo"), "iris"),
            owner={"kind": "InferenceService", "name": "iris", "uid": "u"},
            generation=1,
            mode="ray",
            owned_labels={"service": "iris"},
            workloads=(replace(workload, **changes),),
        )

    return make


def only(plan: DeploymentPlan, kind: Kind) -> Manifest:
    (found,) = [o for o in MODE.render(plan) if (o["apiVersion"], o["kind"]) == (kind.api_version, kind.kind)]
    return found


class TestRay(ModeContract):
    mode = MODE


def test_own_model_is_the_serve_application(make_plan: Any) -> None:
    spec = only(make_plan(), kinds.RAY_SERVICE)["spec"]
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    assert application["import_path"] == "servery_predictor.ray:predictor"
    assert application["args"] == {"argv": MAIN["args"]}
    assert application["deployments"] == [
        {
            "name": "predictor",
            "autoscaling_config": {
                "min_replicas": 1,
                "initial_replicas": 1,
                "max_replicas": 4,
                "target_ongoing_requests": 5,
            },
            "ray_actor_options": {"num_cpus": 0.5, "num_gpus": 1.0},
        }
    ]
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (1, 4)
    assert spec["rayClusterConfig"]["enableInTreeAutoscaling"] is True


def test_worker_is_the_plans_pod_started_by_ray(make_plan: Any) -> None:
    config = only(make_plan(), kinds.RAY_SERVICE)["spec"]["rayClusterConfig"]
    pod = config["workerGroupSpecs"][0]["template"]["spec"]
    started = {key: value for key, value in MAIN.items() if key not in {"args", "readinessProbe", "ports"}}
    assert pod["containers"][0] == {
        **started,
        "image": "servery/predictor-sklearn:1-ray",
        "ports": [{"name": "serve", "containerPort": 8000, "protocol": "TCP"}],
    }
    assert pod["containers"][1:] == POD["containers"][1:]
    assert (pod["initContainers"], pod["volumes"]) == (POD["initContainers"], POD["volumes"])
    head = config["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "initContainers" not in head["template"]["spec"], "the head has no model"


@pytest.mark.parametrize(
    ("image", "started"),
    [
        ("mirror:5000/predictor", "mirror:5000/predictor:latest-ray"),
        ("mirror:5000/predictor:1", "mirror:5000/predictor:1-ray"),
        ("predictor:1@sha256:ab", "predictor:1@sha256:ab"),
    ],
)
def test_own_model_runs_in_the_image_that_has_ray(make_plan: Any, image: str, started: str) -> None:
    plan = make_plan(pod={**POD, "containers": [{**MAIN, "image": image}]})
    config = only(plan, kinds.RAY_SERVICE)["spec"]["rayClusterConfig"]
    assert config["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"] == started
    assert config["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] == "servery/ray:0.1.0"


def test_server_of_somebody_else_runs_as_it_is_behind_a_proxy(make_plan: Any) -> None:
    spec = only(make_plan(selection=None), kinds.RAY_SERVICE)["spec"]
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    assert application["import_path"] == "servery_predictor.ray:proxy"
    assert application["args"] == {"port": 8080}
    ray, *rest = spec["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert ray["name"] == "ray"
    assert rest == POD["containers"]


def test_service_leads_to_serve_on_the_workers_alone(make_plan: Any) -> None:
    plan = make_plan()
    service = only(plan, kinds.SERVICE)
    assert service["spec"]["ports"] == [{"name": "http1", "port": 80, "targetPort": 8000, "protocol": "TCP"}]
    config = only(plan, kinds.RAY_SERVICE)["spec"]["rayClusterConfig"]
    selector = service["spec"]["selector"].items()
    assert selector <= config["workerGroupSpecs"][0]["template"]["metadata"]["labels"].items()
    assert not selector <= config["headGroupSpec"]["template"]["metadata"]["labels"].items()


def test_model_on_several_machines_is_a_cluster_for_each_replica(make_plan: Any) -> None:
    command = ["vllm", "serve"]
    leader = {"containers": [{**MAIN, "command": command}]}
    workers = WorkerPods(count=3, pod=POD, labels={"side": "follows"}, annotations={"rdma": "yes"})
    plan = make_plan(pod=leader, workers=workers, scaling=Scaling(min_replicas=2))
    clusters = [o for o in MODE.render(plan) if o["kind"] == "RayCluster"]
    assert [c["metadata"]["name"] for c in clusters] == ["iris-predictor-0", "iris-predictor-1"]
    spec = clusters[0]["spec"]
    assert clusters[0]["metadata"]["annotations"] == {"ray.io/overwrite-container-cmd": "true"}
    head = spec["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["command"][:2] == ["/bin/bash", "-lc"]
    assert head["args"] == ["server", *command, *MAIN["args"]]
    (group,) = spec["workerGroupSpecs"]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (3, 3, 3)
    assert "args" not in group["template"]["spec"]["containers"][0]
    assert group["template"]["metadata"] == {"labels": {"side": "follows"}, "annotations": {"rdma": "yes"}}
    assert MODE.objections(plan) == ()
    assert "names no command" in MODE.objections(make_plan(workers=WorkerPods(count=1, pod=POD)))[0]


def test_canary_by_revision_is_an_objection(make_plan: Any) -> None:
    (objection,) = MODE.objections(make_plan(canary=Canary(percent=10, stable_revision="r1")))
    assert "mode knative" in objection
    assert MODE.objections(make_plan(canary=Canary(percent=100))) == ()


def test_metric_that_serve_does_not_know_is_an_objection(make_plan: Any) -> None:
    (objection,) = MODE.objections(make_plan(scaling=Scaling(metric=ScaleMetric.MEMORY)))
    assert "not on memory" in objection
    assert MODE.objections(make_plan(scaling=Scaling(metric=ScaleMetric.CONCURRENCY))) == ()
    assert MODE.requires(make_plan()) == {Capability.KUBERAY}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"scaling": Scaling(autoscaler_class=AutoscalerClass.KEDA)}, "autoscaler class keda"),
        ({"scaling": Scaling(autoscaler_class=AutoscalerClass.EXTERNAL)}, "autoscaler class external"),
        ({"scaling": Scaling(behavior={"scaleDown": {}})}, "no scaling behavior"),
        ({"strategy": {"type": "Recreate"}}, "deployment strategy"),
        ({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}, "deployment strategy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_ray_has_no_words_for_is_an_objection(make_plan: Any, changes: Any, expected: str) -> None:
    (objection,) = MODE.objections(make_plan(**changes))
    assert expected in objection


def test_strategy_that_takes_no_pod_away_is_kuberays_own(make_plan: Any) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert MODE.objections(make_plan(strategy=strategy)) == ()


def test_number_of_replicas_that_nothing_moves_is_fixed(make_plan: Any) -> None:
    scaling = Scaling(min_replicas=2, max_replicas=4, autoscaler_class=AutoscalerClass.NONE)
    spec = only(make_plan(scaling=scaling), kinds.RAY_SERVICE)["spec"]
    (deployment,) = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["deployments"]
    assert (deployment["num_replicas"], "autoscaling_config" in deployment) == (2, False)
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    assert (group["minReplicas"], group["maxReplicas"]) == (2, 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"scaling": Scaling(min_replicas=2)}, {"maxUnavailable": 1}),
        ({"disruption_budget": {"minAvailable": 1}}, {"minAvailable": 1}),
    ],
    ids=["one replica", "several", "asked for"],
)
def test_disruption_budget_is_over_the_pods_that_answer(make_plan: Any, changes: Any, expected: Any) -> None:
    budgets = [o["spec"] for o in MODE.render(make_plan(**changes)) if o["kind"] == "PodDisruptionBudget"]
    selector = {"matchLabels": {"app": "isvc.iris-predictor"}}
    assert budgets == ([] if expected is None else [{**expected, "selector": selector}])


READY = {"type": "Ready", "status": "True"}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (None, ("Unknown", "RayServiceMissing")),
        ({}, ("Unknown", "Progressing")),
        ({"conditions": [READY]}, ("True", "")),
        ({"serviceStatus": "Running"}, ("True", "")),
        ({"conditions": [{**READY, "status": "False", "reason": "Initializing"}]}, ("Unknown", "Initializing")),
        (
            {
                "pendingServiceStatus": {
                    "applicationStatuses": {"iris": {"status": "DEPLOY_FAILED", "message": "no model"}}
                }
            },
            ("False", "DEPLOY_FAILED"),
        ),
    ],
)
def test_readiness_is_what_the_ray_service_says(workload: Workload, status: Any, expected: tuple[str, str]) -> None:
    name = ObjectRef(kinds.RAY_SERVICE, Namespace("demo"), workload.name)
    said = MODE.readiness(workload, {} if status is None else {name: {"status": status}})
    assert (str(said.status), said.reason) == expected


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([{"state": "ready"}], ("Unknown", "RayClusterMissing")),
        ([{"state": "ready"}, {"state": "ready"}], ("True", "")),
        ([{"state": "ready"}, {"state": "failed", "reason": "no quota"}], ("False", "RayClusterFailed")),
        ([{"state": "ready"}, {}], ("Unknown", "Progressing")),
    ],
)
def test_readiness_of_clusters_is_that_of_all(workload: Workload, statuses: Any, expected: tuple[str, str]) -> None:
    several = replace(workload, workers=WorkerPods(count=1, pod=POD), scaling=Scaling(min_replicas=2))
    found = {
        ObjectRef(kinds.RAY_CLUSTER, Namespace("demo"), f"iris-predictor-{number}"): {"status": status}
        for number, status in enumerate(statuses)
    }
    said = MODE.readiness(several, found)
    assert (str(said.status), said.reason) == expected


def test_server_whose_first_port_is_grpc_is_refused(make_plan: Any) -> None:
    plan = make_plan(ports=(Port(name="h2c", port=80, target_port=8081, app_protocol="kubernetes.io/h2c"),))
    assert MODE.objections(plan) == (
        "predictor: its first port is h2c (gRPC), and Ray Serve's proxy speaks HTTP/1.1; let the first port be the "
        "server's REST port, or choose mode raw or knative",
    )
