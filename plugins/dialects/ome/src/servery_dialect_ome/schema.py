"""The schemas of OME's kinds: what the CRDs carry and what ``parse`` checks. One source for both."""

from __future__ import annotations

from servery_sdk import openapi
from servery_sdk.openapi import (
    CONDITIONS,
    FREE_ITEM,
    INT_OR_STRING,
    RESOURCES,
    TEXT,
    Schema,
    array,
    free,
    integer,
    record,
    string,
    texts,
)

from servery_dialect_ome.kinds import GROUP

_NOT_YET = "Not supported by Servery yet; refused."
_BOOLEAN: Schema = {"type": "boolean"}


def _open(properties: dict[str, Schema], *required: str) -> Schema:
    """Return the schema of an object of Kubernetes' own of which these fields are read."""
    return {**FREE_ITEM, "properties": properties, "required": list(required)}


CONTAINER: dict[str, Schema] = {
    **openapi.CONTAINER,
    "env": array("Environment variables; these win over the runtime's.", _open({"name": TEXT}, "name")),
    "ports": array(
        "Ports; the first one answers requests.",
        _open({"containerPort": openapi.PORT, "name": TEXT, "protocol": TEXT}, "containerPort"),
    ),
    "volumeMounts": array(
        "Mounts of the pod's volumes.", _open({"name": TEXT, "mountPath": TEXT}, "name", "mountPath")
    ),
}

POD: dict[str, Schema] = {
    **openapi.POD,
    "containers": array("Containers beside the one that answers requests.", record("A container.", CONTAINER, "name")),
    "volumes": array("Volumes of the pod.", _open({"name": TEXT}, "name")),
    "schedulingGates": array("What the pod waits for before it is scheduled.", FREE_ITEM),
}

RUNNER = record("The container that answers requests.", CONTAINER)

KEDA = record(
    "Scaling by KEDA on a query of Prometheus.",
    {
        "enableKeda": {**_BOOLEAN, "description": "False leaves scaling to a HorizontalPodAutoscaler."},
        "promServerAddress": string("URL of Prometheus.", pattern="^https?://"),
        "customPromQuery": string("What is asked; %s is the name of the component's objects."),
        "scalingThreshold": string("Of the query's value, for one replica.", pattern=r"^[0-9]*\.?[0-9]+$"),
        "scalingOperator": string(
            "How the value stands to the threshold where there are too few replicas.",
            enum=["GreaterThan", "GreaterThanOrEqual", "LessThan", "LessThanOrEqual"],
        ),
        "authenticationRef": record(
            "Credentials of Prometheus.",
            {
                "name": string("Of the object.", minLength=1),
                "kind": string(
                    "Of the object.",
                    enum=["TriggerAuthentication", "ClusterTriggerAuthentication"],
                    default="TriggerAuthentication",
                ),
            },
            "name",
        ),
        "authModes": string("Of basic, tls, bearer, custom; several with commas."),
    },
)

ACCELERATORS = record(
    "Which accelerators to run on.",
    {
        "acceleratorClass": string("Name of an AcceleratorClass."),
        "constraints": free(_NOT_YET),
        "policy": string(_NOT_YET, enum=["BestFit", "Cheapest", "MostCapable", "FirstAvailable"]),
    },
)

SCALING: dict[str, Schema] = {
    "minReplicas": integer("Fewest replicas; 1 where none is given.", minimum=0),
    "maxReplicas": integer("Most replicas; 3 where none is given, 2 for a router.", minimum=0),
    "scaleTarget": integer("Target of scaleMetric; % for cpu and memory."),
    "scaleMetric": string("What scaling looks at.", enum=["cpu", "memory", "concurrency", "rps"]),
    "containerConcurrency": integer("Requests at once in one container; 0 for no bound.", minimum=0),
    "timeoutSeconds": integer("Seconds that one request may take.", minimum=0),
    "canaryTrafficPercent": integer("Of the requests, for the newest revision.", minimum=0, maximum=100),
    "minAvailable": {**INT_OR_STRING, "description": "Pods that stay while nodes are drained."},
    "maxUnavailable": {**INT_OR_STRING, "description": "Pods that may go while nodes are drained."},
    "deploymentStrategy": free("apps/v1 DeploymentStrategy."),
    "kedaConfig": KEDA,
}

_EXTENSION: dict[str, Schema] = {
    **SCALING,
    "labels": texts("For the component's objects and pods."),
    "annotations": texts("For the component's pods."),
}

_SIZE = integer("Pods beside the leader.", minimum=0)
_LEADER = record("The pod that leads those of a model on several machines.", {**POD, "runner": RUNNER})
_WORKER = record("The pods that it leads.", {**POD, "runner": RUNNER, "size": _SIZE})


def _server(description: str) -> Schema:
    return record(
        description,
        {
            **POD,
            **_EXTENSION,
            "runner": RUNNER,
            "resources": RESOURCES,
            "leader": _LEADER,
            "worker": _WORKER,
            "acceleratorOverride": ACCELERATORS,
        },
    )


ENGINE = _server("The server of the model; with a decoder, what prefills.")
DECODER = _server("Generates tokens behind an engine that prefills.")
ROUTER = record(
    "Spreads requests over engines and decoders.",
    {**POD, **_EXTENSION, "runner": RUNNER, "config": texts("Variables of the router.")},
)

PREDICTOR = record(
    "The older form of engine, model and runtime.",
    {
        **POD,
        **_EXTENSION,
        "model": record(
            "The model, and the container that serves it.",
            {
                **CONTAINER,
                "baseModel": string("Name of a BaseModel or ClusterBaseModel."),
                "runtime": string("Name of a ServingRuntime or ClusterServingRuntime; chosen where none is given."),
                "runtimeVersion": string("Tag of the runtime's image."),
                "fineTunedWeights": array("Names of FineTunedWeights.", TEXT),
                "protocolVersion": string("What the server speaks."),
                "storageUri": string("Where the model is, in place of a base model.", minLength=1),
                "modelConfiguration": free("Settings of the model, over those of the base model."),
            },
        ),
        "resources": RESOURCES,
        "env": CONTAINER["env"],
        "workerSpec": record(
            "The pods that each replica leads.",
            {
                **POD,
                "size": _SIZE,
                "worldSize": integer("The same as size: the number of worker nodes.", minimum=0),
                "resources": RESOURCES,
                "runner": RUNNER,
            },
        ),
    },
)


def _reference(what: str, kinds: list[str], **more: Schema) -> Schema:
    return record(
        what,
        {
            "name": string("Its name.", minLength=1),
            "kind": string("Looked up in the namespace first, whatever it says.", enum=kinds, default=kinds[-1]),
            "apiGroup": string("OME's own.", enum=[GROUP], default=GROUP),
            **more,
        },
        "name",
    )


_IDENTITY: dict[str, Schema] = {"apiVersion": TEXT, "kind": TEXT, "metadata": {"type": "object"}}

SERVICE = record(
    "Serves a model.",
    {
        **_IDENTITY,
        "spec": record(
            "What is wanted.",
            {
                "model": _reference(
                    "The model.",
                    ["BaseModel", "ClusterBaseModel"],
                    fineTunedWeights=array("Names of FineTunedWeights.", TEXT),
                ),
                "runtime": _reference(
                    "What serves it; chosen where none is given.", ["ServingRuntime", "ClusterServingRuntime"]
                ),
                "engine": ENGINE,
                "decoder": DECODER,
                "router": ROUTER,
                "predictor": PREDICTOR,
                "kedaConfig": KEDA,
                "acceleratorSelector": ACCELERATORS,
                "compartmentID": string("Of Oracle's cloud; passed on to the pods."),
            },
        ),
        "status": {
            **record(
                "What is.",
                {
                    "observedGeneration": {"type": "integer", "format": "int64"},
                    "conditions": CONDITIONS,
                    "url": string("Where users call it."),
                    "address": record("Where the cluster calls it.", {"url": TEXT}),
                    "components": free("By component: its URLs and revisions."),
                    "modelStatus": free("How far the model is, and why not further."),
                },
            ),
            "x-kubernetes-preserve-unknown-fields": True,
        },
    },
    "spec",
)

_VERSIONED: dict[str, Schema] = {
    "name": string("Such as safetensors, or transformers.", minLength=1),
    "version": string("Such as 1.0.0."),
    "operator": string(
        "How a runtime's version stands to the model's.",
        enum=["Equal", "GreaterThan", "GreaterThanOrEqual"],
        default="Equal",
    ),
    "weight": integer("Multiplies a runtime's priority.", default=1),
}
_FORMAT = record("The format of the files.", _VERSIONED, "name")
_FRAMEWORK = record("The library that they are for.", _VERSIONED, "name")

_PARTS = {"library": TEXT, "type": TEXT}
_DIFFUSION = record(
    "The parts of a diffusion model.",
    {
        "className": TEXT,
        **{name: record("A part.", _PARTS) for name in ("scheduler", "textEncoder", "tokenizer", "transformer", "vae")},
        "additionalComponents": {
            "type": "object",
            "description": "More of them.",
            "additionalProperties": record("A part.", _PARTS),
        },
    },
)

_DECLARED: dict[str, Schema] = {
    "modelType": string("Such as llama."),
    "modelArchitecture": string("Such as LlamaForCausalLM."),
    "quantization": string("Such as fp8."),
    "diffusionPipeline": _DIFFUSION,
}

RUNTIME = record(
    "How models of some formats are served.",
    {
        **_IDENTITY,
        "spec": record(
            "What is run.",
            {
                **POD,
                "supportedModelFormats": array(
                    "What it serves.",
                    record(
                        "A kind of model.",
                        {
                            "name": string("The older form of modelFormat.name."),
                            "version": string("The older form of modelFormat.version."),
                            "modelFormat": _FORMAT,
                            "modelFramework": _FRAMEWORK,
                            **_DECLARED,
                            "autoSelect": {**_BOOLEAN, "description": "May be chosen without being named."},
                            "priority": integer("Higher wins.", minimum=1),
                            "acceleratorConfig": free(_NOT_YET),
                        },
                    ),
                ),
                "modelSizeRange": record(
                    "How many parameters its models have.", {"min": string("Such as 7B."), "max": string("Such as 9B.")}
                ),
                "protocolVersions": array("What it speaks; any where none is given.", TEXT),
                "disabled": {**_BOOLEAN, "description": "Not to be used."},
                "labels": texts("For the pods."),
                "annotations": texts("For the pods."),
                "engineConfig": ENGINE,
                "decoderConfig": DECODER,
                "routerConfig": ROUTER,
                "workers": record(
                    "The older form of engineConfig.worker.",
                    {
                        **POD,
                        "size": _SIZE,
                        "labels": texts("For the pods."),
                        "annotations": texts("For the pods."),
                    },
                ),
                "acceleratorRequirements": record(
                    "What it runs on.",
                    {
                        "acceleratorClasses": array("Names of AcceleratorClasses.", TEXT),
                        "minMemory": integer(_NOT_YET, minimum=0),
                        "minComputePerformanceTFLOPS": integer(_NOT_YET, minimum=0),
                        "minArchitectureVersion": string(_NOT_YET),
                        "requiredFeatures": array(_NOT_YET, TEXT),
                        "preferredPrecisions": array(_NOT_YET, TEXT),
                    },
                ),
            },
        ),
        "status": free("Unused."),
    },
    "spec",
)

_STORAGE = record(
    "Where the files are.",
    {
        "storageUri": string("Such as hf://owner/model.", minLength=1),
        "path": string("Where the server finds them; /mnt/models where none is given.", pattern="^/."),
        "schemaPath": string("Unused."),
        "parameters": texts("Of the source; secretKey is the field of the secret that holds the token."),
        "key": string("Secret that holds the token."),
        "storageKey": string("The same as key."),
        "nodeSelector": texts("Labels of the nodes that may serve it."),
        "nodeAffinity": free("Nodes that may serve it."),
        "downloadPolicy": string("Unused: each pod fetches its own.", enum=["AlwaysDownload", "ReuseIfExists"]),
    },
    "storageUri",
)

_COMMON: dict[str, Schema] = {
    "displayName": string("For people."),
    "version": string("For people."),
    "disabled": {**_BOOLEAN, "description": "Not to be served."},
    "vendor": string("Who made it."),
    "compartmentID": string("Of Oracle's cloud."),
}

MODEL = record(
    "A model.",
    {
        **_IDENTITY,
        "spec": record(
            "What it is.",
            {
                **_COMMON,
                **_DECLARED,
                "modelFormat": _FORMAT,
                "modelFramework": _FRAMEWORK,
                "modelParameterSize": string("Such as 8B."),
                "modelCapabilities": array("What it does.", TEXT),
                "apiCapabilities": array("How it is called.", TEXT),
                "modelConfiguration": free("Settings; servers find them in MODEL_CONFIGURATION."),
                "storage": _STORAGE,
                "servingMode": array("On-demand or Dedicated.", TEXT),
                "maxTokens": integer("Of one answer."),
                "additionalMetadata": texts("More for people."),
            },
            "storage",
        ),
        "status": free("Unused."),
    },
    "spec",
)

WEIGHT = record(
    "Weights that were tuned on top of a base model.",
    {
        **_IDENTITY,
        "spec": record(
            "What they are.",
            {
                **_COMMON,
                "baseModelRef": record(
                    "What they were tuned from.", {"name": string("Its name.", minLength=1), "namespace": TEXT}, "name"
                ),
                "modelType": string("LoRA, Adapter, Distillation or Tfew."),
                "hyperParameters": free("Of the training; strategy names it."),
                "configuration": free("merged_weights: true where they hold the base model as well."),
                "storage": _STORAGE,
                "trainingJobRef": record("What made them.", {"name": TEXT, "namespace": TEXT}),
            },
            "baseModelRef",
            "storage",
        ),
        "status": free("Unused."),
    },
    "spec",
)

ACCELERATOR_CLASS = record(
    "A kind of accelerator.",
    {
        **_IDENTITY,
        "spec": record(
            "What it is.",
            {
                **dict.fromkeys(("vendor", "family", "model"), TEXT),
                "discovery": record(
                    "Nodes that have it.",
                    {
                        "nodeSelector": texts("Their labels."),
                        "affinity": free("Where pods for it run."),
                        "pciVendorID": TEXT,
                        "deviceIDs": array("Devices.", TEXT),
                    },
                ),
                "capabilities": free("What it can."),
                "resources": array(
                    "What a container asks for that does not say it itself.",
                    record(
                        "A resource.",
                        {
                            "name": string("Such as nvidia.com/gpu.", minLength=1),
                            "quantity": {**INT_OR_STRING, "description": "How much of it.", "default": "1"},
                            "divisible": {**_BOOLEAN, "description": "Unused: the device plugin divides them."},
                        },
                        "name",
                    ),
                ),
                "integration": record(
                    "With queues.",
                    {
                        "kueueResourceFlavor": string("Unused: Kueue chooses a flavor by the nodes."),
                        "volcanoGPUType": string(_NOT_YET),
                    },
                ),
                "cost": free("What it costs."),
            },
            "discovery",
        ),
        "status": free("Unused."),
    },
    "spec",
)
