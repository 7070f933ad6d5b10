"""What a service means: its mode, names, labels, scaling, model and errors' words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from servery_dialect_ome import kinds, models
from servery_dialect_ome.plugin import OMEDialect
from servery_sdk.errors import Invalid
from servery_sdk.kinds import SERVICE_ACCOUNT
from servery_sdk.manifests import CLUSTER, Namespace, ObjectRef
from servery_sdk.model import (
    AutoscalerClass,
    Catalog,
    Component,
    ComponentKind,
    InferenceService,
    Protocol,
    ScaleMetric,
)

OME = OMEDialect()
DEMO = Namespace("demo")


def manifest(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": kinds.VERSION,
        "kind": "InferenceService",
        "metadata": {"name": "llama", "namespace": "demo", **metadata},
        "spec": spec,
    }


def base(name: str = "base", **spec: Any) -> dict[str, Any]:
    storage = {"storageUri": "hf://acme/llama", "path": "/raid/llama", **spec.pop("storage", {})}
    return {
        "apiVersion": kinds.VERSION,
        "kind": "ClusterBaseModel",
        "metadata": {"name": name, **spec.pop("metadata", {})},
        "spec": {"modelFormat": {"name": "safetensors", "version": "1.0.0"}, "storage": storage, **spec},
    }


def found(kind: Any, name: str, spec: Any) -> Any:
    ref = ObjectRef(kind, CLUSTER, name)
    return ref, {"apiVersion": kinds.VERSION, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}


def catalog(*objects: Any, runtimes: Any = ()) -> Catalog:
    of_cluster = ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "base")
    return Catalog(
        objects={of_cluster: base(), **dict(objects)}, runtimes=tuple(OME.parse_runtime(made) for made in runtimes)
    )


def runtime(name: str, *, auto_select: bool = True, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": kinds.VERSION,
        "kind": "ClusterServingRuntime",
        "metadata": {"name": name},
        "spec": {
            "supportedModelFormats": [
                {"modelFormat": {"name": "safetensors", "version": "1.0.0"}, "autoSelect": auto_select}
            ],
            "engineConfig": {"runner": {"name": "ome-container", "image": "acme/server:1"}},
            **spec,
        },
    }


def parsed(spec: Any, around: Catalog | None = None, **metadata: Any) -> InferenceService:
    return OME.parse(manifest(spec, **metadata), around or catalog())


def engine(spec: Any = None, around: Catalog | None = None, **more: Any) -> Component:
    return parsed({"model": {"name": "base"}, "engine": spec or {}, **more}, around).predictor


def refusal(spec: Any, around: Catalog | None = None, **metadata: Any) -> str:
    with pytest.raises(Invalid) as refused:
        parsed(spec, around, **metadata)
    return str(refused.value)


@pytest.mark.parametrize(
    ("spec", "annotations", "mode"),
    [
        pytest.param({"engine": {}}, {}, None, id="the-installations"),
        pytest.param({"engine": {}}, {"ome.io/deploymentMode": "RawDeployment"}, "raw", id="raw"),
        pytest.param({"engine": {}}, {"ome.io/deployment-mode": "Serverless"}, "knative", id="as-documented"),
        pytest.param({"engine": {}}, {"ome.io/deploymentMode": "MultiNodeRayVLLM"}, "ray", id="ray"),
        pytest.param({"engine": {}}, {"ome.io/deploymentMode": "MultiNode"}, "raw", id="multi-node"),
        pytest.param({"engine": {}, "decoder": {}}, {"ome.io/deploymentMode": "PDDisaggregated"}, "raw", id="pd"),
        pytest.param(
            {"engine": {"annotations": {"ome.io/deploymentMode": "Serverless"}}},
            {"ome.io/deploymentMode": "RawDeployment"},
            "knative",
            id="the-engines-own-first",
        ),
        pytest.param({"engine": {"leader": {}, "worker": {"size": 1}}}, {}, "raw", id="workers"),
        pytest.param({"engine": {"minReplicas": 0}}, {}, "knative", id="to-nothing"),
        pytest.param(
            {"engine": {"minReplicas": 0}}, {"ome.io/autoscalerClass": "keda"}, None, id="keda-goes-to-nothing"
        ),
        pytest.param({"engine": {"minReplicas": 0}, "decoder": {}}, {}, "raw", id="a-decoder-keeps-it-plain"),
        pytest.param(
            {"engine": {}, "decoder": {}}, {"ome.io/deploymentMode": "Serverless"}, "raw", id="even-from-serverless"
        ),
    ],
)
def test_mode(spec: Any, annotations: dict[str, str], mode: str | None) -> None:
    assert parsed({"model": {"name": "base"}, **spec}, annotations=annotations).mode == mode


@pytest.mark.parametrize(
    ("spec", "annotations", "warnings"),
    [
        pytest.param({"engine": {}}, {}, [], id="nothing"),
        pytest.param(
            {"engine": {"minReplicas": 0}},
            {"ome.io/deploymentMode": "RawDeployment"},
            ["spec.engine.minReplicas: a HorizontalPodAutoscaler keeps one replica"],
            id="one-stays",
        ),
        pytest.param(
            {"engine": {"minReplicas": 0}, "kedaConfig": {"enableKeda": True}},
            {"ome.io/deploymentMode": "RawDeployment"},
            [],
            id="none-stays-with-keda",
        ),
        pytest.param(
            {"engine": {}, "decoder": {}},
            {"ome.io/deploymentMode": "Serverless"},
            [
                "metadata.annotations[ome.io/deploymentMode]: a service with a decoder runs as plain objects, not "
                "Serverless"
            ],
            id="decoder",
        ),
    ],
)
def test_warnings(spec: Any, annotations: dict[str, str], warnings: list[str]) -> None:
    assert list(parsed({"model": {"name": "base"}, **spec}, annotations=annotations).warnings) == warnings


def test_names_and_labels_are_omes() -> None:
    service = parsed(
        {"model": {"name": "base"}, "engine": {}, "decoder": {}, "router": {"config": {"POLICY": "random"}}},
        catalog(
            (
                ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "base"),
                base(vendor="Acme & Sons", metadata={"annotations": {"models.ome.io/category": "LARGE"}}),
            )
        ),
        labels={"team": "a"},
        annotations={"ome.io/service-type": "NodePort", "autoscaling.knative.dev/min-scale": "1"},
    )
    assert [(c.kind, c.name, c.object_name, c.traffic_percent) for c in service.components] == [
        (ComponentKind.PREDICTOR, "engine", "llama-engine", 0),
        (ComponentKind.DECODER, "decoder", "llama-decoder", 0),
        (ComponentKind.ROUTER, "router", "llama-router", 100),
    ]
    assert service.predictor.labels == {
        "team": "a",
        "app": "llama-engine",
        "ome.io/inferenceservice": "llama",
        "component": "engine",
        "fine-tuned-serving": "false",
        "base-model-name": "base",
        "base-model-size": "LARGE",
        "base-model-type": "Serving",
        "base-model-vendor": "Acme-Sons",
    }
    assert service.predictor.annotations == {
        "ome.io/service-type": "NodePort",
        "ome.io/base-model-name": "base",
        "ome.io/base-model-vendor": "Acme & Sons",
        "ome.io/base-model-format": "safetensors",
        "ome.io/base-model-format-version": "1.0.0",
    }
    entry = service.entry
    assert entry is not None
    assert (entry.name, entry.type) == ("llama", "NodePort")
    assert entry.selector == {"ome.io/inferenceservice": "llama", "component": "router"}
    assert entry.labels["component"] == "external-service"
    router = service.components[2]
    assert router.reads_pods
    assert router.container["env"] == [{"name": "POLICY", "value": "random"}]
    assert (router.artifacts, router.env, router.accelerators_env) == ((), {}, None)
    assert service.predictor.object_names == {
        "LeaderWorkerSet": "lws-llama-engine",
        "ScaledObject": "scaledobject-llama-engine",
    }


def test_long_names_keep_their_last_fifty_characters() -> None:
    names = parsed({"model": {"name": "base"}, "engine": {}}, name="a" * 56).predictor.object_names
    assert names["LeaderWorkerSet"] == f"lws-{'a' * 43}-engine"


def test_entry_leads_to_the_leader_alone() -> None:
    entry = parsed({"model": {"name": "base"}, "engine": {}}).entry
    assert entry is not None
    assert entry.selector == {"ome.io/inferenceservice": "llama", "component": "engine", "app": "llama-engine"}


@pytest.mark.parametrize(
    ("annotations", "labels"),
    [
        ({"ome.io/volcano-queue": "q"}, {"volcano.sh/queue-name": "q"}),
        (
            {"ome.io/dedicated-ai-cluster": "d"},
            {"volcano.sh/queue-name": "d", "ray.io/priority-class-name": "volcano-scheduling-high-priority"},
        ),
        (
            {"ome.io/dedicated-ai-cluster": "d", "kueue-enabled": ""},
            {
                "kueue.x-k8s.io/queue-name": "d",
                "kueue.x-k8s.io/priority-class": "kueue-scheduling-high-priority",
            },
        ),
    ],
    ids=["volcano", "dedicated", "kueue"],
)
def test_queues_are_labels(annotations: dict[str, str], labels: dict[str, str]) -> None:
    made = parsed({"model": {"name": "base"}, "engine": {}}, annotations=annotations).predictor.labels
    assert labels.items() <= made.items()


def test_sidecar_beside_a_model_of_the_older_form_is_not_the_server() -> None:
    spec = {"predictor": {"model": {"baseModel": "base"}, "containers": [{"name": "side", "image": "acme/side:1"}]}}
    engine = parsed(spec).predictor
    assert engine.runtime is not None
    assert engine.main_container == "ome-container"
    assert [container["name"] for container in engine.pod["containers"]] == ["side"]


def test_older_form_is_an_engine_that_loses_nothing() -> None:
    service = parsed(
        {
            "predictor": {
                "model": {
                    "baseModel": "base",
                    "runtime": "acme",
                    "runtimeVersion": "2",
                    "protocolVersion": "openAI",
                    "modelConfiguration": {"maxTokens": 4096},
                    "args": ["--x"],
                    "env": [{"name": "A", "value": "model"}],
                    "resources": {"limits": {"cpu": "8"}},
                },
                "resources": {"limits": {"cpu": "4", "nvidia.com/gpu": "1"}},
                "env": [{"name": "A", "value": "predictor"}, {"name": "B", "value": "b"}],
                "workerSpec": {"worldSize": 4, "resources": {"limits": {"nvidia.com/gpu": "2"}}},
                "containers": [{"name": "side", "image": "acme/side:1"}],
                "nodeSelector": {"disk": "ssd"},
            },
            "compartmentID": "ocid1.x",
        },
        annotations={"ome.io/deploymentMode": "MultiNodeRayVLLM"},
    )
    made = service.predictor
    assert (service.mode, made.object_name, made.name) == ("ray", "llama-engine", "engine")
    assert made.runtime is not None
    assert (made.runtime.name, made.runtime.version, made.runtime.protocol) == ("acme", "2", Protocol.OPENAI)
    assert made.container == {
        "args": ["--x"],
        "env": [{"name": "B", "value": "b"}, {"name": "A", "value": "model"}],
        "resources": {"limits": {"cpu": "8", "nvidia.com/gpu": "1"}},
    }
    assert made.pod == {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "side", "image": "acme/side:1"}]}
    assert made.workers is not None
    assert made.workers.count == 4
    assert made.workers.container == {"resources": {"limits": {"nvidia.com/gpu": "2"}}}
    assert made.env == {"MODEL_PATH": "/raid/llama", "MODEL_CONFIGURATION": '{"maxTokens": 4096}'}
    assert made.annotations["ome.io/compartment-id"] == "ocid1.x"
    assert made.replaced == frozenset(), "its arguments come behind the runtime's"
    assert service.warnings == (
        "spec.predictor: the older form; spec.engine, spec.model and spec.runtime say the same",
    )


def test_older_and_newer_form_of_one_intent_have_one_plan() -> None:
    older = parsed({"predictor": {"model": {"baseModel": "base", "runtime": "acme"}, "minReplicas": 2}}).predictor
    newer = engine({"minReplicas": 2}, runtime={"name": "acme"})
    assert older.runtime is not None
    assert newer.runtime is not None
    paths = {"runtime": replace(older.runtime, field_path=""), "field_path": "", "artifacts": ()}
    same = {"runtime": replace(newer.runtime, field_path=""), "field_path": "", "artifacts": ()}
    # Only what a manifest's arguments do to the runtime's is another thing in each form.
    assert replace(older, **paths) == replace(newer, **same, replaced=older.replaced)  # type: ignore[arg-type]


def test_models_own_settings_are_under_the_services() -> None:
    around = catalog(
        (
            ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "base"),
            base(modelConfiguration={"maxTokens": 1, "temperature": 0.5}),
        )
    )
    service = {"predictor": {"model": {"baseModel": "base", "modelConfiguration": {"maxTokens": 2}}}}
    assert parsed(service, around).predictor.env["MODEL_CONFIGURATION"] == '{"maxTokens": 2, "temperature": 0.5}'


def test_leader_runner_and_workers_are_over_the_engine() -> None:
    made = engine(
        {
            "nodeSelector": {"disk": "ssd"},
            "leader": {"runner": {"name": "lead", "args": ["--rank=0"]}, "hostNetwork": True},
            "worker": {"size": 3, "runner": {"args": ["--rank=1"]}, "containers": [{"name": "side", "image": "s"}]},
        },
        runtime={"name": "acme"},
    )
    assert made.container == {"name": "lead", "args": ["--rank=0"]}
    assert made.pod == {"nodeSelector": {"disk": "ssd"}, "hostNetwork": True}
    assert made.workers is not None
    assert (made.workers.count, made.workers.container) == (3, {"args": ["--rank=1"]})
    assert made.workers.pod == {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "side", "image": "s"}]}


def test_workers_without_a_size_are_as_many_as_the_runtimes() -> None:
    part = {"leader": {"runner": {"image": "i"}}, "worker": {"size": 7, "runner": {"image": "i"}}}
    around = catalog(runtimes=[runtime("many", engineConfig=part)])
    made = engine({"worker": {"runner": {"env": []}}}, around, runtime={"name": "many"})
    assert made.workers is not None
    assert made.workers.count == 7


def test_component_with_containers_of_its_own_needs_no_runtime() -> None:
    service = parsed(
        {
            "model": {"name": "base"},
            "engine": {
                "leader": {"runner": {"name": "main", "image": "acme/server:1"}},
                "worker": {"size": 1, "runner": {"image": "acme/server:1"}},
            },
            "router": {"runner": {"image": "acme/router:1"}},
        }
    )
    made, router = service.components
    assert made.runtime is router.runtime is None
    assert made.main_container == "main"
    assert made.pod["containers"] == [{"name": "main", "image": "acme/server:1"}]
    assert made.workers is not None
    assert made.workers.pod["containers"] == [{"name": "main", "image": "acme/server:1"}]
    assert made.env == {"MODEL_PATH": "/raid/llama"}
    assert router.pod["containers"] == [{"name": "ome-container", "image": "acme/router:1"}]


@pytest.mark.parametrize(
    ("uri", "parameters", "fetched", "env"),
    [
        pytest.param("hf://acme/llama@main", {}, "hf://acme/llama@main", [], id="public"),
        pytest.param("pvc://demo:claim/a/b", {}, "pvc://claim/a/b", [], id="claim-of-the-namespace"),
        pytest.param("pvc://claim/a", {}, "pvc://claim/a", [], id="claim"),
        pytest.param(
            "s3://bucket@eu-1/a", {}, "s3://bucket/a", [{"name": "AWS_DEFAULT_REGION", "value": "eu-1"}], id="region"
        ),
        pytest.param(
            "hf://acme/llama", {"token": "t"}, "hf://acme/llama", [{"name": "HF_TOKEN", "value": "t"}], id="t"
        ),
    ],
)
def test_model_is_fetched_to_its_path(uri: str, parameters: Any, fetched: str, env: Any) -> None:
    storage = {"storageUri": uri, "parameters": parameters}
    around = catalog((ObjectRef(kinds.BASE_MODEL, DEMO, "base"), base(storage=storage)))
    (artifact,) = engine(None, around).artifacts
    assert (artifact.uri, artifact.mount_path, list(artifact.env)) == (fetched, "/raid/llama", env)
    assert artifact.field_path == "spec.model.name"


def test_secret_of_a_model_opens_the_hub() -> None:
    storage = {"key": "hf-token", "parameters": {"secretKey": "hf"}}
    around = catalog((ObjectRef(kinds.BASE_MODEL, DEMO, "base"), base(storage=storage)))
    (artifact,) = engine(None, around).artifacts
    (token,) = artifact.env
    assert token["valueFrom"] == {"secretKeyRef": {"name": "hf-token", "key": "hf", "optional": True}}


def test_claim_of_another_namespace_is_refused() -> None:
    storage = {"storageUri": "pvc://other:claim/a"}
    around = catalog((ObjectRef(kinds.BASE_MODEL, DEMO, "base"), base(storage=storage)))
    words = refusal({"model": {"name": "base"}, "engine": {}}, around)
    assert "a pod cannot mount a claim of another namespace than its own (demo)" in words


def test_model_of_the_namespace_comes_before_the_clusters() -> None:
    around = catalog((ObjectRef(kinds.BASE_MODEL, DEMO, "base"), base(storage={"path": "/of/the/namespace"})))
    assert engine(None, around).env["MODEL_PATH"] == "/of/the/namespace"


def test_traits_are_the_models() -> None:
    around = catalog(
        (
            ObjectRef(kinds.BASE_MODEL, DEMO, "base"),
            base(
                modelArchitecture="LlamaForCausalLM",
                modelFramework={"name": "transformers", "version": "4.43.1"},
                quantization="fp8",
                modelParameterSize="70.6B",
            ),
        )
    )
    request = engine(None, around).runtime
    assert request is not None
    traits = request.traits
    assert (traits.architecture, traits.quantization, traits.parameters) == ("LlamaForCausalLM", "fp8", 70_600_000_000)
    assert str(traits.framework) == '"transformers" version "4.43.1"'
    assert request.default_protocol is None, "OME does not select by protocol"


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("1T", 10**12),
        ("7B", 7 * 10**9),
        ("350M", 350 * 10**6),
        ("1.5B", 1_500_000_000),
        ("1000", 1000),
        ("big", None),
        ("", None),
    ],
)
def test_sizes(size: str, parameters: int | None) -> None:
    assert models.parameters(size) == parameters


WEIGHT = {
    "baseModelRef": {"name": "base"},
    "modelType": "LoRA",
    "hyperParameters": {"strategy": "lora"},
    "storage": {"storageUri": "hf://acme/tuned"},
}


@pytest.mark.parametrize(
    ("configuration", "mounts", "path", "is_merged"),
    [
        pytest.param({}, ["/raid/llama", "/opt/ml/model/tuned"], "/raid/llama", "false", id="adapter"),
        pytest.param({"merged_weights": True}, ["/mnt/models"], "/mnt/models", "true", id="merged"),
    ],
)
def test_fine_tuned_weight(configuration: Any, mounts: list[str], path: str, is_merged: str) -> None:
    weight = {**WEIGHT, "configuration": configuration}
    if configuration:
        weight["storage"] = {"storageUri": "hf://acme/tuned", "path": "/mnt/models"}
    around = catalog(found(kinds.FINE_TUNED_WEIGHT, "tuned", weight))
    made = parsed({"model": {"name": "base", "fineTunedWeights": ["tuned"]}, "engine": {}}, around).predictor
    assert [artifact.mount_path for artifact in made.artifacts] == mounts
    assert made.env["MODEL_PATH"] == path
    assert made.labels["fine-tuned-serving"] == "true"
    assert made.labels["fine-tuned-weight-ft-strategy"] == "lora"
    assert made.labels["fine-tuned-serving-with-merged-weights"] == is_merged


def test_weight_of_another_model_is_refused() -> None:
    around = catalog(found(kinds.FINE_TUNED_WEIGHT, "tuned", {**WEIGHT, "baseModelRef": {"name": "other"}}))
    words = refusal({"model": {"name": "base", "fineTunedWeights": ["tuned"]}, "engine": {}}, around)
    assert words == ("spec.model.fineTunedWeights[0]: Invalid value: \"tuned\": was tuned from the base model 'other'")


@pytest.mark.parametrize(
    ("namespace", "is_right"), [("demo", True), ("other", False)], ids=["its own", "of another namespace"]
)
def test_namespace_of_a_weights_base_model_counts(namespace: str, is_right: bool) -> None:
    weight = {**WEIGHT, "baseModelRef": {"name": "base", "namespace": namespace}}
    own = ObjectRef(kinds.BASE_MODEL, DEMO, "base"), {**base(), "kind": "BaseModel"}
    around = catalog(found(kinds.FINE_TUNED_WEIGHT, "tuned", weight), own)
    spec = {"model": {"name": "base", "fineTunedWeights": ["tuned"]}, "engine": {}}
    if is_right:
        assert len(parsed(spec, around).predictor.artifacts) == 2
    else:
        assert refusal(spec, around) == (
            'spec.model.fineTunedWeights[0]: Invalid value: "tuned": '
            "was tuned from the base model 'base' of namespace 'other'"
        )


def nodes(*keys: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": key, "operator": "Exists"} for key in keys]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}


@pytest.mark.parametrize(
    ("configuration", "selector", "affinity"),
    [
        pytest.param({}, {"pool": "a", "disk": "ssd"}, nodes("base", "tuned"), id="both"),
        pytest.param({"merged_weights": True}, {"disk": "ssd"}, nodes("tuned"), id="merged"),
    ],
)
def test_nodes_of_a_weights_storage_are_its_pods(configuration: Any, selector: Any, affinity: Any) -> None:
    storage = {**WEIGHT["storage"], "nodeSelector": {"disk": "ssd"}, "nodeAffinity": nodes("tuned")}
    around = catalog(
        found(kinds.FINE_TUNED_WEIGHT, "tuned", {**WEIGHT, "configuration": configuration, "storage": storage}),
        (
            ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "base"),
            base(storage={"nodeSelector": {"pool": "a"}, "nodeAffinity": nodes("base")}),
        ),
    )
    made = parsed({"model": {"name": "base", "fineTunedWeights": ["tuned"]}, "engine": {}}, around).predictor
    assert made.pod["nodeSelector"] == selector
    assert made.pod["affinity"] == {"nodeAffinity": affinity}


def test_weight_on_other_nodes_than_its_base_model_is_refused() -> None:
    storage = {**WEIGHT["storage"], "nodeSelector": {"pool": "b"}}
    around = catalog(
        found(kinds.FINE_TUNED_WEIGHT, "tuned", {**WEIGHT, "storage": storage}),
        (ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "base"), base(storage={"nodeSelector": {"pool": "a"}})),
    )
    assert refusal({"model": {"name": "base", "fineTunedWeights": ["tuned"]}, "engine": {}}, around) == (
        'spec.model.fineTunedWeights[0]: Invalid value: "tuned": is on nodes whose pool is b, its base model on a'
    )


def test_preferred_nodes_of_model_and_accelerator_are_all_preferred() -> None:
    first, second = ({"weight": number, "preference": {}} for number in (1, 2))
    word = "preferredDuringSchedulingIgnoredDuringExecution"
    discovery = {"affinity": {"nodeAffinity": {word: [second]}, "podAffinity": {}}}
    around = catalog(
        found(kinds.ACCELERATOR_CLASS, "h100", {"discovery": discovery}),
        (ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "base"), base(storage={"nodeAffinity": {word: [first]}})),
    )
    made = engine({}, around, acceleratorSelector={"acceleratorClass": "h100"})
    assert made.pod["affinity"] == {"nodeAffinity": {word: [first, second]}, "podAffinity": {}}


@pytest.mark.parametrize("name", ["", "ome-container"])
def test_model_of_a_predictor_may_name_the_runtimes_container(name: str) -> None:
    plain = {"baseModel": "base", "image": "acme/own:1"}
    assert parsed({"predictor": {"model": {**plain, "name": name}}}) == parsed({"predictor": {"model": plain}})


def test_model_of_a_predictor_has_no_container_of_its_own() -> None:
    assert refusal({"predictor": {"model": {"baseModel": "base", "name": "mine"}}}) == (
        'spec.predictor.model.name: Unsupported value: "mine": '
        'its container is the runtime\'s; supported values: "ome-container"'
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"integration": {"volcanoGPUType": "A100"}},
            "spec.integration.volcanoGPUType: Forbidden: not supported by Servery yet; write what your device plugin "
            "reads into the service's annotations",
        ),
        (
            {"resources": [{"name": "nvidia.com/gpu", "quantity": "-1"}]},
            'spec.resources[0].quantity: Invalid value: "-1": must be greater than or equal to 0',
        ),
    ],
    ids=["volcano", "quantity"],
)
def test_accelerator_class_that_cannot_be_meant_is_refused(more: Any, words: str) -> None:
    around = catalog(found(kinds.ACCELERATOR_CLASS, "h100", {"discovery": {}, **more}))
    spec = {"model": {"name": "base"}, "engine": {}, "acceleratorSelector": {"acceleratorClass": "h100"}}
    assert refusal(spec, around) == (
        f'spec.acceleratorSelector.acceleratorClass: Invalid value: "h100": AcceleratorClass h100 is invalid: {words}'
    )


def test_accelerator_class_places_pods_and_chooses_runtimes() -> None:
    place = {"discovery": {"nodeSelector": {"gpu": "h100", "zone": "a"}}}
    around = catalog(found(kinds.ACCELERATOR_CLASS, "h100", place))
    made = engine({"nodeSelector": {"zone": "b"}}, around, acceleratorSelector={"acceleratorClass": "h100"})
    assert made.pod["nodeSelector"] == {"gpu": "h100", "zone": "b"}
    assert made.runtime is not None
    assert made.runtime.traits.accelerators == {"h100"}


def test_nodes_of_a_models_storage_are_its_pods() -> None:
    storage = {"nodeSelector": {"pool": "a"}, "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}
    around = catalog((ObjectRef(kinds.BASE_MODEL, DEMO, "base"), base(storage=storage)))
    made = engine(None, around)
    assert made.pod["nodeSelector"] == {"pool": "a"}
    assert made.pod["affinity"] == {"nodeAffinity": storage["nodeAffinity"]}


SILENT = {
    "apiVersion": kinds.VERSION,
    "kind": "ClusterBaseModel",
    "metadata": {"name": "silent"},
    "spec": {"storage": {"storageUri": "hf://a/b"}},
}


def silent(*runtimes: Any) -> Catalog:
    return catalog((ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "silent"), SILENT), runtimes=runtimes)


def test_model_that_says_no_format_has_the_runtime_that_is_named_for_it() -> None:
    around = silent(runtime("srt-silent"), runtime("srt-silent-pd"), runtime("vllm-silent", auto_select=False))
    service = parsed({"model": {"name": "silent"}, "engine": {}}, around)
    assert service.predictor.runtime is not None
    assert service.predictor.runtime.name == "srt-silent"
    assert any(default.startswith("spec.runtime: srt-silent (") for default in service.defaults)


@pytest.mark.parametrize(
    ("runtimes", "why"),
    [
        pytest.param([], "no runtime is named for it", id="none"),
        pytest.param(
            [runtime("srt-silent"), runtime("vllm-silent")],
            "several runtimes are named for it: srt-silent, vllm-silent",
            id="several",
        ),
        pytest.param([runtime("srt-silent", auto_select=False)], "autoSelect is off in srt-silent", id="off"),
    ],
)
def test_model_that_says_no_format_and_has_no_runtime_is_refused(runtimes: Any, why: str) -> None:
    words = refusal({"model": {"name": "silent"}, "engine": {}}, silent(*runtimes))
    assert words.startswith("spec.runtime: Required value: base model 'silent' says no modelFormat")
    assert why in words


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({}, (1, 3, AutoscalerClass.HPA, None, None), id="omes-defaults"),
        pytest.param(
            {"minReplicas": 5, "scaleMetric": "cpu", "scaleTarget": 30},
            (5, 5, AutoscalerClass.HPA, ScaleMetric.CPU, 30),
            id="most-is-at-least-the-fewest",
        ),
        pytest.param(
            {
                "scaleTarget": 30,
                "annotations": {"ome.io/targetUtilizationPercentage": "60", "ome.io/metrics": "cpu"},
            },
            (1, 3, AutoscalerClass.HPA, ScaleMetric.CPU, 60),
            id="annotations-first",
        ),
        pytest.param(
            {"maxReplicas": 9, "annotations": {"ome.io/autoscalerClass": "external"}},
            (1, 9, AutoscalerClass.EXTERNAL, None, None),
            id="external",
        ),
        pytest.param(
            {"kedaConfig": {"enableKeda": False}}, (1, 3, AutoscalerClass.HPA, None, None), id="keda-switched-off"
        ),
    ],
)
def test_scaling(spec: Any, expected: Any) -> None:
    made = engine(spec).scaling
    assert (made.min_replicas, made.max_replicas, made.autoscaler_class, made.metric, made.target) == expected


def test_memory_is_a_percentage() -> None:
    (metric,) = engine({"scaleMetric": "memory", "scaleTarget": 70}).scaling.metrics
    assert metric["resource"]["target"] == {"type": "Utilization", "averageUtilization": 70}


def test_router_has_omes_other_default() -> None:
    router = parsed({"model": {"name": "base"}, "engine": {}, "router": {}}).components[1]
    assert router.scaling.max_replicas == 2


KEDA = {
    "promServerAddress": "http://prometheus",
    "customPromQuery": 'sum(rate(x{app="%s"}[1m])) % 7',
    "scalingThreshold": "5",
    "authenticationRef": {"name": "a"},
    "authModes": "basic",
}


def test_keda_asks_prometheus() -> None:
    service = parsed({"model": {"name": "base"}, "engine": {"minReplicas": 0}, "router": {}, "kedaConfig": KEDA})
    made = service.predictor.scaling
    assert (made.autoscaler_class, made.min_replicas) == (AutoscalerClass.KEDA, 0)
    (metric,) = made.metrics
    assert metric["external"] == {
        "metric": {
            "backend": "prometheus",
            "serverAddress": "http://prometheus",
            "query": 'sum(rate(x{app="llama-engine"}[1m])) % 7',
        },
        "target": {"type": "AverageValue", "value": "5"},
        "authenticationRef": {
            "authModes": "basic",
            "authenticationRef": {"kind": "TriggerAuthentication", "name": "a"},
        },
    }
    assert service.components[1].scaling.autoscaler_class is AutoscalerClass.HPA, "the query is about engines"


def test_component_and_its_annotations_say_more_of_keda_than_the_service() -> None:
    made = engine(
        {
            "kedaConfig": {"scalingThreshold": "7"},
            "annotations": {"autoscaling.keda.sh/prometheus.serverAddress": "http://other"},
        },
        kedaConfig=KEDA,
    )
    external = made.scaling.metrics[0]["external"]
    assert external["target"]["value"] == "7"
    assert external["metric"]["serverAddress"] == "http://other"
    assert 'ome_io_inferenceservice="llama",component="engine"' in external["metric"]["query"]


@pytest.mark.parametrize(
    ("spec", "budget"),
    [({}, {"maxUnavailable": 1}), ({"minAvailable": "50%"}, {"minAvailable": "50%"})],
    ids=["omes", "its-own"],
)
def test_disruption_budget(spec: Any, budget: Any) -> None:
    assert engine(spec).disruption_budget == budget


def test_strategy_takes_no_pod_away() -> None:
    assert engine().strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert engine({"deploymentStrategy": {"type": "Recreate"}}).strategy == {"type": "Recreate"}


def test_canary_is_between_revisions() -> None:
    service = manifest(
        {"model": {"name": "base"}, "engine": {"canaryTrafficPercent": 10}},
        annotations={"ome.io/deploymentMode": "Serverless"},
    )
    service["status"] = {"components": {"engine": {"latestRolledoutRevision": "llama-engine-00001"}}}
    parsed_service = OME.parse(service, catalog())
    canary = parsed_service.predictor.canary
    assert canary is not None
    assert (canary.percent, canary.stable_revision) == (10, "llama-engine-00001")
    assert parsed_service.entry is None, "Knative's requests come through its gateway"
    assert parsed_service.predictor.exposed_as == (80,)


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"networking.knative.dev/visibility": "cluster-local"}},
        {"labels": {"networking.ome.io/visibility": "cluster-local"}},
        {"annotations": {"ome.io/ingress-disable-creation": "true"}},
    ],
)
def test_service_that_wants_no_route(metadata: Any) -> None:
    assert parsed({"model": {"name": "base"}, "engine": {}}, **metadata).cluster_local
    assert not parsed({"model": {"name": "base"}, "engine": {}}).cluster_local


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param(
            {"model": {"name": "nope"}, "engine": {}},
            "spec.model.name: Not found: \"nope\": no BaseModel in namespace 'demo' and no ClusterBaseModel has this "
            "name; there are: base",
            id="model",
        ),
        pytest.param(
            {"engine": {}},
            "spec.runtime: Required value: a runtime is chosen for a base model; without one, name the runtime",
            id="nothing-to-choose-by",
        ),
        pytest.param(
            {"model": {"name": "base"}, "engine": {}, "kedaConfig": {"scalingOperator": "LessThan"}},
            "spec.kedaConfig.scalingOperator: Forbidden: LessThan: KEDA adds replicas as the query's value grows; turn "
            "the query round, as in 1/(…)",
            id="operator",
        ),
        pytest.param(
            {"model": {"name": "base"}, "engine": {}, "acceleratorSelector": {"policy": "Cheapest"}},
            "spec.acceleratorSelector.policy: Forbidden: Servery does not choose among accelerator classes yet; name "
            "one in acceleratorClass",
            id="policy",
        ),
    ],
)
def test_errors_say_what_to_do(spec: Any, words: str) -> None:
    assert refusal(spec) == words


def test_broken_model_is_an_error_of_the_service() -> None:
    broken = {**SILENT, "spec": {"storage": {}}}
    around = catalog((ObjectRef(kinds.BASE_MODEL, DEMO, "broken"), broken))
    words = refusal({"model": {"name": "broken"}, "engine": {}}, around)
    assert "BaseModel demo/broken is invalid: spec.storage.storageUri: Required value" in words


def test_references() -> None:
    refs = OME.references(
        manifest(
            {
                "model": {"name": "base", "fineTunedWeights": ["tuned"]},
                "engine": {"serviceAccountName": "reader", "acceleratorOverride": {"acceleratorClass": "l4"}},
                "decoder": {},
                "router": {"serviceAccountName": "router"},
                "acceleratorSelector": {"acceleratorClass": "h100"},
            }
        )
    )
    assert refs == {
        ObjectRef(kinds.BASE_MODEL, DEMO, "base"),
        ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "base"),
        ObjectRef(kinds.FINE_TUNED_WEIGHT, CLUSTER, "tuned"),
        ObjectRef(kinds.ACCELERATOR_CLASS, CLUSTER, "h100"),
        ObjectRef(kinds.ACCELERATOR_CLASS, CLUSTER, "l4"),
        ObjectRef(SERVICE_ACCOUNT, DEMO, "reader"),
        ObjectRef(SERVICE_ACCOUNT, DEMO, "default"),
    }


def test_references_of_the_older_form() -> None:
    refs = OME.references(manifest({"predictor": {"model": {"baseModel": "base"}}, "wrong": 1}))
    assert ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "base") in refs
