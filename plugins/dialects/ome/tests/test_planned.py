"""OME's manifests through planning: which runtime is chosen, and what runs."""

from __future__ import annotations

from typing import Any

import pytest
from servery_controller import render
from servery_controller.planning import NoPlan, NoRuntime, PlanningSettings
from servery_dialect_ome import kinds
from servery_sdk import plugins
from servery_sdk.manifests import Manifest
from servery_sdk.model import DeploymentPlan

INSTALLED = plugins.load()
LLAMA: dict[str, Any] = {
    "modelFormat": {"name": "safetensors", "version": "1.0.0"},
    "modelFramework": {"name": "transformers", "version": "4.43.1"},
    "modelArchitecture": "LlamaForCausalLM",
}


def made(kind: str, name: str, spec: Any, namespace: str | None = None) -> dict[str, Any]:
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"apiVersion": kinds.VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def model(**spec: Any) -> dict[str, Any]:
    storage = {"storageUri": "s3://bucket/llama", "path": "/raid/llama"}
    given = {**LLAMA, "modelParameterSize": "8B", "storage": storage, **spec}
    return made("ClusterBaseModel", "llama", {key: value for key, value in given.items() if value is not None})


def runtime(name: str, *formats: Any, namespace: str | None = None, **spec: Any) -> dict[str, Any]:
    listed = [{"autoSelect": True, **(found or LLAMA)} for found in formats or ({},)]
    runner = {"name": "ome-container", "image": f"acme/{name}:1"}
    whole = {
        "supportedModelFormats": listed,
        "engineConfig": {"runner": runner},
        "protocolVersions": ["openAI"],
        **spec,
    }
    return made("ClusterServingRuntime" if namespace is None else "ServingRuntime", name, whole, namespace)


def planned(*around: Manifest, spec: Any = None, **metadata: Any) -> DeploymentPlan:
    wanted = spec if spec is not None else {"model": {"name": "llama"}, "engine": {}}
    service = made("InferenceService", "chat", wanted, "demo")
    service["metadata"] |= metadata
    return render.plan(service, render.catalog_from(around, INSTALLED), INSTALLED, PlanningSettings())


def chosen(*around: Manifest, **more: Any) -> str:
    selection = planned(*around, **more).workloads[0].selection
    assert selection is not None
    return selection.runtime.name


def llama(**more: Any) -> dict[str, Any]:
    return {**LLAMA, **more}


def sized(fewest: str, most: str) -> dict[str, str]:
    return {"min": fewest, "max": most}


@pytest.mark.parametrize(
    ("runtimes", "name"),
    [
        pytest.param([runtime("a", llama(priority=1)), runtime("b", llama(priority=2))], "b", id="priority"),
        pytest.param(
            [
                runtime("a", llama(priority=2)),
                runtime("b", llama(modelFormat={**LLAMA["modelFormat"], "weight": 10})),
            ],
            "b",
            id="weight",
        ),
        pytest.param(
            [runtime("a", llama(priority=9)), runtime("b", namespace="demo")], "b", id="the-namespace-whatever-score"
        ),
        pytest.param([runtime("a"), runtime("b", namespace="other")], "a", id="not-of-another-namespace"),
        pytest.param(
            [runtime("a", modelSizeRange=sized("1B", "70B")), runtime("b", modelSizeRange=sized("7B", "9B"))],
            "b",
            id="closest-size",
        ),
        pytest.param([runtime("b"), runtime("a")], "a", id="by-name"),
        pytest.param([runtime("a", disabled=True), runtime("b")], "b", id="disabled"),
        pytest.param([runtime("a", llama(autoSelect=False, priority=9)), runtime("b")], "b", id="auto-select-off"),
        pytest.param(
            [
                runtime("a", llama(priority=5), llama(priority=9, autoSelect=False)),
                runtime("b", llama(priority=7)),
            ],
            "b",
            id="what-is-off-does-not-score",
        ),
        pytest.param(
            [
                runtime("a", llama(modelFramework={"name": "transformers", "version": "4.44.0"})),
                runtime(
                    "b",
                    llama(
                        modelFramework={"name": "transformers", "version": "4.44.0", "operator": "GreaterThanOrEqual"}
                    ),
                ),
            ],
            "b",
            id="operator-of-the-framework",
        ),
        pytest.param(
            [
                runtime("a", llama(modelFormat={"name": "safetensors", "version": "1.0.0", "operator": "GreaterThan"})),
                runtime("b"),
            ],
            "b",
            id="greater-than-equal-is-not",
        ),
    ],
)
def test_runtime_is_chosen(runtimes: list[Manifest], name: str) -> None:
    assert chosen(model(), *runtimes) == name


@pytest.mark.parametrize(
    ("unfit", "of_model", "reason"),
    [
        pytest.param(runtime("r", llama(modelFormat={"name": "onnx"})), {}, "r (format)", id="format"),
        pytest.param(
            runtime("r", llama(modelFormat={"name": "safetensors", "version": "1"})),
            {},
            'r (version "1")',
            id="version-of-another-precision",
        ),
        pytest.param(
            runtime("r"),
            {"modelArchitecture": "Qwen2ForCausalLM"},
            "architecture mismatch (model=Qwen2ForCausalLM, runtime=LlamaForCausalLM)",
            id="architecture",
        ),
        pytest.param(
            runtime("r"),
            {"modelArchitecture": None},
            "architecture mismatch (model=none, runtime=LlamaForCausalLM)",
            id="architecture-of-the-runtime-only",
        ),
        pytest.param(
            runtime("r", llama(quantization="fp8")),
            {},
            "quantization mismatch (model=none, runtime=fp8)",
            id="quantization",
        ),
        pytest.param(
            runtime("r"), {"modelFramework": None}, "framework mismatch (model=none", id="framework-of-the-runtime-only"
        ),
        pytest.param(
            runtime("r", modelSizeRange=sized("60B", "80B")),
            {},
            "model size 8,000,000,000 is outside the supported range [60,000,000,000 to 80,000,000,000]",
            id="size",
        ),
        pytest.param(runtime("r", llama(autoSelect=False)), {}, "r (autoSelect is off)", id="auto-select"),
        pytest.param(runtime("r", disabled=True), {}, "r (disabled)", id="disabled"),
    ],
)
def test_rejection_says_why(unfit: Manifest, of_model: dict[str, Any], reason: str) -> None:
    with pytest.raises(NoRuntime) as refused:
        planned(model(**of_model), unfit)
    assert 'no runtime serves model format "safetensors" version "1.0.0" in namespace' in str(refused.value)
    assert reason in str(refused.value)


def test_accelerator_class_is_what_the_runtime_must_serve() -> None:
    h100 = made("AcceleratorClass", "h100", {"discovery": {"nodeSelector": {"gpu": "h100"}}})
    spec = {"model": {"name": "llama"}, "engine": {}, "acceleratorSelector": {"acceleratorClass": "h100"}}
    around = (model(), h100, runtime("a"), runtime("b", acceleratorRequirements={"acceleratorClasses": ["h100"]}))
    assert chosen(*around, spec=spec) == "b"
    with pytest.raises(NoRuntime, match="does not serve accelerator class h100"):
        planned(model(), h100, runtime("a"), spec=spec)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param({}, {"limits": {"acme.com/gpu": "1"}, "requests": {"acme.com/gpu": "1"}}, id="silent"),
        pytest.param(
            {"limits": {"cpu": "2"}},
            {"limits": {"cpu": "2", "acme.com/gpu": "1"}, "requests": {"acme.com/gpu": "1"}},
            id="of-something-else",
        ),
        pytest.param({"limits": {"acme.com/gpu": 8}}, {"limits": {"acme.com/gpu": 8}}, id="of-more"),
    ],
)
def test_container_asks_for_an_accelerator_of_the_class_where_it_names_none(own: Any, expected: Any) -> None:
    h100 = made("AcceleratorClass", "h100", {"discovery": {}, "resources": [{"name": "acme.com/gpu"}]})
    runner = {"name": "ome-container", "image": "acme/r:1", "resources": own}
    fit = runtime("r", engineConfig={"runner": runner}, acceleratorRequirements={"acceleratorClasses": ["h100"]})
    spec = {"model": {"name": "llama"}, "engine": {}, "acceleratorSelector": {"acceleratorClass": "h100"}}
    (container,) = planned(model(), h100, fit, spec=spec).workloads[0].pod["containers"]
    assert container["resources"] == expected


def test_named_runtime_must_serve_the_model() -> None:
    spec = {"model": {"name": "llama"}, "engine": {}, "runtime": {"name": "r"}}
    off = runtime("r", llama(autoSelect=False))
    assert chosen(model(), off, spec=spec) == "r", "named, it need not be selectable"
    with pytest.raises(NoRuntime, match="does not support model format"):
        planned(model(), runtime("r", llama(quantization="fp8")), spec=spec)
    with pytest.raises(NoRuntime, match="outside the supported range"):
        planned(model(), runtime("r", modelSizeRange=sized("60B", "80B")), spec=spec)
    with pytest.raises(NoRuntime, match="is disabled"):
        planned(model(), runtime("r", disabled=True), spec=spec)


def test_component_that_the_runtime_lacks_is_named() -> None:
    with pytest.raises(NoPlan, match="runtime r has no router; it has: predictor"):
        planned(model(), runtime("r"), spec={"model": {"name": "llama"}, "engine": {}, "router": {}})


FULL: dict[str, Any] = {
    "engineConfig": {
        "runner": {
            "name": "ome-container",
            "image": "acme/server:1",
            "command": ["serve"],
            "args": ["--tp=$(PARALLELISM_SIZE)"],
            "env": [{"name": "A", "value": "runtime"}, {"name": "B", "value": "runtime"}],
            "ports": [{"name": "http1", "containerPort": 30000}],
            "resources": {"limits": {"nvidia.com/gpu": 4}},
        },
        "tolerations": [{"key": "runtime"}],
        "nodeSelector": {"a": "runtime", "b": "runtime"},
        "labels": {"from": "runtime"},
        "annotations": {"prometheus.io/port": "8080"},
    },
    "routerConfig": {"runner": {"name": "router", "image": "acme/router:1", "args": ["--for={{.Name}}"]}},
}


def test_service_is_merged_over_the_runtime() -> None:
    spec = {
        "model": {"name": "llama"},
        "engine": {
            "runner": {"args": ["--mine"], "env": [{"name": "A", "value": "service"}]},
            "tolerations": [{"key": "service"}],
            "nodeSelector": {"b": "service"},
            "labels": {"own": "label"},
        },
        "router": {"config": {"POLICY": "random"}},
    }
    plan = planned(model(), runtime("r", **FULL), spec=spec)
    engine, router = plan.workloads
    (container,) = engine.pod["containers"]
    assert container["name"] == "ome-container"
    assert (container["command"], container["args"]) == (["serve"], ["--mine"])
    assert {found["name"]: found["value"] for found in container["env"]} == {
        "PARALLELISM_SIZE": "4",
        "MODEL_PATH": "/raid/llama",
        "A": "service",
        "B": "runtime",
    }
    assert engine.pod["tolerations"] == [{"key": "service"}]
    assert engine.pod["nodeSelector"] == {"a": "runtime", "b": "service"}
    assert engine.pod_annotations["prometheus.io/port"] == "8080"
    assert {"from": "runtime", "own": "label", "serving-runtime": "r"}.items() <= engine.pod_labels.items()
    (init,) = engine.pod["initContainers"]
    assert init["args"] == ["s3://bucket/llama", "/raid/llama"]
    assert engine.ports[0].port == 30000, "a component's Service has its container's port"
    (container,) = router.pod["containers"]
    assert (container["name"], container["args"]) == ("router", ["--for=chat"])
    assert container["env"] == [{"name": "POLICY", "value": "random"}]
    assert "initContainers" not in router.pod
    assert plan.entry is not None
    assert (plan.entry.name, plan.entry.ports[0].port) == ("chat", 8080)
    assert plan.address == "http://chat.demo.svc.cluster.local:8080"


def test_older_form_joins_arguments() -> None:
    spec = {"predictor": {"model": {"baseModel": "llama", "args": ["--mine"]}}}
    plan = planned(model(), runtime("r", **FULL), spec=spec)
    assert plan.workloads[0].pod["containers"][0]["args"] == ["--tp=$(PARALLELISM_SIZE)", "--mine"]


WORKERS: dict[str, Any] = {
    "engineConfig": {
        "leader": {"runner": {**FULL["engineConfig"]["runner"], "args": ["--rank=0"]}},
        "worker": {"size": 3, "runner": {**FULL["engineConfig"]["runner"], "args": ["--rank=1"]}},
    }
}


def test_workers_of_the_runtime_lead_to_a_group() -> None:
    found = render.render(
        made("InferenceService", "chat", {"model": {"name": "llama"}, "engine": {"minReplicas": 2}}, "demo"),
        render.catalog_from([model(), runtime("r", **WORKERS)], INSTALLED),
        INSTALLED,
        PlanningSettings(),
    )[1]
    (group,) = [one for one in found if one["kind"] == "LeaderWorkerSet"]
    assert group["metadata"]["name"] == "lws-chat-engine"
    assert group["spec"]["replicas"] == 2
    assert group["spec"]["leaderWorkerTemplate"]["size"] == 4
    template = group["spec"]["leaderWorkerTemplate"]
    for part, args in (("leaderTemplate", ["--rank=0"]), ("workerTemplate", ["--rank=1"])):
        (container,) = template[part]["spec"]["containers"]
        assert container["args"] == args
        assert {"name": "PARALLELISM_SIZE", "value": "16"} in container["env"]
    entry = next(one for one in found if one["kind"] == "Service" and one["metadata"]["name"] == "chat")
    assert not entry["spec"]["selector"].items() <= template["workerTemplate"]["metadata"]["labels"].items()
    assert not [one for one in found if one["kind"] == "HorizontalPodAutoscaler"]


def test_prefill_and_decoding_are_two_groups_behind_a_router() -> None:
    config = {**FULL, "engineConfig": WORKERS["engineConfig"], "decoderConfig": WORKERS["engineConfig"]}
    spec = {"model": {"name": "llama"}, "engine": {}, "decoder": {}, "router": {}}
    plan = planned(model(), runtime("r", **config), spec=spec)
    assert [workload.name for workload in plan.workloads] == ["chat-engine", "chat-decoder", "chat-router"]
    assert [workload.workers is not None for workload in plan.workloads] == [True, True, False]
    selectors = [workload.selector for workload in plan.workloads]
    assert selectors[0] != selectors[1], "each leads its own requests only"
    assert [backend.workload for route in plan.routes if route.name == "chat" for backend in route.backends] == [
        "chat-router"
    ]


def test_small_model_has_a_built_in_runtime_that_finds_it() -> None:
    iris = made(
        "ClusterBaseModel",
        "iris",
        {"modelFormat": {"name": "sklearn"}, "storage": {"storageUri": "s3://a/b", "path": "/raid/iris"}},
    )
    plan = planned(iris, spec={"model": {"name": "iris"}, "engine": {"runner": {"args": ["--x"]}}})
    assert plan.workloads[0].selection is not None
    assert plan.workloads[0].selection.runtime.name == "servery-sklearn"
    args = plan.workloads[0].pod["containers"][0]["args"]
    assert args[-2:] == ["--model_dir=/raid/iris", "--x"]
    assert "--runtime=sklearn" in args
