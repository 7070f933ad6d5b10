"""Runtimes that ask more of a model than its format, and components that ask more of their pods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from servery_controller.planning import NoRuntime, PlanningSettings, plan
from servery_controller.planning.selection import select_runtime
from servery_sdk.manifests import Kind, Manifest, Namespace, ObjectRef
from servery_sdk.model import (
    Artifact,
    Batching,
    Catalog,
    Component,
    ComponentKind,
    InferenceService,
    ModelFormat,
    ModelTraits,
    ParameterRange,
    Part,
    Protocol,
    Runtime,
    RuntimeRequest,
    SupportedFormat,
    VersionRule,
    Workers,
    Workload,
)

SETTINGS = PlanningSettings()
SERVICE = ObjectRef(Kind("acme.io/v1", "Inference", "inferences"), Namespace("demo"), "llama")
LLAMA = ModelTraits(
    architecture="LlamaForCausalLM", framework=ModelFormat(name="transformers", version="4.43.1"), parameters=8_000_000
)


def fits(**more: Any) -> SupportedFormat:
    found = {
        "name": "safetensors",
        "version": "1.0.0",
        "rule": VersionRule.EQUAL,
        "architecture": LLAMA.architecture,
        "framework": LLAMA.framework,
        "is_exact": True,
        "priority": 1,
    }
    return SupportedFormat(**{**found, **more})


def runtime(name: str, *formats: SupportedFormat, **more: Any) -> Runtime:
    return Runtime(name=name, formats=formats or (fits(),), protocols=frozenset({Protocol.OPENAI}), **more)


def request(**traits: Any) -> RuntimeRequest:
    return RuntimeRequest(
        format=ModelFormat(name="safetensors", version="1.0.0"), traits=replace(LLAMA, **traits), default_protocol=None
    )


def sized(fewest: int | None, most: int | None) -> ParameterRange:
    return ParameterRange(fewest=fewest, most=most)


@pytest.mark.parametrize(
    ("runtimes", "chosen"),
    [
        pytest.param([runtime("a"), runtime("b", fits(priority=2))], "b", id="priority"),
        pytest.param([runtime("a", fits(priority=2)), runtime("b", fits(priority=1, weight=3))], "b", id="weight"),
        pytest.param(
            [runtime("a"), runtime("b", fits(), fits(priority=9, auto_select=False))], "a", id="off-counts-for-nothing"
        ),
        pytest.param(
            [
                runtime("a", parameters=sized(1_000_000, 70_000_000)),
                runtime("b", parameters=sized(7_000_000, 9_000_000)),
            ],
            "b",
            id="closest-range",
        ),
        pytest.param([runtime("a"), runtime("b", parameters=sized(None, 9_000_000))], "b", id="a-range-before-none"),
        pytest.param([runtime("b"), runtime("a")], "a", id="name"),
    ],
)
def test_runtime_is_chosen(runtimes: list[Runtime], chosen: str) -> None:
    assert select_runtime(request(), Catalog(runtimes=tuple(runtimes)), service=SERVICE).runtime.name == chosen


@pytest.mark.parametrize(
    ("unfit", "traits", "reason"),
    [
        pytest.param(
            runtime("r", fits(architecture="Qwen2ForCausalLM")),
            {},
            "architecture mismatch (model=LlamaForCausalLM, runtime=Qwen2ForCausalLM)",
            id="architecture",
        ),
        pytest.param(
            runtime("r"), {"quantization": "fp8"}, "quantization mismatch (model=fp8, runtime=none)", id="quantization"
        ),
        pytest.param(
            runtime("r"),
            {"framework": None},
            'framework mismatch (model=none, runtime="transformers" version "4.43.1")',
            id="framework",
        ),
        pytest.param(
            runtime("r", parameters=sized(None, 1_000)),
            {},
            "model size 8,000,000 is outside the supported range [0 to 1,000] parameters",
            id="size",
        ),
        pytest.param(
            runtime("r", accelerators=frozenset({"l4"})),
            {"accelerators": frozenset({"h100"})},
            "does not serve accelerator class h100",
            id="accelerator",
        ),
        pytest.param(runtime("r", fits(version="2.0.0")), {}, 'version "2.0.0"', id="version"),
    ],
)
def test_rejection_says_why(unfit: Runtime, traits: dict[str, Any], reason: str) -> None:
    with pytest.raises(NoRuntime) as refused:
        select_runtime(request(**traits), Catalog(runtimes=(unfit,)), service=SERVICE)
    assert [rejection.reason for rejection in refused.value.rejected] == [reason]


def planned(part: Part, made: Runtime | None = None, settings: PlanningSettings = SETTINGS, **more: Any) -> Workload:
    found = made or Runtime(name="r")
    service = InferenceService(
        ref=SERVICE,
        metadata={"name": "llama", "namespace": "demo"},
        owned_labels={"service": "llama"},
        components=(
            Component(
                kind=ComponentKind.PREDICTOR,
                name="engine",
                object_name="llama-engine",
                main_container="main",
                selector={"app": "llama-engine"},
                runtime=RuntimeRequest(name="r"),
                **more,
            ),
        ),
    )
    catalog = Catalog(runtimes=(replace(found, parts={ComponentKind.PREDICTOR: part}),))
    return plan(service, catalog, settings).workloads[0]


def gpus(count: int) -> Manifest:
    return {"image": "i", "resources": {"limits": {"acme.com/gpu": count, "cpu": "4"}}}


@pytest.mark.parametrize(
    ("part", "more", "value"),
    [
        pytest.param(Part(container=gpus(2)), {}, "2", id="one-pod"),
        pytest.param(Part(container=gpus(2)), {"workers": Workers(count=3)}, "8", id="workers-like-the-leader"),
        pytest.param(Part(container=gpus(2), worker_container=gpus(1), worker_count=3), {}, "5", id="own-workers"),
        pytest.param(Part(container=gpus(2)), {"container": gpus(4)}, "4", id="the-service-says-more"),
        pytest.param(Part(container={"image": "i"}), {}, None, id="no-gpu"),
        pytest.param(
            Part(container={**gpus(2), "env": [{"name": "WORLD", "value": "7"}]}), {}, "7", id="what-is-given-stays"
        ),
    ],
)
def test_pods_are_told_how_many_gpus_they_have_together(part: Part, more: dict[str, Any], value: str | None) -> None:
    found = planned(part, accelerators_env="WORLD", **more)
    pods = [found.pod, *([found.workers.pod] if found.workers else [])]
    for pod in pods:
        said = {variable["name"]: variable["value"] for variable in pod["containers"][0].get("env", ())}
        assert said.get("WORLD") == value


def test_only_the_leader_is_probed() -> None:
    probe = {"httpGet": {"path": "/health", "port": 8080}}
    part = Part(container={"image": "i", "startupProbe": probe, "livenessProbe": probe})
    found = planned(part, workers=Workers(count=1))
    assert found.workers is not None
    assert {name for name in found.pod["containers"][0] if name.endswith("Probe")} == {
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
    }
    assert not [name for name in found.workers.pod["containers"][0] if name.endswith("Probe")]
    own = replace(part, worker_container={"image": "w", "livenessProbe": probe}, worker_count=1)
    (container,) = planned(own).workers.pod["containers"]  # type: ignore[union-attr]  # it has some
    assert [name for name in container if name.endswith("Probe")] == ["livenessProbe"]


def test_list_that_the_service_replaces_is_not_joined() -> None:
    part = Part(container={"image": "i", "args": ["a"]}, pod={"tolerations": [{"key": "a"}]})
    overlay: dict[str, Any] = {"container": {"args": ["b"]}, "pod": {"tolerations": [{"key": "b"}]}}
    joined = planned(part, **overlay)
    assert joined.pod["containers"][0]["args"] == ["a", "b"]
    replaced = planned(part, replaced=frozenset({"args", "tolerations"}), **overlay)
    assert replaced.pod["containers"][0]["args"] == ["b"]
    assert replaced.pod["tolerations"] == [{"key": "b"}]
    silent = planned(part, replaced=frozenset({"args"}))
    assert silent.pod["containers"][0]["args"] == ["a"]


def test_own_predictor_keeps_its_flags() -> None:
    part = Part(container={"image": "i", "args": ["--runtime=sklearn"]})
    found = planned(
        part, Runtime(name="r", model_class="m:Model"), container={"args": ["--x"]}, replaced=frozenset({"args"})
    )
    assert found.pod["containers"][0]["args"] == ["--runtime=sklearn", "--x"]


def test_own_predictor_is_told_where_the_model_is() -> None:
    part = Part(container={"image": "i", "args": ["--model_dir=/mnt/models"]})
    ours = Runtime(name="r", model_class="m:Model")
    elsewhere = (Artifact(uri="s3://a/b", mount_path="/raid/models/b"),)
    assert planned(part, ours, artifacts=elsewhere).pod["containers"][0]["args"][-1] == "--model_dir=/raid/models/b"
    assert planned(part, artifacts=elsewhere).pod["containers"][0]["args"] == ["--model_dir=/mnt/models"]
    usual = (Artifact(uri="s3://a/b"),)
    assert planned(part, ours, artifacts=usual).pod["containers"][0]["args"] == ["--model_dir=/mnt/models"]


def test_sources_without_a_directory_in_common_have_a_volume_each() -> None:
    artifacts = (
        Artifact(uri="s3://a/b", mount_path="/raid/models/b"),
        Artifact(uri="s3://a/c", mount_path="/opt/ml/model/c"),
        Artifact(uri="s3://a/d", mount_path="/opt/ml/model/d"),
    )
    pod = planned(Part(container={"image": "i"}), artifacts=artifacts).pod
    mounted = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert list(mounted.values()) == ["/raid/models/b", "/opt/ml/model"]
    assert [volume["name"] for volume in pod["volumes"]] == list(mounted)
    assert {m["name"]: m["mountPath"] for m in pod["initContainers"][0]["volumeMounts"]} == mounted


def test_artifacts_variables_are_the_initializers() -> None:
    token = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}}
    found = planned(Part(container={"image": "i"}), artifacts=(Artifact(uri="s3://a/b", env=(token,)),))
    assert found.pod["initContainers"][0]["env"] == [token]


def test_workers_have_the_labels_of_their_leader_but_for_those_that_select_it_and_their_own() -> None:
    part = Part(
        container={"image": "i"},
        labels={"tier": "leads", "runtime": "r"},
        annotations={"rdma": "no"},
        worker_labels={"tier": "follows", "app": "llama-engine", "service": "other"},
        worker_annotations={"rdma": "yes"},
    )
    found = planned(part, workers=Workers(count=1), labels={"service": "llama", "app": "llama-engine"})
    assert found.workers is not None
    assert found.workers.labels == {"tier": "follows", "runtime": "r", "service": "llama"}
    assert found.workers.annotations == {"rdma": "yes"}
    assert (found.pod_labels["tier"], found.pod_annotations["rdma"]) == ("leads", "no")


@pytest.mark.parametrize(("reads_pods", "expected"), [(False, False), (True, None)])
def test_what_looks_at_pods_keeps_its_token(reads_pods: bool, expected: bool | None) -> None:
    settings = PlanningSettings(automount_service_account_token=False)
    found = planned(Part(container={"image": "i"}), settings=settings, reads_pods=reads_pods)
    assert found.pod.get("automountServiceAccountToken") is expected


@pytest.mark.parametrize(
    ("model_class", "args"),
    [
        pytest.param("acme:Model", ["--a", "--max_batch_rows=32"], id="our-own-server"),
        pytest.param(None, ["--a"], id="another's"),
    ],
)
def test_a_batch_size_is_told_to_our_own_server(model_class: str | None, args: list[str]) -> None:
    made = Runtime(name="r", model_class=model_class)
    batching = Batching(max_batch_rows=32, max_latency_seconds=0.1)
    workload = planned(Part(container={"image": "i", "args": ["--a"]}), made, batching=batching)
    assert workload.pod["containers"][0]["args"] == args
