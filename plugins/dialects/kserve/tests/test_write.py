"""What of a service in nobody's words KServe's manifests can say, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from servery_dialect_kserve.plugin import KServeDialect
from servery_sdk.errors import Invalid
from servery_sdk.manifests import Kind, Namespace, ObjectRef
from servery_sdk.model import (
    Artifact,
    AutoscalerClass,
    Batching,
    Catalog,
    Component,
    ComponentKind,
    Entry,
    InferenceService,
    ModelFormat,
    ModelTraits,
    PayloadLogging,
    Protocol,
    RuntimeRequest,
    Scaling,
    StorageReference,
    Workers,
)
from servery_sdk.model.service import LogMode

DIALECT = KServeDialect()
REQUEST = RuntimeRequest(format=ModelFormat(name="sklearn"), field_path="x.runtime")
MODEL = Component(
    kind=ComponentKind.PREDICTOR,
    name="server",
    object_name="iris-server",
    main_container="server",
    runtime=REQUEST,
    artifacts=(Artifact(uri="s3://a/b", field_path="x.uri"),),
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


def predictor(**changes: Any) -> Any:
    (found,) = DIALECT.write(meant(replace(MODEL, **changes)))
    return found["spec"]["predictor"]


def refusals(service: InferenceService) -> list[tuple[str, str]]:
    with pytest.raises(Invalid) as refused:
        DIALECT.write(service)
    return [(error.path, error.detail.removeprefix("KServe cannot say ")) for error in refused.value.errors]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"workers": Workers(count=1)}, "pods that each replica leads"),
        ({"batching": Batching(max_batch_rows=1)}, "batching in the model server"),
        ({"scaling": Scaling(initial_replicas=3)}, "3 replicas to begin with, other than minReplicas"),
        ({"disruption_budget": {"minAvailable": 1}}, "a disruption budget"),
        (
            {"accelerators_env": "GPUS", "container": {"args": ["--gpus=$(GPUS)"]}},
            "variable GPUS, which counts the GPUs of a pod and its workers",
        ),
        ({"reads_pods": True}, "the right to look at the pods of the namespace"),
        (
            {"replaced": frozenset({"args"}), "container": {"args": ["a"]}},
            "args in the place of the runtime's: they come behind them",
        ),
        ({"pod": {"schedulingGates": []}}, "schedulingGates of the pod"),
        (
            {"pod": {"containers": [{"name": "kserve-container"}]}},
            "a container kserve-container beside the one that answers, which has that name",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_component_without_words_is_refused_at_its_own_path(changes: Any, what: str) -> None:
    assert refusals(meant(replace(MODEL, **changes))) == [("x", what)]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"format": None, "name": "acme"}, "a model without its format"),
        ({"format": ModelFormat(name="triton")}, "format triton without a protocol: it speaks v2 then"),
        ({"protocol": Protocol.OPENAI}, "protocol openai"),
        (
            {"traits": ModelTraits(quantization="fp8")},
            "a model's architecture, framework, quantization, size or accelerators",
        ),
    ],
    ids=["format", "triton", "protocol", "traits"],
)
def test_request_without_words_is_refused_at_the_runtimes_path(changes: Any, what: str) -> None:
    assert refusals(meant(replace(MODEL, runtime=replace(REQUEST, **changes)))) == [("x.runtime", what)]


def test_all_refusals_of_a_service_come_at_once() -> None:
    token = {"name": "HF_TOKEN", "value": "t"}
    artifacts = (
        Artifact(uri="hf://a/b", env=(token,), field_path="x.uri"),
        Artifact(uri=None, storage=StorageReference(key="k"), mount_path="/b", field_path="y.uri"),
    )
    second = replace(MODEL, name="decoder", kind=ComponentKind.DECODER, field_path="y")
    service = meant(
        replace(MODEL, artifacts=artifacts, labels={"component": "mine"}),
        second,
        mode="ray",
        entry=Entry(name="iris", selector={}, type="LoadBalancer"),
    )
    assert refusals(service) == [
        ("metadata.annotations", "mode ray"),
        ("metadata.annotations", "a Service of type LoadBalancer"),
        ("x", "labels component: there it is a word of its own".replace("labels", "label")),
        ("x.uri", "what opens this source (HF_TOKEN): it takes that from the secrets of the service account"),
        ("y", "decoder beside server: it has one predictor"),
        ("y.uri", "a credential entry for files at /b"),
    ]


def test_label_of_the_service_alone_is_refused() -> None:
    service = meant(metadata={"name": "iris", "labels": {"team": "a"}})
    assert refusals(service) == [("metadata.labels[team]", "a label of the service alone: its pods get it as well")]


def test_dialects_own_words_are_not_said_again() -> None:
    service = meant(
        replace(MODEL, labels={"team": "a", "own": "b"}, annotations={"own": "c"}),
        metadata={
            "name": "iris",
            "labels": {"team": "a", "own": "b"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "uid": "u",
        },
        own=frozenset({"own"}),
    )
    (found,) = DIALECT.write(service)
    assert found["metadata"] == {"name": "iris", "namespace": "demo", "labels": {"team": "a"}}


@pytest.mark.parametrize(
    "logging",
    [
        PayloadLogging(),
        PayloadLogging(
            url="s3://bucket/logs",
            mode=LogMode.RESPONSE,
            metadata_headers=("X-A",),
            metadata_annotations=("team",),
            marshaller_url="http://marshaller",
            batch_size=10,
            batch_interval="5s",
            store_path="/logger",
            store_format="parquet",
            account="writer",
        ),
    ],
    ids=["the least", "all of it"],
)
def test_logger_that_is_written_means_the_same(logging: PayloadLogging) -> None:
    (written,) = DIALECT.write(meant(replace(MODEL, logging=logging)))
    assert DIALECT.parse(written, Catalog()).predictor.logging == logging


def test_settings_are_annotations() -> None:
    scaling = Scaling(autoscaler_class=AutoscalerClass.NONE)
    (found,) = DIALECT.write(meant(replace(MODEL, scaling=scaling), mode="knative", stopped=True, cluster_local=True))
    assert found["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": "Knative",
        "serving.kserve.io/autoscalerClass": "none",
        "serving.kserve.io/stop": "true",
    }
    assert found["metadata"]["labels"] == {"networking.kserve.io/visibility": "cluster-local"}


def test_files_elsewhere_are_said_with_their_place() -> None:
    found = predictor(artifacts=(Artifact(uri="s3://a/b", mount_path="/opt/model"),))
    assert found["storageUris"] == [{"uri": "s3://a/b", "mountPath": "/opt/model"}]
    assert "storageUri" not in found["model"]


def test_promise_that_is_more_than_a_promise_is_said() -> None:
    env = {"NAME": "iris", "DIRECTORY": "/mnt/models", "SETTINGS": "{}", "USED": "iris"}
    found = predictor(env=env, container={"args": ["--name=$(USED)"], "env": [{"name": "A", "value": "b"}]})
    assert found["model"]["env"] == [
        {"name": "SETTINGS", "value": "{}"},
        {"name": "USED", "value": "iris"},
        {"name": "A", "value": "b"},
    ]
