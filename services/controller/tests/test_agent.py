"""The agent in a component's pod, as KServe's webhook would have put it there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from servery_agent.cli import parser, settings_from
from servery_controller.planning import PlanningSettings
from servery_controller.planning.errors import NoPlan
from servery_controller.planning.plan import plan
from servery_sdk import kinds
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef
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
    url="http://sink",
    mode=LogMode.REQUEST,
    metadata_headers=("x-a", "x-b"),
    metadata_annotations=("team", "none"),
    marshaller_url="http://marshaller",
    batch_size=10,
    batch_interval="5s",
)


def planned(catalog: Catalog | None = None, *, ports: Sequence[Manifest] = PORTS, **more: Any) -> Workload:
    main = {"name": "main", "image": "i", "ports": ports, "securityContext": {"runAsUser": 7}}
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
    return plan(service, catalog or Catalog(), PlanningSettings(agent_image="agent:1")).workloads[0]


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
    probe, name = agent["env"]
    assert name == {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    assert (probe["name"], json.loads(probe["value"])) == ("SERVING_READINESS_PROBE", main["readinessProbe"])


def test_agent_is_told_what_kserves_is() -> None:
    told = vars(parser().parse_args(planned(logging=LOGGING).pod["containers"][1]["args"]))
    assert told == {
        "log_url": "http://sink",
        "log_mode": "request",
        "inference_service": "iris",
        "namespace": "demo",
        "component": "predictor",
        "endpoint": "default",
        "source_uri": "$(POD_NAME)",
        "log_spool_path": "/var/spool/servery-agent",
        "log_batch_size": "10",
        "log_batch_interval": "5s",
        "log_marshaller_url": "http://marshaller",
        "metadata_headers": "x-a,x-b",
        "metadata_annotations": "team=red",
        "component_port": "8085",
    }


def test_agent_that_batches_is_told_so_and_where_the_server_speaks_http2() -> None:
    batching = Batching(max_batch_rows=8, max_latency_seconds=0.05, timeout_seconds=60, is_in_front=True)
    ports = [{"containerPort": 8085}, {"name": "h2c", "containerPort": 8086}]
    args = planned(batching=batching, ports=ports).pod["containers"][1]["args"]
    settings, _ = settings_from(args)
    assert (settings.enable_batcher, settings.max_batchsize, settings.max_latency) == (True, 8, 50)
    assert (settings.batch_timeout_seconds, settings.component_port, settings.component_grpc_port) == (60, 8085, 8086)


def test_batcher_without_bounds_leaves_them_to_the_agent() -> None:
    args = planned(batching=Batching(is_in_front=True)).pod["containers"][1]["args"]
    assert args == ["--enable-batcher", "--component-port", "8085"]


def test_component_whose_metrics_are_merged_has_an_agent_that_asks_for_them() -> None:
    workload = planned(merges_metrics=True)
    settings, _ = settings_from(workload.pod["containers"][1]["args"])
    assert (settings.metrics_port, settings.component_metrics_port, settings.queue_proxy_metrics_port) == (
        9088,
        8085,
        None,
    )
    assert workload.merges_metrics == "agent"
    assert workload.pod_annotations == {"prometheus.io/port": "9088", "prometheus.io/path": "/metrics"}
    assert planned(logging=LOGGING).merges_metrics is None


def test_metrics_are_asked_for_where_the_pods_annotations_say() -> None:
    told = {"prometheus.kserve.io/port": "9090", "prometheus.kserve.io/path": "/own/metrics"}
    settings, _ = settings_from(planned(merges_metrics=True, annotations=told).pod["containers"][1]["args"])
    assert (settings.component_port, settings.component_metrics_port) == (8085, 9090)
    assert settings.component_metrics_path == "/own/metrics"


@pytest.mark.parametrize("said", ["metrics", "0", "65536", "-1", "8²"])
def test_annotation_that_is_no_port_is_said(said: str) -> None:
    with pytest.raises(NoPlan) as raised:
        planned(merges_metrics=True, annotations={"prometheus.kserve.io/port": said})
    expected = f"annotation prometheus.kserve.io/port of predictor: {said!r} is not the number of a port"
    assert str(raised.value) == expected


def test_spool_outlives_the_container() -> None:
    workload = planned(logging=LOGGING)
    mount = {"name": "agent-spool", "mountPath": "/var/spool/servery-agent"}
    assert workload.pod["containers"][1]["volumeMounts"] == [mount]
    assert workload.pod["volumes"] == [{"name": "agent-spool", "emptyDir": {}}]


def test_sink_that_nobody_names_is_the_installations() -> None:
    args = planned(logging=PayloadLogging()).pod["containers"][1]["args"]
    assert args[:2] == ["--log-url", "http://default-broker"]


@pytest.mark.parametrize(("url", "is_granted"), [("s3://bucket/logs", True), ("http://sink", False)])
def test_agent_that_logs_to_a_bucket_has_the_accounts_secrets(url: str, is_granted: bool) -> None:
    account = ObjectRef(kinds.SERVICE_ACCOUNT, Namespace("demo"), "default")
    secret = ObjectRef(kinds.SECRET, Namespace("demo"), "keys")
    data = {"AWS_ACCESS_KEY_ID": "eA==", "AWS_SECRET_ACCESS_KEY": "eA==", "gcloud-application-credentials.json": "eA=="}
    objects = {account: {"secrets": [{"name": "keys"}]}, secret: {"metadata": {"name": "keys"}, "data": data}}
    workload = planned(Catalog(objects=objects), logging=PayloadLogging(url=url))
    agent = workload.pod["containers"][1]
    named = {variable["name"] for variable in agent["env"]}
    assert ({"AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_CREDENTIALS"} <= named) is is_granted
    mounted = {mount["name"] for mount in agent["volumeMounts"]}
    assert mounted == {volume["name"] for volume in workload.pod["volumes"]}
    assert ("user-gcp-sa" in mounted) is is_granted


@pytest.mark.parametrize("has_secrets", [True, False], ids=["with secrets", "without"])
def test_loggers_own_account_counts_before_the_pods(has_secrets: bool) -> None:
    own = ObjectRef(kinds.SERVICE_ACCOUNT, Namespace("demo"), "logger-sa")
    objects: dict[ObjectRef, Any] = {own: {"secrets": [{"name": "loggers"}] if has_secrets else []}}
    objects[replace(own, name="default")] = {"secrets": [{"name": "pods"}]}
    data = {"AWS_ACCESS_KEY_ID": "eA==", "AWS_SECRET_ACCESS_KEY": "eA==", "gcloud-application-credentials.json": "eA=="}
    for name in ("loggers", "pods"):
        objects[ObjectRef(kinds.SECRET, Namespace("demo"), name)] = {"metadata": {"name": name}, "data": data}
    logging = PayloadLogging(url="s3://bucket", store_path="/logger", store_format="parquet", account="logger-sa")
    workload = planned(Catalog(objects=objects), logging=logging)
    agent = workload.pod["containers"][1]
    keys = {one["valueFrom"]["secretKeyRef"]["name"] for one in agent["env"] if one["name"].startswith("AWS_")}
    volume, secret = ("logger-user-gcp-sa", "loggers") if has_secrets else ("user-gcp-sa", "pods")
    assert keys == {secret}
    assert {"name": volume, "secret": {"secretName": secret}} in workload.pod["volumes"]
    assert {"name": volume, "mountPath": "/var/secrets/", "readOnly": True} in agent["volumeMounts"]
    settings, _ = settings_from(agent["args"])
    assert (settings.log_store_path, settings.log_store_format) == ("/logger", "parquet")


@pytest.mark.parametrize("more", [{}, {"batching": Batching(max_batch_rows=8)}], ids=["nothing asked", "batching"])
def test_component_that_needs_none_has_none(more: dict[str, Any]) -> None:
    workload = planned(**more)
    assert [container["name"] for container in workload.pod["containers"]] == ["main"]
    assert [port.target_port for port in workload.ports] == [8085, 9090]
