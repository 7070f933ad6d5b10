"""The schemas of KubeDL's kinds: what the CRDs carry and what ``parse`` checks. One source for both."""

from __future__ import annotations

from servery_sdk.openapi import CONDITIONS, METADATA, POD, TEXT, Schema, array, integer, record, string, texts

_WEIGHT: Schema = {"minimum": 0, "maximum": 2**31 - 1}

_TEMPLATE = record(
    "The predictor's pods; its container named predictor, or the first, answers requests.",
    {"metadata": METADATA, "spec": record("The pod.", POD, "containers")},
    "spec",
)

_AUTO_SCALE = record(
    "Who sets the replicas; without it they stay.",
    {
        "minReplicas": integer("Fewest; 1 where none is given.", minimum=0),
        "maxReplicas": integer("Most; where none is given, as many as the predictor begins with.", minimum=1),
        "autoScaler": record(
            "Who scales: the object of this name, which is there already; without a name, one that is made of the kind "
            "HorizontalPodAutoscaler, which is the default, or ScaledObject.",
            dict.fromkeys(("apiVersion", "kind", "name", "namespace", "fieldPath", "resourceVersion", "uid"), TEXT),
        ),
    },
)

_PREDICTOR = record(
    "A server of one model.",
    {
        "name": string("Makes the objects <inference>-<name>."),
        "modelVersion": string("The ModelVersion in the same namespace whose model is served."),
        "modelPath": string("Where the model is in the container; /kubedl-model/<modelVersion> where none is given."),
        "replicas": integer("Pods; 1 where none is given. With autoScale, those to begin with.", minimum=0),
        "trafficWeight": integer("Share of the requests, against the other predictors'; 100 by default.", **_WEIGHT),
        "trafficPercent": integer("The same, as it was before v0.4.0.", **_WEIGHT),
        "trafficPercentage": integer("The same, as the introduction has it.", **_WEIGHT),
        "template": _TEMPLATE,
        "autoScale": _AUTO_SCALE,
        "batching": record(
            "Requests gathered into one call.",
            {
                "batchSize": integer("Most requests in a call.", minimum=1),
                "timeoutSeconds": integer("How long the first of them waits for others.", minimum=0),
            },
            "batchSize",
        ),
    },
    "name",
    "template",
)

INFERENCE = record(
    "Serves models, each with its share of the requests.",
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": {"type": "object"},
        "spec": record(
            "What is wanted.",
            {
                "framework": string("The model server in the containers."),
                "predictors": array("The servers.", _PREDICTOR, minItems=1),
            },
            "framework",
            "predictors",
        ),
        "status": record(
            "What is.",
            {
                "inferenceEndpoint": string("Host in the cluster at which all predictors answer together."),
                "predictorStatuses": array(
                    "One for each predictor, in their order.",
                    record(
                        "A predictor.",
                        {
                            "name": TEXT,
                            "endpoint": string("Host in the cluster."),
                            **{name: {"type": "integer"} for name in ("replicas", "readyReplicas", "trafficPercent")},
                        },
                        "name",
                    ),
                ),
                "observedGeneration": {"type": "integer", "format": "int64"},
                "conditions": CONDITIONS,
                "url": string("Where users call it from outside."),
            },
        ),
    },
    "spec",
)

MODEL = record(
    "A model, of which there are versions.",
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": {"type": "object"},
        "spec": record("What it is.", {"description": string("In words.")}),
        "status": record(
            "What is.",
            {"latestVersion": record("The newest.", {"modelVersion": TEXT, "imageName": string("Of its image.")})},
        ),
    },
)

_STORAGE = record(
    "Where the files are: exactly one of these.",
    {
        "localStorage": record(
            "A directory of one node.",
            {
                "path": string("Of the model's files."),
                "mountPath": string("Where the training job writes them."),
                "nodeName": string("The node."),
            },
        ),
        "nfs": record(
            "A directory of an NFS server.",
            {
                "server": string("Its host."),
                "path": string("Of the model's files."),
                "mountPath": string("Where the training job writes them."),
            },
        ),
        "AWSEfs": record(
            "An Elastic File System.",
            {"volumeHandle": string("Of the file system."), "attributes": texts("Of its volume.")},
        ),
    },
)

MODEL_VERSION = record(
    "One version of a model: files in storage, or in an image that was built of them.",
    {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": {"type": "object"},
        "spec": record(
            "Where it comes from.",
            {
                "modelName": string("Of the Model; servers are told it."),
                "createdBy": string("The training job or the person."),
                "storage": _STORAGE,
                "imageRepo": string("Repository of its image."),
                "imageTag": string("Tag of its image."),
            },
        ),
        "status": record(
            "How far its image is.",
            {
                "image": string("The image that holds the files in /kubedl-model."),
                "imageBuildPhase": string("ImageBuilding, ImageBuildFailed or ImageBuildSucceeded."),
                "finishTime": {"type": "string", "format": "date-time"},
                "message": TEXT,
            },
        ),
    },
)
