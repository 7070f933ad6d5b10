"""What an Inference means, table by table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_dialect_kubedl import kinds
from servery_dialect_kubedl.plugin import KubeDLDialect
from servery_dialect_kubedl.traffic import percents
from servery_sdk.errors import Invalid
from servery_sdk.manifests import Namespace, ObjectRef
from servery_sdk.model import AutoscalerClass, Catalog, Component, InferenceService

DIALECT = KubeDLDialect()
SERVER = "/usr/bin/tensorflow_model_server"


def manifest(*predictors: dict[str, Any], framework: str = "TFServing") -> dict[str, Any]:
    return {
        "apiVersion": kinds.INFERENCE.api_version,
        "kind": "Inference",
        "metadata": {"name": "hello", "namespace": "demo", "uid": "u"},
        "spec": {"framework": framework, "predictors": list(predictors)},
    }


def predictor(*containers: dict[str, Any], name: str = "a", pod: Any = None, **fields: Any) -> dict[str, Any]:
    given = containers or ({},)
    made = [{"name": "server", "image": "tensorflow/serving:1.11.1", **container} for container in given]
    return {"name": name, "template": {"spec": {"containers": made, **(pod or {})}}, **fields}


def parsed(*predictors: dict[str, Any], framework: str = "TFServing", **versions: dict[str, Any]) -> InferenceService:
    """Parse an Inference of ``predictors``, beside ModelVersions by name."""
    objects = {
        ObjectRef(kinds.MODEL_VERSION, Namespace("demo"), name): {
            "apiVersion": kinds.MODEL_VERSION.api_version,
            "kind": "ModelVersion",
            "metadata": {"name": name, "namespace": "demo"},
            **version,
        }
        for name, version in versions.items()
    }
    return DIALECT.parse(manifest(*predictors, framework=framework), Catalog(objects=objects))


def only(service: InferenceService) -> Component:
    (component,) = service.components
    return component


def main(component: Component) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in component.pod["containers"] if c["name"] == component.main_container)
    return found


BUILT = {
    "spec": {"modelName": "mnist", "storage": {"localStorage": {"path": "/models"}}},
    "status": {"image": "r/mnist:abcde", "imageBuildPhase": "ImageBuildSucceeded"},
}


def stored(**storage: Any) -> dict[str, Any]:
    return {"spec": {"modelName": "mnist", "storage": storage}}


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([{}], [100]),
        ([{"trafficWeight": 0}], [100]),
        ([{"trafficWeight": 90}, {"trafficWeight": 10}], [90, 10]),
        ([{"trafficPercent": 90}, {"trafficPercentage": 10}], [90, 10]),
        ([{"trafficWeight": 9, "trafficPercent": 9}, {"trafficPercentage": 1}], [90, 10]),
        ([{}, {}], [50, 50]),
        ([{}, {"trafficWeight": 50}], [67, 33]),
        ([{"trafficWeight": 33}, {"trafficWeight": 33}, {"trafficWeight": 33}], [34, 33, 33]),
        ([{"trafficWeight": 1}, {"trafficWeight": 2}], [33, 67]),
        ([{"trafficWeight": 0}, {"trafficWeight": 3}], [0, 100]),
    ],
)
def test_shares_are_whole_percents_of_all_weights(weights: list[dict[str, int]], shares: list[int]) -> None:
    service = parsed(*(predictor(name=f"p{index}", **weight) for index, weight in enumerate(weights)))
    assert [component.traffic_percent for component in service.components] == shares


@given(st.lists(st.integers(0, 2**31 - 1), min_size=2, max_size=12).filter(any))
def test_shares_sum_to_a_hundred_and_are_off_by_less_than_one(weights: list[int]) -> None:
    shares = percents(weights)
    assert sum(shares) == 100
    for weight, share in zip(weights, shares, strict=True):
        assert abs(share * sum(weights) - weight * 100) < sum(weights)


def test_names_and_labels_are_kubedls() -> None:
    template = {"metadata": {"labels": {"team": "x", kinds.PREDICTOR_LABEL: "mine"}, "annotations": {"b": "c"}}}
    given = predictor(modelVersion="mv")
    given["template"] |= template
    service = parsed(given, mv=BUILT)
    component = only(service)
    selector = {"kubedl.io/inference-name": "hello", "kubedl.io/predictor-name": "a"}
    assert (component.object_name, component.selector) == ("hello-a", selector)
    assert component.labels == {**selector, "team": "x", "kubedl.io/model-version": "mv"}
    assert component.annotations == {"b": "c"}
    assert service.owned_labels == {"kubedl.io/inference-name": "hello"}
    assert service.entry is not None
    assert (service.entry.name, service.entry.selector) == ("hello", service.owned_labels)


PAGE_ARGS = ["--port=9000", "--rest_api_port=8500"]


@pytest.mark.parametrize(
    ("framework", "container", "ports"),
    [
        ("TFServing", {"args": PAGE_ARGS, "ports": [9000, 8500]}, [8500, 9000]),
        ("TFServing", {"args": PAGE_ARGS}, [8500, 9000]),
        ("TFServing", {"command": [SERVER, *PAGE_ARGS], "ports": [7000]}, [8500, 9000, 7000]),
        ("TFServing", {"args": ["--rest_api_port=1", "--rest_api_port=2"]}, [2, 8500]),
        ("TFServing", {"args": ["--rest_api_port=$(PORT)"], "command": [SERVER]}, [8080, 9000]),
        ("TFServing", {}, [8501, 8500]),
        ("TFServing", {"command": [SERVER]}, [8080, 9000]),
        ("TFServing", {"image": "acme/server:1"}, [8080, 9000]),
        ("TFServing", {"image": "acme/server:1", "ports": [9000, 5000]}, [5000, 9000]),
        ("TFServing", {"image": "acme/server:1", "ports": [8500, 8501]}, [8501, 8500]),
        ("TFServing", {"image": "acme/server:1", "args": ["--port=8080"], "ports": [8080]}, [8080]),
        ("Triton", {"image": "acme/tritonserver:22.08-py3"}, [8000, 8001]),
        ("Triton", {"image": "acme/tritonserver:22.08-py3", "args": ["--http-port", "81"]}, [81, 8001]),
    ],
)
def test_port_of_rest_comes_first_then_that_of_grpc(framework: str, container: Any, ports: list[int]) -> None:
    declared = [{"containerPort": number} for number in container.get("ports", ())]
    component = only(parsed(predictor({**container, "ports": declared}), framework=framework))
    assert [port["containerPort"] for port in main(component)["ports"]] == ports
    assert component.exposed_as == (8080, 9000)[: len(ports)]


def test_kubedls_names_of_ports_are_understood_and_shortened() -> None:
    ports = [
        {"name": "predictor-grpc-port", "containerPort": 5},
        {"name": "predictor-http-port", "containerPort": 6},
        {"name": "metrics", "containerPort": 7},
    ]
    found = main(only(parsed(predictor({"image": "acme/server:1", "ports": ports}))))
    assert [(port["name"], port["containerPort"]) for port in found["ports"]] == [
        ("http", 6),
        ("grpc", 5),
        ("metrics", 7),
    ]


@pytest.mark.parametrize(
    ("names", "answers"), [(["x", "y"], "x"), (["x", "predictor"], "predictor")], ids=["first", "named"]
)
def test_container_named_predictor_answers_and_alone_gets_the_model(names: list[str], answers: str) -> None:
    component = only(parsed(predictor(*({"name": name} for name in names), modelVersion="mv"), mv=BUILT))
    assert component.main_container == answers
    with_model = [c["name"] for c in component.pod["containers"] if c.get("volumeMounts")]
    assert with_model == [answers]


def test_image_of_a_version_is_copied_by_the_loader_as_in_kubedl() -> None:
    before = {"name": "before", "image": "acme/before:1"}
    pod = {"initContainers": [before], "volumes": [{"name": "own", "emptyDir": {}}]}
    component = only(parsed(predictor(pod=pod, modelVersion="mv"), mv=BUILT))
    assert component.pod["initContainers"] == [
        before,
        {
            "name": "kubedl-model-loader",
            "image": "r/mnist:abcde",
            "command": ["/bin/sh", "-c", "cp -r /kubedl-model/* /mnt/kubedl-model/"],
            "volumeMounts": [{"name": "kubedl-model-loader", "mountPath": "/mnt/kubedl-model/"}],
        },
    ]
    assert component.pod["volumes"] == [*pod["volumes"], {"name": "kubedl-model-loader", "emptyDir": {}}]
    assert component.env == {
        "KUBEDL_MODEL_PATH": "/kubedl-model/mv",
        "MODEL_BASE_PATH": "/kubedl-model",
        "MODEL_NAME": "mnist",
    }


@pytest.mark.parametrize(
    ("version", "source", "node"),
    [
        (
            stored(localStorage={"path": "/models/a", "nodeName": "n1"}),
            {"hostPath": {"path": "/models/a", "type": "Directory"}},
            {"disk": "ssd", "kubernetes.io/hostname": "n1"},
        ),
        (
            stored(localStorage={"path": "file:///models/a"}),
            {"hostPath": {"path": "/models/a", "type": "Directory"}},
            {"disk": "ssd"},
        ),
        (
            stored(nfs={"server": "s", "path": "/a"}),
            {"nfs": {"server": "s", "path": "/a", "readOnly": True}},
            {"disk": "ssd"},
        ),
        (
            stored(AWSEfs={"volumeHandle": "fs-1"}),
            {"persistentVolumeClaim": {"claimName": "mv-pvc-mv", "readOnly": True}},
            {"disk": "ssd"},
        ),
        (None, {"persistentVolumeClaim": {"claimName": "mv-pvc-mv", "readOnly": True}}, {"disk": "ssd"}),
        (
            {**BUILT, "status": {"image": "r/mnist:abcde", "imageBuildPhase": "ImageBuilding"}},
            {"hostPath": {"path": "/models", "type": "Directory"}},
            {"disk": "ssd"},
        ),
    ],
    ids=["node", "this-machine", "nfs", "efs", "not-there-yet", "still-building"],
)
def test_storage_of_a_version_is_mounted(version: Any, source: Any, node: dict[str, str]) -> None:
    versions = {} if version is None else {"mv": version}
    component = only(parsed(predictor(pod={"nodeSelector": {"disk": "ssd"}}, modelVersion="mv"), **versions))
    assert component.pod["volumes"] == [{"name": "kubedl-model-loader", **source}]
    assert component.pod["nodeSelector"] == node
    assert "initContainers" not in component.pod
    assert [mount["readOnly"] for mount in main(component)["volumeMounts"]] == [True]


@pytest.mark.parametrize(
    ("version", "container", "fields", "paths"),
    [
        (BUILT, {"command": [SERVER]}, {}, ["/kubedl-model/mv"]),
        (BUILT, {}, {"modelPath": "/m/x/"}, ["/m/x"]),
        (BUILT, {"args": ["--model_base_path=/kubedl-model/"]}, {}, ["/kubedl-model/mv", "/kubedl-model"]),
        (BUILT, {"args": ["--model_base_path=/kubedl-model/mv/x"]}, {}, ["/kubedl-model/mv"]),
        (BUILT, {"args": ["--model_base_path=s3://bucket"]}, {}, ["/kubedl-model/mv"]),
        (BUILT, {}, {}, ["/kubedl-model/mv", "/kubedl-model/mnist"]),
        (BUILT, {"env": [{"name": "MODEL_NAME", "value": "mv"}]}, {}, ["/kubedl-model/mv"]),
        (
            BUILT,
            {"args": ["--model_base_path=/own/m"], "volumeMounts": [{"name": "o", "mountPath": "/own"}]},
            {},
            ["/own", "/kubedl-model/mv"],
        ),
        (stored(nfs={"server": "s", "path": "/"}), {"args": ["--model_base_path=/m"]}, {}, ["/m"]),
        (stored(nfs={"server": "s", "path": "/"}), {"command": [SERVER]}, {}, ["/kubedl-model/mv"]),
    ],
)
def test_model_is_where_kubedl_says_and_where_the_server_looks(
    version: Any, container: Any, fields: Any, paths: list[str]
) -> None:
    component = only(parsed(predictor(container, modelVersion="mv", **fields), mv=version))
    assert [mount["mountPath"] for mount in main(component)["volumeMounts"]] == paths
    own = [path for path in paths if path != "/own"]
    assert component.env["KUBEDL_MODEL_PATH"] == own[0]


@pytest.mark.parametrize(
    ("framework", "fields", "env"),
    [
        ("TFServing", {}, {}),
        ("TFServing", {"modelPath": "/m/x"}, {"KUBEDL_MODEL_PATH": "/m/x", "MODEL_BASE_PATH": "/m"}),
        ("Triton", {"modelPath": "/m/x"}, {"KUBEDL_MODEL_PATH": "/m/x"}),
    ],
)
def test_variables_say_where_the_model_is_and_nothing_where_there_is_none(
    framework: str, fields: Any, env: dict[str, str]
) -> None:
    component = only(parsed(predictor(**fields), framework=framework))
    assert component.env == env
    assert "volumes" not in component.pod


HPA, KEDA, EXTERNAL, NONE = AutoscalerClass.HPA, AutoscalerClass.KEDA, AutoscalerClass.EXTERNAL, AutoscalerClass.NONE


@pytest.mark.parametrize(
    ("fields", "scaling"),
    [
        ({}, (1, None, None, NONE)),
        ({"replicas": 0}, (0, None, None, NONE)),
        ({"replicas": 3}, (3, None, None, NONE)),
        ({"replicas": 3, "autoScale": {"minReplicas": 1, "maxReplicas": 10}}, (1, 10, 3, HPA)),
        ({"autoScale": {"maxReplicas": 10}}, (1, 10, None, HPA)),
        ({"replicas": 3, "autoScale": {}}, (1, 3, 3, HPA)),
        ({"autoScale": {"minReplicas": 2}}, (2, 2, None, HPA)),
        ({"autoScale": {"autoScaler": {"kind": "ScaledObject"}}}, (1, 1, None, KEDA)),
        ({"autoScale": {"autoScaler": {"kind": "Sun", "name": "mine"}}}, (1, 1, None, EXTERNAL)),
    ],
)
def test_replicas_stay_unless_something_scales_them(fields: Any, scaling: tuple[Any, ...]) -> None:
    found = only(parsed(predictor(**fields))).scaling
    assert (found.min_replicas, found.max_replicas, found.initial_replicas, found.autoscaler_class) == scaling


def test_replicas_outside_the_autoscalers_bounds_are_worth_a_word() -> None:
    service = parsed(predictor(replicas=1, autoScale={"minReplicas": 2, "maxReplicas": 4}))
    (warning,) = service.warnings
    assert warning.startswith("spec.predictors[0].replicas: 1 is outside autoScale's 2 to 4")


def test_batches_are_as_large_and_wait_as_long_as_asked() -> None:
    batching = only(parsed(predictor(batching={"batchSize": 32, "timeoutSeconds": 2}))).batching
    assert batching is not None
    assert (batching.max_batch_rows, batching.max_latency_seconds, batching.timeout_seconds) == (32, 2, None)
    assert only(parsed(predictor())).batching is None


def test_versions_are_looked_up_in_the_inferences_own_namespace() -> None:
    given = manifest(predictor(modelVersion="x"), predictor(name="b"), predictor(name="c", modelVersion="y"))
    assert DIALECT.references(given) == {
        ObjectRef(kinds.MODEL_VERSION, Namespace("demo"), "x"),
        ObjectRef(kinds.MODEL_VERSION, Namespace("demo"), "y"),
    }


def test_errors_say_what_was_found_and_what_to_do() -> None:
    given = manifest(
        predictor(name="a", trafficWeight=90, trafficPercentage=80),
        predictor(name="b", autoScale={"minReplicas": 3, "maxReplicas": 2}),
        framework="PyTorch",
    )
    with pytest.raises(Invalid) as refused:
        DIALECT.parse(given, Catalog())
    assert [str(error) for error in refused.value.errors] == [
        'spec.framework: Unsupported value: "PyTorch": supported values: "TFServing", "Triton"',
        "spec.predictors[0].trafficPercentage: Invalid value: 80: trafficWeight says 90, and they are one field",
        "spec.predictors[1].autoScale.maxReplicas: Invalid value: 2: must be greater than or equal to minReplicas (3)",
    ]
