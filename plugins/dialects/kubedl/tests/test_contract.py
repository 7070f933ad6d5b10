from __future__ import annotations

from typing import Any

from servery_dialect_kubedl import kinds
from servery_dialect_kubedl.plugin import KubeDLDialect
from servery_sdk.manifests import Namespace, ObjectRef
from servery_sdk.model import Catalog
from servery_sdk.testing import DialectContract, WrongManifest

SERVING = "serving.kubedl.io/v1alpha1"
ARGS = ["--port=9000", "--rest_api_port=8500", "--model_name=mnist", "--model_base_path=/kubedl-model/"]
CONTAINER = {"name": "tensorflow", "image": "tensorflow/serving:1.11.1", "args": ARGS}


def inference(*predictors: Any, framework: Any = "TFServing", **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": SERVING,
        "kind": "Inference",
        "metadata": {"name": "hello", "namespace": "demo", **metadata},
        "spec": {"framework": framework, "predictors": list(predictors)},
    }


def predictor(name: Any = "a", container: Any = None, pod: Any = None, **fields: Any) -> dict[str, Any]:
    spec = {"containers": [{**CONTAINER, **(container or {})}], **(pod or {})}
    return {"name": name, "template": {"spec": spec}, **fields}


def version(name: str, spec: Any = None, status: Any = None) -> tuple[ObjectRef, dict[str, Any]]:
    manifest = {
        "apiVersion": "model.kubedl.io/v1alpha1",
        "kind": "ModelVersion",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": spec or {},
        "status": status or {},
    }
    return ObjectRef(kinds.MODEL_VERSION, Namespace("demo"), name), manifest


BUILT = {"image": "r/mnist:abcde", "imageBuildPhase": "ImageBuildSucceeded"}
AT = "spec.predictors[0]"
POD = f"{AT}.template.spec"


class TestKubeDL(DialectContract):
    dialect = KubeDLDialect()
    catalog = Catalog(
        objects=dict(
            [
                version("built", {"modelName": "mnist"}, BUILT),
                version("local", {"storage": {"localStorage": {"path": "/models/a", "nodeName": "n1"}}}),
                version("shared", {"storage": {"nfs": {"server": "s", "path": "/a"}}}),
                version("elastic", {"storage": {"AWSEfs": {"volumeHandle": "fs-1"}}}),
                version("empty", {"modelName": "mnist"}, {"imageBuildPhase": "ImageBuilding", "image": "r/a:b"}),
                version("twice", {"storage": {"localStorage": {"path": "/a"}, "nfs": {"server": "s", "path": "/"}}}),
                version("vague", {"storage": {"nfs": {"path": "a"}}}),
                version("broken", {"storage": {"nfs": "somewhere"}}),
            ]
        )
    )
    good = {  # noqa: RUF012  # never changed
        "one": inference(predictor(modelVersion="built")),
        "without-a-model": inference(predictor()),
        "storages": inference(
            predictor("a", modelVersion="local"),
            predictor("b", modelVersion="shared"),
            predictor("c", modelVersion="elastic"),
            predictor("d", modelVersion="not-there-yet"),
        ),
        "everything": inference(
            predictor(
                "model-a",
                {
                    "ports": [
                        {"containerPort": 9000},
                        {"containerPort": 8500},
                        {"name": "side", "containerPort": 7000},
                    ],
                    "env": [{"name": "A", "value": "b"}],
                    "volumeMounts": [{"name": "own", "mountPath": "/own"}],
                    "resources": {"limits": {"cpu": "2048m"}, "requests": {"cpu": "1024m"}},
                },
                {
                    "volumes": [{"name": "own", "emptyDir": {}}],
                    "initContainers": [{"name": "before", "image": "acme/before:1"}],
                    "nodeSelector": {"disk": "ssd"},
                },
                modelVersion="built",
                modelPath="/kubedl-model",
                replicas=3,
                trafficPercentage=90,
                autoScale={"minReplicas": 1, "maxReplicas": 10, "autoScaler": {"kind": "HorizontalPodAutoscaler"}},
                batching={"batchSize": 32, "timeoutSeconds": 2},
            ),
            {
                **predictor("model-b", trafficWeight=10, trafficPercent=10),
                "template": {
                    "metadata": {"labels": {"team": "x"}, "annotations": {"b": "c"}},
                    "spec": {"containers": [{"name": "side", "image": "s:1"}, {**CONTAINER, "name": "predictor"}]},
                },
            },
        ),
        "triton": inference(
            predictor(
                container={"image": "acme/tritonserver:1", "args": ["--model-repository", "/kubedl-model"]},
                modelVersion="local",
            ),
            framework="Triton",
        ),
    }
    wrong = {  # noqa: RUF012  # never changed
        "nothing": WrongManifest({"apiVersion": SERVING, "kind": "Inference"}, ("metadata", "spec")),
        "names": WrongManifest(
            inference(predictor("a"), predictor("a"), predictor("B"), predictor(""), name="Hello"),
            ("metadata.name", "spec.predictors[1].name", "spec.predictors[2].name", "spec.predictors[3].name"),
        ),
        "framework": WrongManifest(
            inference({"name": "a"}, framework="TFserving"), ("spec.framework", f"{AT}.template")
        ),
        "no-predictors": WrongManifest(inference(), ("spec.predictors",)),
        "weights": WrongManifest(
            inference(
                predictor("a", trafficWeight=0),
                predictor("b", trafficWeight=0, trafficPercent=5, trafficPercentage=-1),
            ),
            (
                "spec.predictors",
                "spec.predictors[1].trafficPercent",
                "spec.predictors[1].trafficPercentage",
                "spec.predictors[1].trafficPercentage",
            ),
        ),
        "scaling": WrongManifest(
            inference(
                predictor(
                    replicas=-1,
                    autoScale={"minReplicas": 4, "maxReplicas": 2, "autoScaler": {"kind": "Sun"}, "target": 1},
                )
            ),
            (
                f"{AT}.autoScale.autoScaler.kind",
                f"{AT}.autoScale.maxReplicas",
                f"{AT}.autoScale.target",
                f"{AT}.replicas",
            ),
        ),
        "batching": WrongManifest(
            inference(predictor("a", batching={"timeoutSeconds": -1}), predictor("b", batching={"batchSize": 0})),
            (
                f"{AT}.batching.batchSize",
                f"{AT}.batching.timeoutSeconds",
                "spec.predictors[1].batching.batchSize",
            ),
        ),
        "model": WrongManifest(
            inference(
                predictor("a", modelVersion="No", modelPath="models/../x"),
                predictor("b", modelVersion="built", modelPath="/"),
            ),
            (f"{AT}.modelPath", f"{AT}.modelVersion", "spec.predictors[1].modelPath"),
        ),
        "model-versions": WrongManifest(
            inference(
                predictor("a", modelVersion="empty"),
                predictor("b", modelVersion="twice"),
                predictor("c", modelVersion="vague"),
                predictor("d", modelVersion="broken"),
            ),
            (
                f"{AT}.modelVersion",
                "spec.predictors[1].modelVersion",
                "spec.predictors[2].modelVersion",
                "spec.predictors[2].modelVersion",
                "spec.predictors[3].modelVersion",
            ),
        ),
        "containers": WrongManifest(
            inference(
                {"name": "a", "template": {"spec": {"containers": []}}},
                {"name": "b", "template": {"spec": {"containers": [{"image": "i"}, {"name": "c"}], "nodeName": 1}}},
                {"name": "c", "template": {"spec": {"nodename": "n"}}},
            ),
            (
                f"{POD}.containers",
                "spec.predictors[1].template.spec.containers[0].name",
                "spec.predictors[1].template.spec.containers[1].image",
                "spec.predictors[1].template.spec.nodeName",
                "spec.predictors[2].template.spec.containers",
                "spec.predictors[2].template.spec.nodename",
            ),
        ),
        "ports-and-resources": WrongManifest(
            inference(
                predictor(
                    container={
                        "ports": [{}, {"containerPort": 0}, {"containerPort": "80"}],
                        "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2048m"}},
                    }
                )
            ),
            (
                f"{POD}.containers[0].ports[0].containerPort",
                f"{POD}.containers[0].ports[1].containerPort",
                f"{POD}.containers[0].ports[2].containerPort",
                f"{POD}.containers[0].resources.requests[cpu]",
            ),
        ),
        "ports-of-the-service": WrongManifest(
            inference(predictor(container={"ports": [{"containerPort": 9000}, {"containerPort": 8080}]})),
            (f"{POD}.containers[0].ports[1].containerPort",),
        ),
        "names-in-the-pod": WrongManifest(
            inference(
                predictor(
                    container={"volumeMounts": [{"name": "own", "mountPath": "/kubedl-model/built/"}]},
                    pod={
                        "volumes": [{"name": "own"}, {"name": "own"}, {"name": "kubedl-model-loader"}],
                        "initContainers": [{"name": "kubedl-model-loader", "image": "i"}],
                    },
                    modelVersion="built",
                )
            ),
            (
                f"{POD}.containers[0].volumeMounts[0].mountPath",
                f"{POD}.initContainers[0].name",
                f"{POD}.volumes[1].name",
                f"{POD}.volumes[2].name",
            ),
        ),
        "unknown-fields": WrongManifest(
            inference({**predictor(), "trafficweight": 1, "modelversion": "a"}),
            (f"{AT}.modelversion", f"{AT}.trafficweight"),
        ),
    }
