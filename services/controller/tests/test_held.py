"""Many models in one predictor: what is planned, what agents are told, and what is said of each model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from servery_agent.cli import settings_from
from servery_controller import render
from servery_controller.assignments import Assignments
from servery_controller.callers import Anybody
from servery_controller.planning import PlanningSettings, observe_held
from servery_controller.telling import serving
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    Condition,
    ConditionStatus,
    DeploymentPlan,
    HeldModel,
    HeldReport,
    ModelState,
    ServiceStatus,
)
from servery_sdk.plugins import Plugins
from servery_sdk.protos.servery.control.v1 import control_pb2 as pb
from servery_sdk.protos.servery.control.v1 import control_pb2_grpc as stubs

PATIENCE_SECONDS = 20
TRAINED_MODEL = Kind("serving.kserve.io/v1alpha1", "TrainedModel", "trainedmodels")
SETTINGS = PlanningSettings(assignments_address="controller:8082", assignments_audience="servery-controller")
NOW = "2026-01-01T00:00:00Z"


def a_service(**predictor: Any) -> Manifest:
    sklearn = {"resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "flowers", "namespace": "demo", "uid": "u"},
        "spec": {"predictor": predictor or {"sklearn": sklearn}},
    }


def a_model(
    name: str = "red",
    *,
    memory: str | int = "100Mi",
    framework: str = "sklearn",
    uri: str = "s3://b/red",
    service: str = "flowers",
    created: str = NOW,
) -> Manifest:
    return {
        "apiVersion": TRAINED_MODEL.api_version,
        "kind": TRAINED_MODEL.kind,
        "metadata": {"name": name, "namespace": "demo", "creationTimestamp": created, "generation": 3},
        "spec": {
            "inferenceService": service,
            "model": {"storageUri": uri, "framework": framework, "memory": memory},
        },
    }


@pytest.fixture
def planned(installed: Plugins) -> Callable[..., tuple[DeploymentPlan, tuple[Manifest, ...]]]:
    def planned(
        *models: Manifest, service: Manifest | None = None, objects: Iterable[Manifest] = ()
    ) -> tuple[DeploymentPlan, tuple[Manifest, ...]]:
        catalog = render.catalog_from(models, installed)
        return render.render(service or a_service(), catalog, installed, SETTINGS)

    return planned


Planned = Callable[..., tuple[DeploymentPlan, tuple[Manifest, ...]]]


def container(plan: DeploymentPlan, name: str) -> Manifest:
    found: Manifest = next(one for one in plan.workloads[0].pod["containers"] if one["name"] == name)
    return found


def test_pod_of_many_models_has_an_agent_and_a_storage_daemon(planned: Planned) -> None:
    plan, _ = planned(a_model())
    main, agent, daemon = (container(plan, name) for name in ("kserve-container", "agent", "storage-daemon"))
    assert {"name": "MULTI_MODEL_SERVER", "value": "true"} in main["env"]
    settings, _ = settings_from([*agent["args"]])
    assert (settings.enable_puller, settings.component_grpc_port, settings.models_memory_bytes) == (True, 8081, 2**30)
    assert (settings.controller_address, settings.pod_namespace, settings.pod_service) == (
        "controller:8082",
        "demo",
        "flowers",
    )
    assert daemon["args"][:3] == ["serve", f"--socket={settings.storage_daemon}", f"--root={settings.model_dir}"]
    volumes = {volume["name"] for volume in plan.workloads[0].pod["volumes"]}
    (tokens,) = [one for one in plan.workloads[0].pod["volumes"] if one["name"] == "controller-token"]
    (source,) = tokens["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "servery-controller"
    (mounted,) = [one["mountPath"] for one in agent["volumeMounts"] if one["name"] == "controller-token"]
    assert str(settings.controller_token_file) == f"{mounted}/{source['serviceAccountToken']['path']}"
    # Who serves models has no use for it.
    assert "controller-token" not in {mount["name"] for one in (main, daemon) for mount in one["volumeMounts"]}
    for one in (main, agent, daemon):
        mounts = {mount["mountPath"]: mount for mount in one["volumeMounts"]}
        assert {mount["name"] for mount in one["volumeMounts"]} <= volumes
        assert mounts["/mnt/models"].get("readOnly", False) is (one is not daemon)
    assert plan.workloads[0].ports[0].target_port == 9081


def test_installation_decides_on_the_safety_of_pulled_models_too(installed: Plugins) -> None:
    settings = replace(SETTINGS, storage_env={"SERVERY_STORAGE_PICKLE_POLICY": "refuse"})
    plan, _ = render.render(a_service(), render.catalog_from([a_model()], installed), installed, settings)
    assert container(plan, "storage-daemon")["env"] == [{"name": "SERVERY_STORAGE_PICKLE_POLICY", "value": "refuse"}]


def test_daemon_has_the_nodes_cache_and_a_port_of_metrics(installed: Plugins) -> None:
    settings = replace(SETTINGS, storage_cache="/var/lib/models", storage_cache_bytes=10**9)
    plan, _ = render.render(a_service(), render.catalog_from([a_model()], installed), installed, settings)
    pod, daemon = plan.workloads[0].pod, container(plan, "storage-daemon")
    host = {"path": "/var/lib/models", "type": "DirectoryOrCreate"}
    assert pod["volumes"].count({"name": "storage-cache", "hostPath": host}) == 1
    assert {"name": "storage-cache", "mountPath": "/var/cache/servery"} in daemon["volumeMounts"]
    assert daemon["env"] == [
        {"name": "SERVERY_STORAGE_CACHE", "value": "/var/cache/servery"},
        {"name": "SERVERY_STORAGE_MAX_CACHE_BYTES", "value": "1000000000"},
    ]
    assert all("storage-cache" not in str(one) for one in pod["containers"] if one is not daemon)
    (port,) = daemon["ports"]
    assert f"--metrics-port={port['containerPort']}" in daemon["args"]


@pytest.mark.parametrize("are_merged", [True, False])
def test_agent_that_merges_metrics_tells_the_daemons_too(planned: Planned, *, are_merged: bool) -> None:
    service = a_service()
    if are_merged:
        service["metadata"]["annotations"] = {"serving.kserve.io/enable-metric-aggregation": "true"}
    plan, _ = planned(a_model(), service=service)
    settings, _ = settings_from([*container(plan, "agent")["args"]])
    (port,) = container(plan, "storage-daemon")["ports"]
    assert settings.storage_metrics_port == (port["containerPort"] if are_merged else None)


def test_pod_that_logs_too_has_what_both_need_once(installed: Plugins) -> None:
    service = a_service(sklearn={}, logger={"url": "http://sink", "mode": "all"})
    plan, _ = render.render(service, render.catalog_from([a_model()], installed), installed, SETTINGS)
    pod = plan.workloads[0].pod
    names = [volume["name"] for volume in pod["volumes"]]
    assert sorted(names) == sorted(set(names))
    mounts = [mount["name"] for mount in container(plan, "agent")["volumeMounts"]]
    assert set(mounts) == {"agent-spool", "model-dir", "model-config", "controller-token"}
    assert container(plan, "agent")["args"].count("--component-grpc-port") == 1


def test_config_map_is_what_kserves_controller_writes(planned: Planned) -> None:
    _, desired = planned(
        a_model("b", created="2026-01-02T00:00:00Z"), a_model("a", memory=7), a_model("x", service="y")
    )
    (config_map,) = [one for one in desired if one["kind"] == "ConfigMap"]
    assert config_map["metadata"]["name"] == "modelconfig-flowers-0"
    assert config_map["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert json.loads(config_map["data"]["models.json"]) == [
        {"modelName": "a", "modelSpec": {"storageUri": "s3://b/red", "framework": "sklearn", "memory": "7"}},
        {"modelName": "b", "modelSpec": {"storageUri": "s3://b/red", "framework": "sklearn", "memory": "100Mi"}},
    ]


@pytest.mark.parametrize(
    ("predictor", "is_multi"),
    [
        pytest.param({"sklearn": {}}, True, id="a format without a source"),
        pytest.param({"model": {"modelFormat": {"name": "sklearn"}}}, True, id="a model without a source"),
        pytest.param({"sklearn": {"storageUri": "s3://b/m"}}, False, id="a source"),
        pytest.param({"sklearn": {}, "storageUris": [{"uri": "s3://b/m"}]}, False, id="several sources"),
        pytest.param({"huggingface": {"args": ["--model_id=x"]}}, False, id="a server that finds its own"),
        pytest.param({"containers": [{"image": "i"}]}, False, id="a container"),
        pytest.param(
            {"containers": [{"image": "i", "env": [{"name": "MULTI_MODEL_SERVER", "value": "true"}]}]},
            True,
            id="a container that says so",
        ),
    ],
)
def test_predictor_holds_many_by_kserves_rule(predictor: dict[str, Any], is_multi: bool, planned: Planned) -> None:
    plan, desired = planned(service=a_service(**predictor))
    assert (plan.workloads[0].held is not None) is is_multi
    assert any(one["kind"] == "ConfigMap" for one in desired) is is_multi


def test_server_of_somebody_elses_is_asked_by_the_v2_repository_api(planned: Planned) -> None:
    env = [{"name": "MULTI_MODEL_SERVER", "value": "true"}]
    plan, _ = planned(service=a_service(containers=[{"image": "i", "env": env}]))
    settings, _ = settings_from([*container(plan, "agent")["args"]])
    assert (settings.component_models, settings.models_memory_bytes) == ("v2", 0)


def test_first_models_have_the_memory_and_others_are_turned_away_with_a_reason(planned: Planned) -> None:
    plan, _ = planned(
        a_model("first", memory="600Mi"),
        a_model("second", memory="600Mi", created="2026-01-02T00:00:00Z"),
        a_model("small", memory="400Mi", created="2026-01-03T00:00:00Z"),
        a_model("other", framework="onnx"),
        a_model("nowhere", uri="ftp://b/m"),
        a_model("odd", memory="much"),
    )
    held = plan.workloads[0].held
    assert held is not None
    assert [model.ref.name for model in held.assigned] == ["first", "small"]
    assert {away.model.ref.name: (away.condition, away.reason) for away in held.turned_away} == {
        "second": ("MemoryResourceAvailable", "MemoryResourceNotAvailable"),
        "other": ("FrameworkSupported", "FrameworkNotSupported"),
        "nowhere": ("StorageSupported", "StorageNotSupported"),
        "odd": ("MemoryResourceAvailable", "MemoryInvalid"),
    }


READY = ServiceStatus(
    observed_generation=1,
    conditions=(Condition(type="Ready", status=ConditionStatus.TRUE),),
    url="http://flowers",
    address="http://flowers.demo.svc",
)


def report(state: ModelState, *, uri: str = "s3://b/red", reason: str = "") -> HeldReport:
    return HeldReport(pod="p", state=state, uri=uri, reason=reason)


@pytest.mark.parametrize(
    ("reports", "loaded", "ready", "words"),
    [
        pytest.param([report(ModelState.LOADED)], "True", "True", "", id="loaded"),
        pytest.param(
            [report(ModelState.LOADED), report(ModelState.FAILED_TO_LOAD, reason="no file")],
            *("False", "False", "pod p: no file"),
            id="failed in one pod",
        ),
        pytest.param(
            [report(ModelState.LOADED), report(ModelState.LOADING)], "Unknown", "Unknown", "pod p", id="comes"
        ),
        pytest.param([report(ModelState.LOADED, uri="s3://b/old")], "Unknown", "Unknown", "", id="of an earlier URI"),
    ],
)
def test_what_pods_say_is_the_models_condition(
    reports: list[HeldReport], loaded: str, ready: str, words: str, planned: Planned
) -> None:
    plan, _ = planned(a_model())
    found = observe_held(a_model(), plan.workloads[0], READY, {"red": reports}, now=NOW)
    conditions = {one.type: one for one in found.conditions}
    assert (conditions["ModelLoaded"].status, conditions["Ready"].status) == (loaded, ready)
    assert conditions["ModelLoaded"].message == words
    assert found.url == ("http://flowers/v1/models/red:predict" if ready == "True" else None)
    assert found.observed_generation == 3


def test_without_anybodys_word_a_model_is_ready_as_kserve_has_it(planned: Planned) -> None:
    plan, _ = planned(a_model())
    conditions = {one.type: one for one in observe_held(a_model(), plan.workloads[0], READY, {}, now=NOW).conditions}
    assert (conditions["ModelLoaded"].status, conditions["Ready"].status) == ("Unknown", "True")


def test_model_of_no_service_or_of_one_with_its_own_model_says_so(planned: Planned) -> None:
    def first(found: Any) -> tuple[str, str]:
        ready = next(one for one in found.conditions if one.type == "Ready")
        return ready.reason, ready.message

    reason, message = first(observe_held(a_model(), None, None, {}, now=NOW))
    assert (reason, message) == ("InferenceServiceMissing", "spec.inferenceService: 'flowers' is not there")
    plan, _ = planned(service=a_service(sklearn={"storageUri": "s3://b/m"}))
    assert first(observe_held(a_model(), plan.workloads[0], READY, {}, now=NOW))[0] == "IsNotMMSPredictor"


SERVICE = ObjectRef(Kind("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"), Namespace("demo"), "f")
RED = HeldModel(
    ref=ObjectRef(TRAINED_MODEL, Namespace("demo"), "red"), uri="s3://b/red", framework="sklearn", memory="1Mi"
)


@pytest.fixture
async def told() -> AsyncIterator[tuple[Assignments, stubs.AssignmentsStub]]:
    assignments = Assignments()
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        serving(assignments, "127.0.0.1:0", Anybody()) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield assignments, stubs.AssignmentsStub(channel)  # type: ignore[no-untyped-call]  # generated


async def test_agent_is_told_nothing_before_it_is_decided_and_then_every_change(
    told: tuple[Assignments, stubs.AssignmentsStub],
) -> None:
    assignments, stub = told
    call = stub.Watch()
    await call.write(pb.PodReport(namespace="demo", pod="p", service="f"))
    reading = asyncio.ensure_future(call.read())
    assignments.assign(replace(SERVICE, name="other"), ())
    done, _ = await asyncio.wait([reading], timeout=0.1)
    assert not done
    assignments.assign(SERVICE, (RED,))
    assert [(one.name, one.uri, one.memory_bytes) for one in (await reading).models] == [("red", "s3://b/red", 2**20)]
    assignments.assign(SERVICE, ())
    assert list((await call.read()).models) == []
    call.cancel()


async def test_what_a_pod_says_counts_until_it_is_gone(told: tuple[Assignments, stubs.AssignmentsStub]) -> None:
    assignments, stub = told
    heard: asyncio.Queue[ObjectRef] = asyncio.Queue()
    assignments.on_report = heard.put_nowait
    assignments.assign(SERVICE, (RED,))
    call = stub.Watch()
    loading = pb.ModelReport(name="red", state=pb.LOADING, uri="s3://b/red")
    await call.write(pb.PodReport(namespace="demo", pod="p", service="f", models=[loading]))
    assert await heard.get() == SERVICE
    assert assignments.reports(SERVICE)["red"][0].state is ModelState.LOADING
    failed = pb.ModelReport(name="red", state=pb.FAILED, uri="s3://b/red", reason="no file")
    await call.write(pb.PodReport(models=[failed]))
    await heard.get()
    (found,) = assignments.reports(SERVICE)["red"]
    assert (found.pod, found.state, found.reason) == ("p", ModelState.FAILED_TO_LOAD, "no file")
    call.cancel()
    await heard.get()
    assert assignments.reports(SERVICE) == {}
