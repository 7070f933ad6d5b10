from __future__ import annotations

from typing import Any

from servery_dialect_kserve.plugin import KServeDialect
from servery_sdk.testing import DialectContract, WrongManifest

GROUP = "serving.kserve.io"


def service(predictor: Any, beside: Any = {}, **metadata: Any) -> dict[str, Any]:  # noqa: B006  # never changed
    return {
        "apiVersion": f"{GROUP}/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris", "namespace": "demo", **metadata},
        "spec": {"predictor": predictor, **beside},
    }


def runtime(kind: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": kind,
        "metadata": {"name": "acme"},
        "spec": {"containers": [{"name": "kserve-container", "image": "acme/server:1"}], **spec},
    }


MODEL = {"modelFormat": {"name": "sklearn", "version": "1"}, "storageUri": "s3://bucket/model"}
FORMATS = [{"name": "acme", "version": "1", "autoSelect": True, "priority": 1}]


class TestKServe(DialectContract):
    dialect = KServeDialect()
    good = {  # noqa: RUF012  # never changed
        "model": service({"model": MODEL}),
        "framework-field": service({"sklearn": {"storageUri": "pvc://claim/model", "args": ["--workers=2"]}}),
        "named-predictor": service({"name": "blue", "model": MODEL}),
        "own-container": service({"containers": [{"image": "acme/model:1", "ports": [{"containerPort": 9000}]}]}),
        "everything": service(
            {
                "model": {
                    **MODEL,
                    "runtime": "acme",
                    "protocolVersion": "v2",
                    "resources": {"limits": {"cpu": 1, "memory": "1Gi"}},
                    "env": [{"name": "A", "value": "b"}],
                },
                "containers": [{"name": "side", "image": "acme/side:1"}],
                "serviceAccountName": "reader",
                "nodeSelector": {"disk": "ssd"},
                "minReplicas": 1,
                "maxReplicas": 3,
                "scaleMetric": "cpu",
                "scaleTarget": 70,
                "timeout": 30,
                "labels": {"team": "a"},
                "annotations": {"b": "c"},
            },
            labels={"x": "y"},
            annotations={f"{GROUP}/deploymentMode": "Standard", f"{GROUP}/autoscalerClass": "hpa"},
        ),
        "several-sources": service(
            {"sklearn": {}, "storageUris": [{"uri": "s3://a/b", "mountPath": "/mnt/a"}, {"uri": "gs://c/d"}]}
        ),
        "credential-entry": service({"sklearn": {"storage": {"key": "k", "path": "p", "parameters": {"bucket": "b"}}}}),
        "transformer-and-explainer": service(
            {"model": MODEL},
            {
                "transformer": {
                    "containers": [{"image": "acme/transformer:1", "args": ["--predictor_protocol=v2"]}],
                    "minReplicas": 2,
                    "timeout": 10,
                    "labels": {"team": "a"},
                },
                "explainer": {
                    "containers": [
                        {"name": "kserve-container", "image": "acme/explainer:1"},
                        {"name": "side", "image": "acme/side:1"},
                    ],
                    "storageUris": [{"uri": "s3://a/b"}],
                },
            },
        ),
        "art": service(
            {"model": MODEL},
            {
                "explainer": {
                    "art": {
                        "type": "SquareAttack",
                        "config": {"nb_classes": "3", "max_iter": "10"},
                        "storageUri": "s3://bucket/explainer",
                        "runtimeVersion": "0.2",
                        "resources": {"limits": {"cpu": "2"}},
                        "args": ["--threads=2"],
                    },
                    "serviceAccountName": "reader",
                }
            },
        ),
        "runtime": runtime("ServingRuntime", supportedModelFormats=FORMATS, protocolVersions=["v1", "grpc-v2"]),
        "cluster-runtime": runtime("ClusterServingRuntime", supportedModelFormats=FORMATS, nodeSelector={"a": "b"}),
    }
    wrong = {  # noqa: RUF012  # never changed
        "nothing": WrongManifest({"apiVersion": f"{GROUP}/v1beta1", "kind": "InferenceService"}, ("metadata", "spec")),
        "metadata-and-spec": WrongManifest(
            service(
                {
                    "model": {**MODEL, "protocolVersion": "v9", "storageURI": "x"},
                    "minReplicas": 3,
                    "maxReplicas": 1,
                    "timout": 5,
                },
                name="Iris",
                annotations={f"{GROUP}/deploymentMode": "Sometimes"},
            ),
            (
                "metadata.annotations[serving.kserve.io/deploymentMode]",
                "metadata.name",
                "spec.predictor.maxReplicas",
                "spec.predictor.model.protocolVersion",
                "spec.predictor.model.storageURI",
                "spec.predictor.timout",
            ),
        ),
        "lists": WrongManifest(
            service(
                {
                    "sklearn": {"env": [{"name": "A"}, {"name": "PYTHONPATH"}]},
                    "storageUris": [{"uri": "s3://a", "mountPath": "/a"}, {"mountPath": "/a"}],
                }
            ),
            (
                "spec.predictor.sklearn.env[1].name",
                "spec.predictor.storageUris[1].mountPath",
                "spec.predictor.storageUris[1].uri",
            ),
        ),
        "transformer-and-explainer": WrongManifest(
            service(
                {"model": MODEL},
                {
                    "transformer": {
                        "containers": [{"name": "a", "image": "a"}, {"name": "b"}],
                        "minReplicas": 3,
                        "maxReplicas": 1,
                        "logger": {},
                        "model": MODEL,
                    },
                    "explainer": {
                        "art": {"type": "DeepFool", "storageUri": "", "env": [{"name": "PYTHONPATH"}]},
                        "storageUris": [{"uri": "s3://a", "mountPath": "/"}],
                    },
                },
            ),
            (
                "spec.explainer.art.env[0].name",
                "spec.explainer.art.storageUri",
                "spec.explainer.art.type",
                "spec.explainer.storageUris",
                "spec.explainer.storageUris[0].mountPath",
                "spec.transformer.containers",
                "spec.transformer.containers[1].image",
                "spec.transformer.logger.mode",
                "spec.transformer.maxReplicas",
                "spec.transformer.model",
            ),
        ),
        "runtime": WrongManifest(
            runtime(
                "ServingRuntime", supportedModelFormats=[{"priority": 0}], protocolVersions=["v7"], multimodel=True
            ),
            (
                "spec.multimodel",
                "spec.protocolVersions[0]",
                "spec.supportedModelFormats[0].name",
                "spec.supportedModelFormats[0].priority",
            ),
        ),
        "cluster-runtime": WrongManifest(
            {**runtime("ClusterServingRuntime", containers=[{"name": "a"}, {"name": "b"}]), "metadata": {}},
            ("metadata.name", "spec.containers"),
        ),
    }
