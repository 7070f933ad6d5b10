"""What of a service in nobody's words KubeDL's manifests can say, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from servery_dialect_kubedl.plugin import KubeDLDialect
from servery_sdk.errors import Invalid
from servery_sdk.manifests import Kind, Namespace, ObjectRef
from servery_sdk.model import (
    Artifact,
    AutoscalerClass,
    Batching,
    Canary,
    Component,
    ComponentKind,
    Entry,
    InferenceService,
    PayloadLogging,
    RuntimeRequest,
    ScaleMetric,
    Scaling,
    Workers,
)

DIALECT = KubeDLDialect()
CONTAINER = {"name": "server", "image": "acme/server:1", "ports": [{"containerPort": 9000}]}
SERVER = Component(
    kind=ComponentKind.PREDICTOR,
    name="server",
    object_name="iris-server",
    main_container="server",
    pod={"containers": [CONTAINER]},
    field_path="x",
)


def meant(*components: Component, **changes: Any) -> InferenceService:
    made = InferenceService(
        ref=ObjectRef(Kind("example.com/v1", "Thing", "things"), Namespace("demo"), "iris"),
        metadata={"name": "iris", "namespace": "demo"},
        components=components or (SERVER,),
        owned_labels={},
    )
    return replace(made, **changes)


def predictor(**changes: Any) -> Any:
    (found,) = DIALECT.write(meant(replace(SERVER, **changes)))
    return found["spec"]["predictors"][0]


def of(container: Any) -> Any:
    """Return how the container that answers is written."""
    made = predictor(pod={"containers": [{**CONTAINER, **container}]})
    return made["template"]["spec"]["containers"][0]


def refusals(service: InferenceService) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        DIALECT.write(service)
    return [(error.path, error.detail.removeprefix("KubeDL cannot say ")) for error in refused.value.errors]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"kind": ComponentKind.ROUTER}, "a router"),
        ({"workers": Workers(count=1)}, "pods that each replica leads"),
        ({"logging": PayloadLogging()}, "payload logging"),
        ({"timeout_seconds": 30}, "how long a request may take (30 seconds)"),
        ({"container_concurrency": 4}, "a bound of the requests at once (4)"),
        ({"canary": Canary(percent=10)}, "a share for the newest revision; it has predictors with weights"),
        ({"disruption_budget": {"minAvailable": 1}}, "a disruption budget"),
        (
            {"strategy": {"type": "Recreate"}},
            "a deployment strategy other than Kubernetes' own: deploymentStrategy: {type: RollingUpdate}",
        ),
        (
            {"accelerators_env": "GPUS", "pod": {"containers": [{**CONTAINER, "args": ["$(GPUS)"]}]}},
            "variable GPUS, which counts the GPUs of a pod",
        ),
        ({"reads_pods": True}, "the right to look at the pods of the namespace"),
        ({"batching": Batching(max_latency_seconds=1)}, "batching without batchSize, or with a timeout of the batch"),
        ({"batching": Batching(max_batch_rows=8, max_latency_seconds=0.5)}, "a latency of a part of a second"),
        ({"pod": {"containers": [CONTAINER], "schedulingGates": []}}, "schedulingGates of the pod"),
        (
            {"pod": {"containers": [{**CONTAINER, "ports": [{"name": "h2c", "containerPort": 9000}]}]}},
            "a server of gRPC alone: the first port of its Service is REST's",
        ),
        (
            {"scaling": Scaling(autoscaler_class=AutoscalerClass.EXTERNAL)},
            "an autoscaler of somebody else without its name",
        ),
        ({"scaling": Scaling(metric=ScaleMetric.CPU)}, "what its autoscaler looks at"),
        ({"scaling": Scaling(behavior={})}, "the behavior of its autoscaler"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_component_without_words_is_refused_at_its_own_path(changes: Any, what: str) -> None:
    assert refusals(meant(replace(SERVER, **changes))) == [("x", what)]


def test_all_refusals_of_a_service_come_at_once() -> None:
    served = replace(
        SERVER,
        runtime=RuntimeRequest(name="acme", field_path="x.runtime"),
        artifacts=(Artifact(uri="s3://a/b", field_path="x.uri"),),
    )
    service = meant(
        served,
        mode="raw",
        stopped=True,
        cluster_local=True,
        entry=Entry(name="iris", selector={}, type="LoadBalancer"),
    )
    assert refusals(service) == [
        ("metadata", "that nobody outside is to reach it"),
        ("metadata.annotations", "mode raw: the installation's default runs it"),
        ("metadata.annotations", "that nothing is to run for now"),
        ("metadata.annotations", "a Service of type LoadBalancer"),
        ("x.runtime", "a runtime: its containers are the manifest's own"),
        ("x.uri", "a URI of a model that is to be fetched"),
    ]


def test_weights_are_said_where_there_are_several() -> None:
    assert "trafficWeight" not in predictor()
    other = replace(SERVER, name="other", traffic_percent=10)
    (found,) = DIALECT.write(meant(replace(SERVER, traffic_percent=90), other))
    assert [made["trafficWeight"] for made in found["spec"]["predictors"]] == [90, 10]


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        (Scaling(min_replicas=2, autoscaler_class=AutoscalerClass.NONE), {"replicas": 2}),
        (
            Scaling(min_replicas=0),
            {"autoScale": {"minReplicas": 0, "maxReplicas": 1, "autoScaler": {"kind": "HorizontalPodAutoscaler"}}},
        ),
        (
            Scaling(min_replicas=1, max_replicas=4, initial_replicas=2, autoscaler_class=AutoscalerClass.KEDA),
            {
                "replicas": 2,
                "autoScale": {"minReplicas": 1, "maxReplicas": 4, "autoScaler": {"kind": "ScaledObject"}},
            },
        ),
    ],
    ids=["fixed", "unbounded", "keda"],
)
def test_replicas_are_said(scaling: Scaling, said: Any) -> None:
    found = predictor(scaling=scaling)
    assert {key: value for key, value in found.items() if key in {"replicas", "autoScale"}} == said


def test_ports_get_the_names_by_which_the_service_finds_them_and_so_do_probes() -> None:
    ports = [{"name": "http1", "containerPort": 8080}, {"containerPort": 7}, {"name": "h2c", "containerPort": 8081}]
    found = of({"ports": ports, "readinessProbe": {"httpGet": {"path": "/", "port": "http1"}, "periodSeconds": 1}})
    assert [port.get("name") for port in found["ports"]] == ["http", None, "grpc"]
    assert found["readinessProbe"] == {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}


@pytest.mark.parametrize(
    ("container", "framework"),
    [
        ({}, "Triton"),
        ({"image": "r/tensorflow/serving:2"}, "TFServing"),
        ({"args": ["--rest_api_port=9000"]}, "TFServing"),
        ({"image": "nvcr.io/nvidia/tritonserver:24.05-py3"}, "Triton"),
    ],
    ids=["unknown", "image", "flags", "triton"],
)
def test_framework_is_the_one_that_is_in_the_container(container: Any, framework: str) -> None:
    (found,) = DIALECT.write(meant(replace(SERVER, pod={"containers": [{**CONTAINER, **container}]})))
    assert found["spec"]["framework"] == framework


def test_users_labels_are_the_pods_and_the_dialects_are_not() -> None:
    found = predictor(labels={"team": "a", "kubedl.io/inference": "x"}, annotations={"note": "b"})
    assert found["template"]["metadata"] == {
        "labels": {"team": "a", "kubedl.io/inference": "x"},
        "annotations": {"note": "b"},
    }
    service = meant(replace(SERVER, labels={"kubedl.io/predictor-name": "x"}))
    assert refusals(service) == [("x", "label kubedl.io/predictor-name: there it is a word of its own")]
