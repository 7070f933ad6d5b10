from __future__ import annotations

from typing import Any

from servery_dialect_ome import kinds
from servery_dialect_ome.plugin import OMEDialect
from servery_sdk.manifests import CLUSTER, ObjectRef
from servery_sdk.model import Catalog
from servery_sdk.testing import DialectContract, WrongManifest

VERSION = "ome.io/v1beta1"
MODE = "metadata.annotations[ome.io/deploymentMode]"


def service(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": VERSION,
        "kind": "InferenceService",
        "metadata": {"name": "llama", "namespace": "demo", **metadata},
        "spec": spec,
    }


def runtime(kind: str, **spec: Any) -> dict[str, Any]:
    made = {"engineConfig": {"runner": {"name": "ome-container", "image": "acme/server:1"}}, **spec}
    return {"apiVersion": VERSION, "kind": kind, "metadata": {"name": "acme"}, "spec": made}


def model(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": VERSION,
        "kind": "ClusterBaseModel",
        "metadata": {"name": name},
        "spec": {
            "modelFormat": {"name": "safetensors", "version": "1.0.0"},
            "storage": {"storageUri": "hf://acme/llama", "path": "/raid/models/llama", "key": "hf-token"},
            **spec,
        },
    }


def cluster(kind: Any, name: str, spec: Any) -> tuple[ObjectRef, dict[str, Any]]:
    manifest = {"apiVersion": VERSION, "kind": kind.kind, "metadata": {"name": name}, "spec": spec}
    return ObjectRef(kind, CLUSTER, name), manifest


FOUND = dict(
    [
        (ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "base"), model("base", vendor="Acme & Sons")),
        (ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "off"), model("off", disabled=True)),
        (ObjectRef(kinds.CLUSTER_BASE_MODEL, CLUSTER, "silent"), model("silent", modelFormat=None)),
        cluster(
            kinds.FINE_TUNED_WEIGHT,
            "tuned",
            {
                "baseModelRef": {"name": "base"},
                "modelType": "LoRA",
                "hyperParameters": {"strategy": "lora"},
                "storage": {"storageUri": "hf://acme/tuned"},
            },
        ),
        cluster(
            kinds.ACCELERATOR_CLASS,
            "h100",
            {"discovery": {"nodeSelector": {"gpu": "h100"}}, "capabilities": {"memoryGB": "80Gi"}},
        ),
    ]
)
RUNNER = {"image": "acme/server:1", "ports": [{"containerPort": 9000}], "env": [{"name": "A", "value": "b"}]}


class TestOME(DialectContract):
    dialect = OMEDialect()
    catalog = Catalog(objects=FOUND)
    good = {  # noqa: RUF012  # never changed
        "smallest": service({"model": {"name": "base"}, "engine": {}}),
        "older": service(
            {
                "predictor": {
                    "model": {
                        "baseModel": "base",
                        "runtime": "acme",
                        "protocolVersion": "openAI",
                        "runtimeVersion": "2",
                        "modelConfiguration": {"maxTokens": 4096},
                        "args": ["--x"],
                    },
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                    "env": [{"name": "A", "value": "b"}],
                    "workerSpec": {"worldSize": 4, "resources": {"limits": {"nvidia.com/gpu": "1"}}},
                    "containers": [{"name": "side", "image": "acme/side:1"}],
                    "minReplicas": 1,
                    "maxReplicas": 1,
                },
                "compartmentID": "ocid1.compartment",
            },
            annotations={"ome.io/deploymentMode": "MultiNodeRayVLLM"},
        ),
        "older-with-a-uri": service({"predictor": {"model": {"storageUri": "s3://a/b", "runtime": "acme"}}}),
        "everything": service(
            {
                "model": {"name": "base", "kind": "ClusterBaseModel", "fineTunedWeights": ["tuned"]},
                "runtime": {"name": "acme"},
                "engine": {
                    "runner": RUNNER,
                    "minReplicas": 2,
                    "maxReplicas": 4,
                    "scaleMetric": "memory",
                    "scaleTarget": 70,
                    "maxUnavailable": "50%",
                    "timeoutSeconds": 30,
                    "containerConcurrency": 8,
                    "labels": {"team": "a"},
                    "annotations": {"b": "c"},
                    "nodeSelector": {"disk": "ssd"},
                    "deploymentStrategy": {"type": "Recreate"},
                },
                "decoder": {"leader": {"runner": RUNNER}, "worker": {"size": 2, "runner": RUNNER}},
                "router": {"config": {"POLICY": "random"}, "minReplicas": 1},
                "acceleratorSelector": {"acceleratorClass": "h100"},
            },
            labels={"x": "y"},
            annotations={
                "ome.io/deploymentMode": "PDDisaggregated",
                "ome.io/service-type": "LoadBalancer",
                "ome.io/volcano-queue": "q",
            },
        ),
        "own-containers": service(
            {
                "engine": {"runner": RUNNER},
                "router": {"runner": {**RUNNER, "name": "router"}},
                "model": {"name": "base"},
            }
        ),
        "keda": service(
            {
                "model": {"name": "base"},
                "engine": {"minReplicas": 0},
                "kedaConfig": {
                    "enableKeda": True,
                    "promServerAddress": "http://prometheus",
                    "customPromQuery": 'sum(x{app="%s"})',
                    "scalingThreshold": "5",
                    "scalingOperator": "GreaterThan",
                    "authenticationRef": {"name": "a"},
                    "authModes": "basic",
                },
            }
        ),
        "serverless": service(
            {"model": {"name": "base"}, "engine": {"canaryTrafficPercent": 10, "minReplicas": 0}},
            annotations={"ome.io/deployment-mode": "Serverless"},
        ),
        "runtime": runtime(
            "ServingRuntime",
            supportedModelFormats=[
                {
                    "modelFormat": {"name": "safetensors", "version": "1.0.0", "operator": "GreaterThan", "weight": 2},
                    "modelFramework": {"name": "transformers", "version": "4.43.1"},
                    "modelArchitecture": "LlamaForCausalLM",
                    "quantization": "fp8",
                    "autoSelect": True,
                    "priority": 2,
                }
            ],
            modelSizeRange={"min": "7B", "max": "9B"},
            protocolVersions=["openAI"],
            routerConfig={"runner": {"name": "router", "image": "acme/router:1"}},
            acceleratorRequirements={"acceleratorClasses": ["h100"]},
        ),
        "cluster-runtime": {
            **runtime("ClusterServingRuntime"),
            "spec": {
                "containers": [{"name": "ome-container", "image": "acme/server:1"}, {"name": "side", "image": "a/b"}],
                "workers": {"size": 1},
                "supportedModelFormats": [{"name": "safetensors", "version": "1"}],
            },
        },
    }
    wrong = {  # noqa: RUF012  # never changed
        "nothing": WrongManifest({"apiVersion": VERSION, "kind": "InferenceService"}, ("metadata", "spec")),
        "no-engine": WrongManifest(service({"model": {"name": "base"}}), ("spec.engine",)),
        "no-runtime-to-choose": WrongManifest(service({"engine": {}}), ("spec.runtime",)),
        "metadata-and-spec": WrongManifest(
            service(
                {
                    "model": {"name": "base", "kind": "Model", "nam": "x"},
                    "engine": {"minReplicas": 3, "maxReplicas": 1, "timout": 5, "scaleTarget": 300},
                },
                name="Llama",
                annotations={"ome.io/deploymentMode": "Sometimes", "ome.io/autoscalerClass": "vpa"},
            ),
            (
                "metadata.annotations[ome.io/autoscalerClass]",
                MODE,
                "metadata.name",
                "spec.engine.maxReplicas",
                "spec.engine.scaleTarget",
                "spec.engine.timout",
                "spec.model.kind",
                "spec.model.nam",
            ),
        ),
        "names-that-are-not-there": WrongManifest(
            service(
                {
                    "model": {"name": "nope", "fineTunedWeights": ["nope"]},
                    "engine": {"acceleratorOverride": {"acceleratorClass": "nope"}},
                    "decoder": {},
                    "acceleratorSelector": {"acceleratorClass": "neither"},
                }
            ),
            (
                "spec.acceleratorSelector.acceleratorClass",
                "spec.engine.acceleratorOverride.acceleratorClass",
                "spec.model.fineTunedWeights[0]",
                "spec.model.name",
            ),
        ),
        "model-is-off": WrongManifest(service({"model": {"name": "off"}, "engine": {}}), ("spec.model.name",)),
        "model-without-a-format": WrongManifest(
            service({"model": {"name": "silent"}, "engine": {}}), ("spec.runtime",)
        ),
        "both-forms": WrongManifest(
            service(
                {
                    "model": {"name": "base"},
                    "runtime": {"name": "acme"},
                    "engine": {},
                    "predictor": {"model": {"baseModel": "base", "runtime": "acme", "storageUri": "s3://a/b"}},
                }
            ),
            (
                "spec.predictor",
                "spec.predictor.model.baseModel",
                "spec.predictor.model.runtime",
                "spec.predictor.model.storageUri",
            ),
        ),
        "older-of-an-unknown-model": WrongManifest(
            service(
                {
                    "predictor": {
                        "model": {"baseModel": "nope", "protocolVersion": "cohere", "modelConfig": {}},
                        "resources": {"limits": {"cpu": "lots"}},
                        "workerSpec": {"size": 1, "worldSize": 2},
                    }
                }
            ),
            (
                "spec.predictor.model.baseModel",
                "spec.predictor.model.modelConfig",
                "spec.predictor.model.protocolVersion",
                "spec.predictor.resources.limits[cpu]",
                "spec.predictor.workerSpec.worldSize",
            ),
        ),
        "choice-of-accelerators": WrongManifest(
            service(
                {
                    "model": {"name": "base"},
                    "engine": {"acceleratorOverride": {"policy": "Cheapest"}},
                    "acceleratorSelector": {"constraints": {"minMemory": 80}, "policy": "BestFit"},
                }
            ),
            (
                "spec.acceleratorSelector.constraints",
                "spec.acceleratorSelector.policy",
                "spec.engine.acceleratorOverride.policy",
            ),
        ),
        "annotations-without-a-meaning": WrongManifest(
            service(
                {"model": {"name": "base"}, "engine": {}},
                annotations={
                    "ome.io/deploymentMode": "VirtualDeployment",
                    "ome.io/inject-serving-sidecar": "true",
                    "rdma.ome.io/auto-inject": "true",
                    "ome.io/ingress-domain": "example.com",
                    "ome.io/service-type": "Public",
                    "ome.io/targetUtilizationPercentage": "150",
                },
            ),
            (
                MODE,
                "metadata.annotations[ome.io/ingress-domain]",
                "metadata.annotations[ome.io/inject-serving-sidecar]",
                "metadata.annotations[ome.io/service-type]",
                "metadata.annotations[ome.io/targetUtilizationPercentage]",
                "metadata.annotations[rdma.ome.io/auto-inject]",
            ),
        ),
        "keda": WrongManifest(
            service(
                {
                    "model": {"name": "base"},
                    "engine": {"kedaConfig": {"promServerAddress": "prometheus", "scalingThreshold": "many"}},
                    "kedaConfig": {"scalingOperator": "LessThan", "authModes": "basic,magic"},
                }
            ),
            (
                "spec.engine.kedaConfig.promServerAddress",
                "spec.engine.kedaConfig.scalingThreshold",
                "spec.kedaConfig.authModes",
                "spec.kedaConfig.authenticationRef",
                "spec.kedaConfig.scalingOperator",
            ),
        ),
        "mode-of-the-components": WrongManifest(
            service(
                {
                    "model": {"name": "base"},
                    "engine": {"canaryTrafficPercent": 10},
                    "router": {"minReplicas": 0, "annotations": {"ome.io/deploymentMode": "Serverless"}},
                },
                annotations={"ome.io/deploymentMode": "RawDeployment"},
            ),
            (
                "spec.engine.canaryTrafficPercent",
                "spec.router.annotations[ome.io/deploymentMode]",
                "spec.router.minReplicas",
            ),
        ),
        "pods": WrongManifest(
            service(
                {
                    "model": {"name": "base", "fineTunedWeights": ["tuned", "other"]},
                    "engine": {
                        "containers": [{"image": "x"}],
                        "runner": {"ports": [{"name": "http"}], "env": [{"value": "x"}]},
                        "minAvailable": 1,
                        "maxUnavailable": 1,
                    },
                    "decoder": {
                        "containers": [{"name": "a"}, {"name": "a"}],
                        "leader": {"runner": {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": 1}}}},
                        "worker": {"size": -1},
                    },
                }
            ),
            (
                "spec.decoder.containers[1].name",
                "spec.decoder.leader.runner.resources.requests[cpu]",
                "spec.decoder.worker.size",
                "spec.engine.containers[0].name",
                "spec.engine.maxUnavailable",
                "spec.engine.runner.env[0].name",
                "spec.engine.runner.ports[0].containerPort",
                "spec.model.fineTunedWeights",
            ),
        ),
        "runtime": WrongManifest(
            runtime(
                "ServingRuntime",
                supportedModelFormats=[
                    {"priority": 0, "modelArchitecture": "X"},
                    {"modelFormat": {"name": "a", "operator": "Less"}, "acceleratorConfig": {}},
                ],
                protocolVersions=["openAI", "v7"],
                modelSizeRange={"min": "small"},
                routerConfig={"minReplicas": 1},
                acceleratorRequirements={"minMemory": 80},
            ),
            (
                "spec.acceleratorRequirements.minMemory",
                "spec.modelSizeRange.min",
                "spec.protocolVersions[1]",
                "spec.routerConfig.minReplicas",
                "spec.routerConfig.runner",
                "spec.supportedModelFormats[0].modelFormat",
                "spec.supportedModelFormats[0].priority",
                "spec.supportedModelFormats[1].acceleratorConfig",
                "spec.supportedModelFormats[1].modelFormat.operator",
            ),
        ),
        "runtime-formats": WrongManifest(
            runtime(
                "ServingRuntime",
                supportedModelFormats=[
                    {"modelArchitecture": "X"},
                    {"modelFormat": {"name": "a"}, "acceleratorConfig": {}, "diffusionPipeline": {"className": "Flux"}},
                ],
            ),
            (
                "spec.supportedModelFormats[0].modelFormat",
                "spec.supportedModelFormats[1].acceleratorConfig",
                "spec.supportedModelFormats[1].diffusionPipeline",
            ),
        ),
        "cluster-runtime": WrongManifest(
            {
                "apiVersion": VERSION,
                "kind": "ClusterServingRuntime",
                "metadata": {},
                "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
            },
            ("metadata.name", "spec.containers"),
        ),
        "empty-runtime": WrongManifest(
            {"apiVersion": VERSION, "kind": "ClusterServingRuntime", "metadata": {"name": "a"}, "spec": {}},
            ("spec.engineConfig",),
        ),
    }
