"""What of a service in nobody's words OME's manifests can say, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from servery_dialect_ome.plugin import OMEDialect
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
    ModelFormat,
    ModelTraits,
    PayloadLogging,
    Protocol,
    RuntimeRequest,
    ScaleMetric,
    Scaling,
    StorageReference,
    Workers,
)

DIALECT = OMEDialect()
REQUEST = RuntimeRequest(format=ModelFormat(name="sklearn"), field_path="x.runtime")
FILES = Artifact(uri="s3://a/b", field_path="x.uri")
MODEL = Component(
    kind=ComponentKind.PREDICTOR,
    name="server",
    object_name="iris-server",
    main_container="server",
    runtime=REQUEST,
    artifacts=(FILES,),
    field_path="x",
)


def meant(*components: Component, **changes: Any) -> InferenceService:
    made = InferenceService(
        ref=ObjectRef(Kind("example.com/v1", "Thing", "things"), Namespace("demo"), "iris"),
        metadata={"name": "iris", "namespace": "demo"},
        components=components or (MODEL,),
        owned_labels={},
    )
    return replace(made, **changes)


def written(service: InferenceService) -> tuple[Any, Any]:
    """Return the InferenceService's spec and the BaseModel's."""
    found, model = DIALECT.write(service)
    return found["spec"], model["spec"]


def refusals(service: InferenceService) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        DIALECT.write(service)
    return [(error.path, error.detail.removeprefix("OME cannot say ")) for error in refused.value.errors]


KEDA = {"type": "External", "external": {"metric": {"backend": "acme"}, "target": {"type": "AverageValue", "value": 1}}}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"batching": Batching(max_batch_rows=1)}, "batching in the model server"),
        ({"logging": PayloadLogging()}, "payload logging"),
        ({"canary": Canary(percent=100, tagged=True)}, "an address for the newest revision alone"),
        ({"canary": Canary(percent=10)}, "a share for the newest revision without its mode Serverless"),
        ({"container_concurrency": 0}, "no bound of the requests at once; leave it out"),
        ({"env": {"MODEL_CONFIGURATION": "x"}}, "a MODEL_CONFIGURATION that is no JSON object"),
        (
            {"scaling": Scaling(autoscaler_class=AutoscalerClass.NONE)},
            "a number of replicas that nobody moves: its services have autoscalers",
        ),
        ({"scaling": Scaling(initial_replicas=2)}, "2 replicas to begin with, other than minReplicas"),
        ({"scaling": Scaling(behavior={})}, "the behavior of its autoscaler"),
        (
            {"scaling": Scaling(autoscaler_class=AutoscalerClass.KEDA, metrics=(KEDA,))},
            "what KEDA looks at: it knows one query of Prometheus",
        ),
        (
            {"scaling": Scaling(metric=ScaleMetric.MEMORY, target=500)},
            "metrics of its autoscaler as they stand; its target for memory is a percentage",
        ),
        (
            {"workers": Workers(count=1)},
            "several pods a replica in the installation's default mode; ask for a mode",
        ),
        (
            {"scaling": Scaling(min_replicas=0)},
            "no replica in the installation's default mode: it takes Serverless then; ask for a mode",
        ),
        ({"pod": {"gpus": 1}}, "gpus of the pod"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_component_without_words_is_refused_at_its_own_path(changes: Any, what: str) -> None:
    assert refusals(meant(replace(MODEL, **changes))) == [("x", what)]


@pytest.mark.parametrize(
    ("changes", "beside", "what"),
    [
        (
            {},
            {"container": {"image": "acme/own:1"}},
            "an image of one's own over a runtime that is to be chosen; name the runtime",
        ),
        ({"format": None}, {}, "a runtime that is to be chosen for a model without a format"),
        ({}, {"artifacts": ()}, "a model's format without its files: a base model has both"),
        ({"protocol": Protocol.GRPC_V1}, {}, "protocol grpc-v1"),
        ({"traits": ModelTraits(accelerators=frozenset("ab"))}, {}, "several accelerator classes"),
        (
            {"version": "2"},
            {"container": {"args": ["a"]}, "replaced": frozenset({"args"})},
            "args in the place of the runtime's, in its older form",
        ),
    ],
    ids=["image", "no-format", "no-files", "protocol", "accelerators", "replaced"],
)
def test_request_without_words_is_refused_at_the_runtimes_path(changes: Any, beside: Any, what: str) -> None:
    assert refusals(meant(replace(MODEL, runtime=replace(REQUEST, **changes), **beside))) == [("x.runtime", what)]


@pytest.mark.parametrize(
    ("artifacts", "what"),
    [
        ((FILES, FILES), "a second source of files"),
        ((replace(FILES, storage=StorageReference(key="k")),), "a credential entry; a base model has a URI"),
        ((replace(FILES, env=({"name": "A", "value": "b"},)),), "what opens this source (A)"),
    ],
    ids=["second", "entry", "env"],
)
def test_files_without_words_are_refused_at_their_own_path(artifacts: Any, what: str) -> None:
    assert refusals(meant(replace(MODEL, artifacts=artifacts))) == [("x.uri", what)]


def test_all_refusals_of_a_service_come_at_once() -> None:
    service = meant(MODEL, replace(MODEL, name="other", field_path="y"), mode="acme", stopped=True)
    assert refusals(service) == [
        ("metadata.annotations", "that nothing is to run for now"),
        ("metadata.annotations", "mode acme"),
        ("y", "other beside server: it has one engine"),
    ]


def test_what_the_newer_form_lacks_is_said_in_the_older() -> None:
    newer, _ = written(meant())
    assert set(newer) == {"model", "engine"}
    spec, _ = written(meant(replace(MODEL, runtime=replace(REQUEST, protocol=Protocol.V2, version="2"))))
    assert set(spec) == {"predictor"}
    assert spec["predictor"]["model"] == {
        "baseModel": "iris",
        "runtimeVersion": "2",
        "protocolVersion": "openInference-v2",
    }
    joined, _ = written(meant(replace(MODEL, container={"args": ["--more"]})))
    assert joined["predictor"]["model"]["args"] == ["--more"]
    replaced, _ = written(meant(replace(MODEL, container={"args": ["--more"]}, replaced=frozenset({"args"}))))
    assert replaced["engine"]["runner"]["args"] == ["--more"]


def test_runner_is_there_beside_a_sidecar_or_the_sidecar_would_be_it() -> None:
    spec, _ = written(meant(replace(MODEL, pod={"containers": [{"name": "side", "image": "acme/side:1"}]})))
    assert spec["engine"]["runner"] == {}
    assert spec["engine"]["containers"] == [{"name": "side", "image": "acme/side:1"}]


def test_base_model_says_what_a_runtime_is_chosen_by() -> None:
    traits = ModelTraits(
        architecture="LlamaForCausalLM",
        framework=ModelFormat(name="transformers", version="4"),
        quantization="fp8",
        parameters=8_000_000_000,
        accelerators=frozenset({"h100"}),
    )
    env = {"MODEL_PATH": "/opt/m", "MODEL_CONFIGURATION": '{"a": 1}'}
    component = replace(
        MODEL, runtime=replace(REQUEST, traits=traits), artifacts=(replace(FILES, mount_path="/opt/m"),), env=env
    )
    found, model = DIALECT.write(meant(component))
    assert found["metadata"]["annotations"] == {"ome.io/accelerator-class": "h100"}
    assert "runner" not in found["spec"]["engine"], "a base model's settings are no variables"
    assert model["spec"] == {
        "modelFormat": {"name": "sklearn"},
        "modelFramework": {"name": "transformers", "version": "4"},
        "modelArchitecture": "LlamaForCausalLM",
        "quantization": "fp8",
        "modelParameterSize": "8000000000",
        "modelConfiguration": {"a": 1},
        "storage": {"storageUri": "s3://a/b", "path": "/opt/m"},
    }


@pytest.mark.parametrize(
    ("uri", "variable", "storage"),
    [
        (
            "s3://bucket/prefix",
            {"name": "AWS_DEFAULT_REGION", "value": "eu-west-1"},
            {"storageUri": "s3://bucket@eu-west-1/prefix"},
        ),
        (
            "hf://a/b",
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
            {"storageUri": "hf://a/b", "key": "s", "parameters": {"secretKey": "k"}},
        ),
        (
            "hf://a/b",
            {"name": "HF_TOKEN", "value": "t"},
            {"storageUri": "hf://a/b", "parameters": {"token": "t"}},
        ),
    ],
    ids=["region", "secret", "token"],
)
def test_what_opens_a_source_is_in_the_base_model(uri: str, variable: Any, storage: Any) -> None:
    _, model = written(meant(replace(MODEL, artifacts=(replace(FILES, uri=uri, env=(variable,)),))))
    assert model["storage"] == storage


def test_settings_are_annotations() -> None:
    entry = Entry(name="iris", selector={}, type="LoadBalancer")
    scaling = Scaling(autoscaler_class=AutoscalerClass.EXTERNAL)
    found, _ = DIALECT.write(
        meant(replace(MODEL, scaling=scaling, annotations={"a": "b"}), mode="ray", cluster_local=True, entry=entry)
    )
    assert found["metadata"]["annotations"] == {
        "ome.io/deploymentMode": "MultiNodeRayVLLM",
        "ome.io/ingress-disable-creation": "true",
        "ome.io/service-type": "LoadBalancer",
    }
    assert found["spec"]["engine"]["annotations"] == {"a": "b", "ome.io/autoscalerClass": "external"}


def test_no_most_replicas_is_the_fewest_but_not_where_the_mode_would_know_no_bound() -> None:
    spec, _ = written(meant(replace(MODEL, scaling=Scaling(min_replicas=2))))
    assert (spec["engine"]["minReplicas"], spec["engine"]["maxReplicas"]) == (2, 2)
    what = "no bound of the replicas, which this mode would have; say maxReplicas"
    assert refusals(meant(mode="knative")) == [("x", what)]
