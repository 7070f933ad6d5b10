from __future__ import annotations

from typing import Any

import pytest
from servery_dialect_kserve.plugin import KServeDialect
from servery_sdk.errors import Invalid
from servery_sdk.kinds import SERVICE_ACCOUNT
from servery_sdk.model import AutoscalerClass, Catalog, Component, InferenceService, Protocol, ScaleMetric

DIALECT = KServeDialect()
GROUP = "serving.kserve.io"


def manifest(predictor: Any, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris", "namespace": "demo", **metadata},
        "spec": {"predictor": predictor},
    }


def parse(predictor: Any, **metadata: Any) -> InferenceService:
    return DIALECT.parse(manifest(predictor, **metadata), Catalog())


def component(predictor: Any, **metadata: Any) -> Component:
    return parse(predictor, **metadata).predictor


MODEL = {"modelFormat": {"name": "sklearn"}, "storageUri": "s3://b/m"}


def of_requested(percent: int) -> dict[str, Any]:
    target = {"type": "Utilization", "averageUtilization": percent}
    return {"type": "Resource", "resource": {"name": "memory", "target": target}}


def test_framework_field_means_the_same_as_model() -> None:
    one, other = component({"sklearn": {"storageUri": "s3://b/m"}}), component({"model": MODEL})
    assert one.runtime is not None
    assert other.runtime is not None
    assert one.runtime.format == other.runtime.format
    assert (one.container, one.artifacts[0].uri) == (other.container, other.artifacts[0].uri)


@pytest.mark.parametrize(
    ("predictor", "protocol"),
    [
        pytest.param({"sklearn": {}}, None, id="sklearn-leaves-it-to-the-runtime"),
        pytest.param({"onnx": {}}, Protocol.V2, id="onnx-field"),
        pytest.param({"model": {"modelFormat": {"name": "onnx"}}}, None, id="onnx-model"),
        pytest.param({"model": {"modelFormat": {"name": "triton"}}}, Protocol.V2, id="triton-model"),
        pytest.param({"triton": {"protocolVersion": "grpc-v2"}}, Protocol.GRPC_V2, id="given"),
    ],
)
def test_protocol_defaults_as_in_kserve(predictor: Any, protocol: Protocol | None) -> None:
    request = component(predictor).runtime
    assert request is not None
    assert request.protocol is protocol


def test_names_and_labels_are_those_that_kserve_users_know() -> None:
    found = component({"model": MODEL, "labels": {"team": "a"}}, labels={"team": "b", "x": "y"})
    assert found.object_name == "iris-predictor"
    assert found.selector == {"app": "isvc.iris-predictor"}
    assert found.labels == {
        "team": "a",
        "x": "y",
        f"{GROUP}/inferenceservice": "iris",
        "component": "predictor",
    }
    assert found.env == {"INFERENCE_SERVICE_NAME": "iris"}
    assert component({"model": MODEL, "name": "blue"}).object_name == "iris-blue-predictor"


def test_annotations_reach_the_pod_but_for_kserves_own() -> None:
    kept = {"autoscaling.knative.dev/min-scale": "2", "modelFormat": "x", "mine": "1"}
    assert component({"model": MODEL, "annotations": {"b": "2"}}, annotations=kept).annotations == {
        "mine": "1",
        "b": "2",
    }


def test_scaling_is_read_from_fields_and_annotations() -> None:
    scaling = component(
        {"model": MODEL, "minReplicas": 2, "maxReplicas": 5, "scaleMetric": "memory", "scaleTarget": 200}
    )
    assert scaling.scaling.metric is ScaleMetric.MEMORY
    assert (scaling.scaling.min_replicas, scaling.scaling.max_replicas, scaling.scaling.target) == (2, 5, 200)
    annotated = component({"model": MODEL}, annotations={f"{GROUP}/autoscalerClass": "none"})
    assert annotated.scaling.autoscaler_class is AutoscalerClass.NONE
    assert annotated.scaling.min_replicas == 1


@pytest.mark.parametrize(
    ("said", "metrics"),
    [
        ({"scaleMetricType": "Utilization", "scaleTarget": 60}, (of_requested(60),)),
        ({"scaleMetricType": "Utilization"}, (of_requested(80),)),
        ({"scaleMetricType": "AverageValue", "scaleTarget": 60}, ()),
        ({"scaleTarget": 60}, ()),
    ],
    ids=["share", "share by default", "amount", "silent"],
)
def test_target_of_memory_counts_as_it_says(said: dict[str, Any], metrics: tuple[Any, ...]) -> None:
    scaling = component({"model": MODEL, "scaleMetric": "memory", **said}).scaling
    assert scaling.metrics == metrics


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        ({"scaleMetric": "cpu", "scaleMetricType": "Utilization"}, {"scaleMetric": "cpu"}),
        ({"scaleMetric": "rps", "scaleMetricType": "AverageValue"}, {"scaleMetric": "rps"}),
    ],
    ids=["cpu", "requests"],
)
def test_type_that_a_metric_has_anyway_may_be_said(said: dict[str, Any], plain: dict[str, Any]) -> None:
    assert component({"model": MODEL, **said}).scaling == component({"model": MODEL, **plain}).scaling


def test_metric_of_plain_objects_is_cpu_by_default() -> None:
    spec = {"model": MODEL, "scaleMetricType": "Utilization", "scaleTarget": 60}
    assert component(spec, annotations={f"{GROUP}/deploymentMode": "Standard"}).scaling.target == 60


@pytest.mark.parametrize(
    ("written", "mode"),
    [("RawDeployment", "raw"), ("Standard", "raw"), ("Serverless", "knative"), ("Knative", "knative")],
)
def test_mode_has_both_spellings(written: str, mode: str) -> None:
    assert parse({"model": MODEL}, annotations={f"{GROUP}/deploymentMode": written}).mode == mode


def test_single_container_of_ones_own_is_the_main_one() -> None:
    found = component({"containers": [{"image": "acme/model:1"}]})
    assert found.runtime is None
    assert found.pod["containers"] == [{"image": "acme/model:1", "name": "kserve-container"}]


@pytest.mark.parametrize(("named", "account"), [({"serviceAccountName": "writer"}, "writer"), ({}, "logger-sa")])
def test_store_of_the_log_is_read_with_the_account_that_opens_it(named: dict[str, str], account: str) -> None:
    store = {"path": "/logger", "parameters": {"type": "s3", "format": "csv"}, "key": "credentials", **named}
    predictor = {**model(), "logger": {"mode": "all", "url": "s3://bucket", "storage": store}}
    logging = component(predictor).logging
    assert logging is not None
    assert (logging.store_path, logging.store_format, logging.account) == ("/logger", "csv", account)
    assert {ref.name for ref in DIALECT.references(manifest(predictor)) if ref.kind == SERVICE_ACCOUNT} == {
        "default",
        account,
    }


def test_stop_and_visibility_are_read() -> None:
    found = parse(
        {"model": MODEL},
        annotations={f"{GROUP}/stop": "True"},
        labels={"networking.kserve.io/visibility": "cluster-local"},
    )
    assert (found.stopped, found.cluster_local) == (True, True)


EXACTLY_ONE = (
    "exactly one of [sklearn, xgboost, tensorflow, pytorch, triton, onnx, huggingface, pmml, lightgbm, paddle, model, "
    "containers] must be specified in PredictorSpec"
)
P = "spec.predictor"
M = f"{P}.model"
QUANTITY = "a number with an optional unit: n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent such as 1e3"


def model(**more: Any) -> dict[str, Any]:
    return {"model": {**MODEL, **more}}


WRONG: list[Any] = [
    pytest.param({}, [f'{P}: Invalid value: "none": {EXACTLY_ONE}'], id="no-implementation"),
    pytest.param(
        {"sklearn": {}, "xgboost": {}}, [f'{P}: Invalid value: "sklearn, xgboost": {EXACTLY_ONE}'], id="two-models"
    ),
    pytest.param(
        {"sklearn": {}, **model()}, [f'{P}: Invalid value: "sklearn, model": {EXACTLY_ONE}'], id="field-and-model"
    ),
    pytest.param(
        {
            "sklearn": {"storageUri": ""},
            "xgboost": {"name": "x", "resources": {"limits": {"cpu": "lots"}}},
            "minReplicas": 3,
            "maxReplicas": 1,
        },
        [
            f'{P}: Invalid value: "sklearn, xgboost": {EXACTLY_ONE}',
            f"{P}.maxReplicas: Invalid value: 1: must be greater than or equal to minReplicas (3)",
            f'{P}.sklearn.storageUri: Invalid value: "": must not be empty',
            f"{P}.xgboost.name: Forbidden: the 'name' field is not allowed in standard predictor",
            f'{P}.xgboost.resources.limits[cpu]: Invalid value: "lots": must be {QUANTITY}',
        ],
        id="two-wrong-models",
    ),
    pytest.param({"model": {}}, [f"{M}.modelFormat: Required value: the model's format"], id="no-format"),
    pytest.param({"model": {"modelFormat": {}}}, [f"{M}.modelFormat.name: Required value"], id="no-format-name"),
    pytest.param(
        {"model": {"modelFormat": "sklearn"}},
        [f'{M}.modelFormat: Invalid value: "sklearn": must be an object, found string'],
        id="format-is-text",
    ),
    pytest.param(
        {"model": {"modelFormat": {"name": "sklearn", "version": 1}}},
        [f"{M}.modelFormat.version: Invalid value: 1: must be a string, found integer"],
        id="version-is-a-number",
    ),
    pytest.param({"model": []}, [f"{M}: Invalid value: []: must be an object, found array"], id="model-is-a-list"),
    pytest.param(
        model(storageURI="x"), [f'{M}.storageURI: Unknown field: did you mean "storageUri"?'], id="misspelt-field"
    ),
    pytest.param(
        {**model(), "minReplica": 1},
        [f'{P}.minReplica: Unknown field: did you mean "minReplicas"?'],
        id="misspelt-component",
    ),
    pytest.param(
        {**model(), "minReplicas": "1"},
        [f'{P}.minReplicas: Invalid value: "1": must be an integer, found string'],
        id="replicas-are-text",
    ),
    pytest.param(
        {**model(), "minReplicas": -1},
        [f"{P}.minReplicas: Invalid value: -1: must be greater than or equal to 0"],
        id="negative-replicas",
    ),
    pytest.param(
        {**model(), "minReplicas": True},
        [f"{P}.minReplicas: Invalid value: true: must be an integer, found boolean"],
        id="replicas-are-true",
    ),
    pytest.param(
        {**model(), "minReplicas": 3, "maxReplicas": 1},
        [f"{P}.maxReplicas: Invalid value: 1: must be greater than or equal to minReplicas (3)"],
        id="most-below-fewest",
    ),
    pytest.param(
        {**model(), "scaleMetric": "gpu"},
        [f'{P}.scaleMetric: Unsupported value: "gpu": supported values: "concurrency", "cpu", "memory", "rps"'],
        id="unknown-metric",
    ),
    pytest.param(
        {**model(), "scaleMetricType": "Utilization"},
        [f"{P}.scaleMetric: Required value: scaleMetricType says how the target of a metric counts"],
        id="type-of-no-metric",
    ),
    pytest.param(
        {**model(), "scaleMetric": "cpu", "scaleMetricType": "AverageValue"},
        [f'{P}.scaleMetricType: Unsupported value: "AverageValue": types of metric cpu: "Utilization"'],
        id="amount-of-cpu",
    ),
    pytest.param(
        {**model(), "scaleMetric": "concurrency", "scaleMetricType": "Utilization"},
        [f'{P}.scaleMetricType: Unsupported value: "Utilization": types of metric concurrency: "AverageValue"'],
        id="share-of-requests",
    ),
    pytest.param(
        {**model(), "scaleMetric": "memory", "scaleMetricType": "AverageValue"},
        [f"{P}.scaleTarget: Required value: MiB of memory for each pod"],
        id="amount-without-a-number",
    ),
    pytest.param(
        {**model(), "containers": [{"name": "a", "image": "i"}, {"image": "i"}]},
        [f"{P}.containers[1].name: Required value"],
        id="sidecar-without-a-name",
    ),
    pytest.param(
        {"containers": [{"name": "kserve-container", "image": "i"}, {"image": "i"}]},
        [f"{P}.containers[1].name: Required value"],
        id="container-without-a-name",
    ),
    pytest.param(
        {**model(), "initContainers": [{"image": "i"}]},
        [f"{P}.initContainers[0].name: Required value"],
        id="init-container-without-a-name",
    ),
    pytest.param(
        {**model(), "scaleTarget": 0}, [f"{P}.scaleTarget: Invalid value: 0: must be at least 1"], id="no-target"
    ),
    pytest.param(
        {**model(), "containerConcurrency": -1},
        [f"{P}.containerConcurrency: Invalid value: -1: must be greater than or equal to 0"],
        id="negative-concurrency",
    ),
    pytest.param(
        {**model(), "timeout": 1.5},
        [f"{P}.timeout: Invalid value: 1.5: must be an integer, found number"],
        id="half-a-second",
    ),
    pytest.param(
        {**model(), "timeout": -5},
        [f"{P}.timeout: Invalid value: -5: must be greater than or equal to 0"],
        id="timeout",
    ),
    pytest.param(
        model(protocolVersion="v3"),
        [f'{M}.protocolVersion: Unsupported value: "v3": supported values: "grpc-v1", "grpc-v2", "v1", "v2"'],
        id="unknown-protocol",
    ),
    pytest.param(model(storageUri=""), [f'{M}.storageUri: Invalid value: "": must not be empty'], id="empty-uri"),
    pytest.param(model(storageUri=7), [f"{M}.storageUri: Invalid value: 7: must be a string, found integer"], id="uri"),
    pytest.param(
        model(storage={"path": "p"}),
        [f"{M}.storage.path: Forbidden: must provide only one of storageUri and storage.path"],
        id="uri-and-path",
    ),
    pytest.param(
        model(storage={"parameters": {"a": 1}}),
        [f"{M}.storage.parameters.a: Invalid value: 1: must be a string, found integer"],
        id="storage-parameter",
    ),
    pytest.param(
        {**model(), "storageUris": [{"uri": "s3://b/n"}]},
        [f"{P}.storageUris: Forbidden: Setting both StorageURI and StorageURIs is not supported."],
        id="uri-and-uris",
    ),
    pytest.param(
        {"sklearn": {}, "storageUris": []},
        [f"{P}.storageUris: Invalid value: []: must have at least 1 items"],
        id="no-uris",
    ),
    pytest.param(
        {"sklearn": {}, "storageUris": [{"mountPath": "/a"}]}, [f"{P}.storageUris[0].uri: Required value"], id="no-uri"
    ),
    pytest.param(
        {"sklearn": {}, "storageUris": [{"uri": "s3://a", "mountPath": "a"}]},
        [f'{P}.storageUris[0].mountPath: Invalid value: "a": must match ^/.*'],
        id="relative-mount",
    ),
    pytest.param(
        {"sklearn": {}, "storageUris": [{"uri": "s3://a", "mountPath": "/a/../b"}]},
        [
            f'{P}.storageUris[0].mountPath: Invalid value: "/a/../b": '
            "must be an absolute directory other than '/', without '..'"
        ],
        id="mount-goes-up",
    ),
    pytest.param(
        {"sklearn": {}, "storageUris": [{"uri": "s3://a", "mountPath": "/"}]},
        [
            f"{P}.storageUris[0].mountPath: Invalid value: \"/\": must be an absolute directory other than '/', without '..'"
        ],
        id="mount-is-root",
    ),
    pytest.param(
        {"sklearn": {}, "storageUris": [{"uri": "s3://a", "mountPath": "/a"}, {"uri": "s3://b", "mountPath": "/a"}]},
        [f'{P}.storageUris[1].mountPath: Duplicate value: "/a"'],
        id="mount-twice",
    ),
    pytest.param(
        model(name="x"),
        [f"{M}.name: Forbidden: the 'name' field is not allowed in standard predictor"],
        id="name-in-model",
    ),
    pytest.param(
        model(env=[{"name": "PYTHONPATH", "value": "/x"}]),
        [f"{M}.env[0].name: Forbidden: setting PYTHONPATH is not allowed for security reasons"],
        id="pythonpath",
    ),
    pytest.param(
        {"containers": [{"image": "a", "env": [{"name": "PYTHONPATH"}]}]},
        [f"{P}.containers[0].env[0].name: Forbidden: setting PYTHONPATH is not allowed for security reasons"],
        id="pythonpath-in-container",
    ),
    pytest.param(
        model(env={"A": "b"}),
        [f'{M}.env: Invalid value: {{"A": "b"}}: must be an array, found object'],
        id="env-is-a-map",
    ),
    pytest.param(
        model(args="--x"), [f'{M}.args: Invalid value: "--x": must be an array, found string'], id="args-are-text"
    ),
    pytest.param(
        model(args=[1]), [f"{M}.args[0]: Invalid value: 1: must be a string, found integer"], id="arg-is-a-number"
    ),
    pytest.param(
        model(resources={"limits": {"cpu": 0.5}}),
        [f"{M}.resources.limits.cpu: Invalid value: 0.5: must be an integer or string, found number"],
        id="quantity-is-a-fraction",
    ),
    pytest.param(
        model(resources={"limits": {"cpu": "2 cores", "memory": "1GiB"}, "requests": {"cpu": "-1"}}),
        [
            f'{M}.resources.limits[cpu]: Invalid value: "2 cores": must be {QUANTITY}',
            f'{M}.resources.limits[memory]: Invalid value: "1GiB": must be {QUANTITY}',
            f'{M}.resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0',
        ],
        id="quantities",
    ),
    pytest.param(
        model(resources={"limits": {"memory": "1Gi"}, "requests": {"memory": "2048Mi"}}),
        [
            f'{M}.resources.requests[memory]: Invalid value: "2048Mi": '
            "must be less than or equal to the memory limit of 1Gi"
        ],
        id="request-above-limit",
    ),
    pytest.param(
        model(resources={"limit": {}}), [f'{M}.resources.limit: Unknown field: did you mean "limits"?'], id="resources"
    ),
    pytest.param({"containers": []}, [f'{P}: Invalid value: "none": {EXACTLY_ONE}'], id="no-containers"),
    pytest.param({"containers": [{"name": "a"}]}, [f"{P}.containers[0].image: Required value"], id="no-image"),
    pytest.param(
        {"containers": [{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]},
        [
            f'{P}.containers: Invalid value: ["a", "b"]: '
            "one of several containers must be named kserve-container: the one that answers requests"
        ],
        id="no-main-container",
    ),
    pytest.param(
        {"containers": [{"image": "a", "imagePullPolcy": "Always"}]},
        [f'{P}.containers[0].imagePullPolcy: Unknown field: did you mean "imagePullPolicy"?'],
        id="misspelt-container",
    ),
    pytest.param(
        {**model(), "name": "Blue"},
        [f'{P}.name: Invalid value: "Blue": must match ^[a-z]([-a-z0-9]*[a-z0-9])?$'],
        id="predictor-name",
    ),
    pytest.param(
        {**model(), "nodeSelector": {"a": 1}},
        [f"{P}.nodeSelector.a: Invalid value: 1: must be a string, found integer"],
        id="node-selector",
    ),
    pytest.param(
        {**model(), "labels": ["a"]}, [f'{P}.labels: Invalid value: ["a"]: must be an object, found array'], id="labels"
    ),
    pytest.param(
        {**model(), "logger": {"mode": "none", "storage": {"path": "p"}}},
        [
            f'{P}.logger.mode: Unsupported value: "none": supported values: "all", "request", "response"',
            f"{P}.logger.storage.key: Required value",
            f"{P}.logger.storage.parameters: Required value",
        ],
        id="logger",
    ),
    pytest.param(
        {
            **model(),
            "logger": {"mode": "all", "storage": {"path": "p", "parameters": {"format": "xml"}, "key": "credentials"}},
        },
        [
            f'{P}.logger.storage.parameters.format: Unsupported value: "xml": '
            'supported values: "csv", "json", "jsonl", "parquet"'
        ],
        id="logger-format",
    ),
    pytest.param(
        {**model(), "logger": {"url": "http://sink"}},
        [f"{P}.logger.mode: Required value: all, request, response"],
        id="logger-mode",
    ),
    *(
        pytest.param(
            {**model(), field: value}, [f"{P}.{field}: Forbidden: {what}: not supported by Servery yet"], id=field
        )
        for field, value, what in (
            ("workerSpec", {}, "multi-node serving"),
            ("storageContainerName", "x", "ClusterStorageContainers"),
        )
    ),
    pytest.param(
        model(confidential={"enabled": True}),
        [f"{M}.confidential: Forbidden: confidential models: not supported by Servery yet"],
        id="confidential",
    ),
    pytest.param(
        {**model(protocolVersion="v9", storageUri=""), "minReplicas": -1, "timout": 1},
        [
            f"{P}.minReplicas: Invalid value: -1: must be greater than or equal to 0",
            f'{M}.protocolVersion: Unsupported value: "v9": supported values: "grpc-v1", "grpc-v2", "v1", "v2"',
            f'{M}.storageUri: Invalid value: "": must not be empty',
            f'{P}.timout: Unknown field: did you mean "timeout"?',
        ],
        id="four-at-once",
    ),
]


@pytest.mark.parametrize(("predictor", "errors"), WRONG)
def test_wrong_predictor_gets_all_its_errors(predictor: Any, errors: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        parse(predictor)
    assert [str(error) for error in refused.value.errors] == errors


NAME = "must consist of lower case letters, digits or '-', start with a letter and end with no '-'"
ANNOTATION = f"metadata.annotations[{GROUP}/"


@pytest.mark.parametrize(
    ("metadata", "errors"),
    [
        pytest.param({"name": None}, ["metadata.name: Required value"], id="no-name"),
        pytest.param({"name": "Iris"}, [f'metadata.name: Invalid value: "Iris": {NAME}'], id="upper-case"),
        pytest.param({"name": "1iris"}, [f'metadata.name: Invalid value: "1iris": {NAME}'], id="digit-first"),
        pytest.param({"name": "iris-"}, [f'metadata.name: Invalid value: "iris-": {NAME}'], id="dash-last"),
        pytest.param(
            {"name": "i" * 60},
            [
                f'metadata.name: Invalid value: "{"i" * 60}": too long: its objects are named {"i" * 60}-predictor, '
                "70 characters, the limit is 63"
            ],
            id="too-long",
        ),
        pytest.param(
            {"annotations": {f"{GROUP}/deploymentMode": "ModelMesh"}},
            [
                f'{ANNOTATION}deploymentMode]: Unsupported value: "ModelMesh": '
                'supported values: "Knative", "RawDeployment", "Serverless", "Standard"'
            ],
            id="mode",
        ),
        pytest.param(
            {"annotations": {f"{GROUP}/autoscalerClass": "vpa"}},
            [
                f'{ANNOTATION}autoscalerClass]: Unsupported value: "vpa": '
                'supported values: "external", "hpa", "keda", "none"'
            ],
            id="autoscaler",
        ),
    ],
)
def test_wrong_metadata_gets_all_its_errors(metadata: dict[str, Any], errors: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        parse({"model": MODEL}, **metadata)
    assert [str(error) for error in refused.value.errors] == errors


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        pytest.param({"spec": None}, ["spec: Required value"], id="no-spec"),
        pytest.param({"spec": {}}, ["spec.predictor: Required value"], id="no-predictor"),
        pytest.param({"spec": []}, ["spec: Invalid value: []: must be an object, found array"], id="spec-is-a-list"),
        pytest.param(
            {"spec": {"predictor": {"sklearn": {}}, "transformer": {}}},
            [
                'spec.transformer: Invalid value: "none": exactly one of [containers] must be specified in '
                "TransformerSpec"
            ],
            id="transformer",
        ),
        pytest.param(
            {"spec": {"predictor": {"sklearn": {}}, "explainer": {}, "canary": []}},
            [
                "spec.canary: Forbidden: canaries: not supported by Servery yet",
                'spec.explainer: Invalid value: "none": exactly one of [art, containers] must be specified in '
                "ExplainerSpec",
            ],
            id="explainer-and-canary",
        ),
        pytest.param(
            {"spec": {"predictor": {"sklearn": {}}, "explainer": {"alibi": {"type": "AnchorText"}}}},
            [
                "spec.explainer.alibi: Forbidden: KServe serves these no more; explain with art, or with containers such "
                "as servery/explainer-shap"
            ],
            id="explainer-of-the-past",
        ),
    ],
)
def test_wrong_spec_gets_all_its_errors(change: dict[str, Any], errors: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        DIALECT.parse({**manifest({"sklearn": {}}), **change}, Catalog())
    assert [str(error) for error in refused.value.errors] == errors


def test_metric_that_kubernetes_does_not_measure_is_asked_of_an_adapter() -> None:
    annotations = {f"{GROUP}/metric": "gpu-utilization", f"{GROUP}/targetUtilizationPercentage": "70"}
    service = parse({"model": MODEL}, annotations=annotations)
    (metric,) = service.predictor.scaling.metrics
    assert metric["pods"]["metric"] == {"name": "gpu-utilization"}
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "70"}
    (warning,) = service.warnings
    assert warning.startswith("metric 'gpu-utilization': ")
    assert "custom.metrics.k8s.io" in warning
