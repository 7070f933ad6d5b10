"""The schemas of KServe's kinds: what the CRDs carry and what ``parse`` checks. One source for both."""

from __future__ import annotations

from servery_sdk.openapi import (
    CONDITIONS,
    CONTAINER,
    FREE_ITEM,
    POD,
    TEXT,
    Schema,
    array,
    free,
    integer,
    record,
    string,
    texts,
)

from servery_dialect_kserve import payload_logger
from servery_dialect_kserve.companions import GONE
from servery_dialect_kserve.kinds import FRAMEWORKS

_STORAGE = record(
    "Where a credential entry says where the model is.",
    {
        "path": string("Path below the entry's bucket or root."),
        "key": string("Entry of the storage secret."),
        "parameters": texts("Overrides of the entry's fields."),
        "schemaPath": string("Path of the model's schema file."),
    },
)

_MODEL: dict[str, Schema] = {
    **CONTAINER,
    "storageUri": string("Where the model is, such as s3://bucket/prefix."),
    "storage": _STORAGE,
    "runtimeVersion": string("Tag of the runtime's image."),
    "protocolVersion": string("What the server speaks.", enum=["v1", "v2", "grpc-v1", "grpc-v2"]),
    "confidential": free("Encrypted models."),
}

_NOT_YET = "Not supported by Servery yet; refused."

COMPONENT: dict[str, Schema] = {
    "minReplicas": integer("Fewest replicas; 1 where none is given.", minimum=0),
    "maxReplicas": integer("Most replicas; 0 or none for the fewest.", minimum=0),
    "scaleTarget": integer("Target of scaleMetric in its own unit."),
    "scaleMetric": string("What scaling looks at.", enum=["cpu", "memory", "concurrency", "rps"]),
    "scaleMetricType": string(
        "How the target counts: as a percentage of what is requested, or as an amount for each pod.",
        enum=["Utilization", "AverageValue"],
    ),
    "autoScaling": record(
        "Metrics and behavior of the autoscaler.",
        {
            "metrics": array("Metrics; these win over scaleMetric.", FREE_ITEM),
            "behavior": free("autoscaling/v2 behavior."),
        },
    ),
    "containerConcurrency": integer("Requests at once in one container; 0 for no bound.", minimum=0),
    "timeout": integer("Seconds that one request may take.", minimum=0),
    "canaryTrafficPercent": integer(
        "Percent of the requests for the newest revision; the last one that was rolled out has the rest.",
        minimum=0,
        maximum=100,
    ),
    "logger": payload_logger.SCHEMA,
    "batcher": record(
        "An agent in front of the container asks it for many requests at once.",
        {
            "maxBatchSize": integer("Instances, or rows, of a batch; 32 where it is 0 or less, or none is given."),
            "maxLatency": integer(
                "Milliseconds that a request may wait for others; 5000 where it is 0 or less, or none is given."
            ),
            "timeout": integer("Seconds that a batch may take; 0 for as long as a request may.", minimum=0),
        },
    ),
    "labels": texts("For the component's objects and pods."),
    "annotations": texts("For the component's pods."),
    "deploymentStrategy": free("apps/v1 DeploymentStrategy."),
}

_STORAGE_URIS = array(
    "Several sources, each at its own path.",
    record(
        "A source.",
        {
            "uri": string("Where it is.", minLength=1),
            "mountPath": string("Absolute directory; /mnt/models where none is given.", maxLength=255, pattern="^/.*"),
        },
        "uri",
    ),
    minItems=1,
)

PREDICTOR = record(
    "The server of the model: exactly one of model, a framework field, or containers.",
    {
        **POD,
        **COMPONENT,
        "name": string("Makes the objects <service>-<name>-predictor.", pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$"),
        "model": record(
            "A model in some format, served by a runtime that supports it.",
            {
                **_MODEL,
                "modelFormat": record(
                    "The format of the model.",
                    {
                        "name": string("Such as sklearn.", minLength=1),
                        "version": string("Of the format; any where none is given."),
                    },
                    "name",
                ),
                "runtime": string("Name of a ServingRuntime or ClusterServingRuntime; chosen where none is given."),
            },
        ),
        **{
            name: record(f"A model of the format {name}; the same as model with that modelFormat.", _MODEL)
            for name in FRAMEWORKS
        },
        "storageUris": _STORAGE_URIS,
        "storageContainerName": string(_NOT_YET),
        "workerSpec": free(_NOT_YET),
    },
)

TRANSFORMER = record(
    "What comes before and after the model: it gets the requests, and asks the predictor.",
    {**POD, **COMPONENT, "storageUris": _STORAGE_URIS},
)

EXPLAINER = record(
    "What says where answers come from: it gets the requests for explanations, and asks the predictor.",
    {
        **POD,
        **COMPONENT,
        "art": record(
            "The Adversarial Robustness Toolbox: inputs close to a given one that are answered otherwise.",
            {
                **CONTAINER,
                "type": string("The attack.", enum=["SquareAttack"]),
                "config": texts("Settings of the explainer: a flag each, such as nb_classes and max_iter."),
                "storageUri": string("Files for the explainer."),
                "storage": _STORAGE,
                "runtimeVersion": string("Tag of the explainer's image."),
            },
        ),
        **{name: free("KServe serves these no more; refused.") for name in GONE},
        "storageUris": _STORAGE_URIS,
    },
)

SERVICE = record(
    "Serves a model.",
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": {"type": "object"},
        "spec": record(
            "What is wanted.",
            {
                "predictor": PREDICTOR,
                "transformer": TRANSFORMER,
                "explainer": EXPLAINER,
                "canary": array(_NOT_YET, FREE_ITEM),
            },
            "predictor",
        ),
        "status": {
            **record(
                "What is.",
                {
                    "observedGeneration": {"type": "integer", "format": "int64"},
                    "conditions": CONDITIONS,
                    "url": string("Where users call it from outside."),
                    "address": record("Where the cluster calls it.", {"url": TEXT}),
                    "components": free("By component: its URLs."),
                    "modelStatus": free("How far the model is, and why not further."),
                    "deploymentMode": TEXT,
                    "servingRuntimeName": TEXT,
                    "clusterServingRuntimeName": TEXT,
                },
            ),
            "x-kubernetes-preserve-unknown-fields": True,
        },
    },
    "spec",
)

TRAINED_MODEL = record(
    "A model that a predictor holds beside others.",
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": {"type": "object"},
        "spec": record(
            "Which model, and where.",
            {
                "inferenceService": string("The InferenceService whose predictor holds it.", minLength=1),
                "model": record(
                    "The model.",
                    {
                        "storageUri": string("Where it is, such as s3://bucket/prefix.", minLength=1),
                        "framework": string("Its format, such as sklearn.", minLength=1),
                        "memory": {
                            "x-kubernetes-int-or-string": True,
                            "description": "What it needs of the predictor's memory, such as 256Mi.",
                        },
                    },
                    "storageUri",
                    "framework",
                    "memory",
                ),
            },
            "inferenceService",
            "model",
        ),
        "status": record(
            "What is.",
            {
                "observedGeneration": {"type": "integer", "format": "int64"},
                "conditions": CONDITIONS,
                "url": string("Where users ask it from outside."),
                "address": record("Where the cluster asks it.", {"url": TEXT}),
            },
        ),
    },
    "spec",
)

RUNTIME = record(
    "How models of some formats are served.",
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": {"type": "object"},
        "spec": record(
            "What is run.",
            {
                **POD,
                "supportedModelFormats": array(
                    "What it serves.",
                    record(
                        "A format.",
                        {
                            "name": string("Such as sklearn.", minLength=1),
                            "version": string("Of the format."),
                            "autoSelect": {"type": "boolean", "description": "May be chosen without being named."},
                            "priority": integer("Higher wins.", minimum=1),
                        },
                        "name",
                    ),
                ),
                "protocolVersions": array(
                    "What it speaks; any where none is given.",
                    {"type": "string", "enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
                ),
                "multiModel": {"type": "boolean", "description": "Serves several services from one pod."},
                "disabled": {"type": "boolean", "description": "Not to be used."},
                "labels": texts("For the pods."),
                "annotations": texts("For the pods."),
                "workerSpec": free("Of multi-node runtimes; never chosen yet."),
                **dict.fromkeys(("grpcEndpoint", "grpcDataEndpoint", "httpDataEndpoint"), TEXT),
                "replicas": {"type": "integer"},
                "storageHelper": free("Of ModelMesh."),
                "builtInAdapter": free("Of ModelMesh."),
            },
            "containers",
        ),
        "status": free("Unused."),
    },
    "spec",
)
