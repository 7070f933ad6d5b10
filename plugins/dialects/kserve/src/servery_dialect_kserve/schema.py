"""The schemas of KServe's kinds: what the CRDs carry and what ``parse`` checks. One source for both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servery_dialect_kserve.kinds import FRAMEWORKS

Schema = dict[str, Any]


def _string(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def _integer(description: str, **more: Any) -> Schema:
    return {"type": "integer", "description": description, **more}


def _object(description: str, properties: Mapping[str, Schema], *required: str) -> Schema:
    made: Schema = {"type": "object", "description": description, "properties": dict(properties)}
    if required:
        made["required"] = list(required)
    return made


def _array(description: str, items: Schema, **more: Any) -> Schema:
    return {"type": "array", "description": description, "items": items, **more}


def _free(description: str) -> Schema:
    return {"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": True}


def _map(description: str) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": {"type": "string"}}


_FREE_ITEM: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_INT_OR_STRING: Schema = {"x-kubernetes-int-or-string": True}
_TEXT: Schema = {"type": "string"}

RESOURCES = _object(
    "Compute resources of the container.",
    {
        "limits": {"type": "object", "description": "Upper bounds.", "additionalProperties": _INT_OR_STRING},
        "requests": {"type": "object", "description": "What is reserved.", "additionalProperties": _INT_OR_STRING},
        "claims": _array("Dynamic resources.", _FREE_ITEM),
    },
)

CONTAINER: dict[str, Schema] = {
    "name": _string("Name of the container."),
    "image": _string("Image of the container."),
    "imagePullPolicy": _string("Always, IfNotPresent or Never."),
    "command": _array("Replaces the image's entry point.", _TEXT),
    "args": _array("Arguments; added behind those of the runtime.", _TEXT),
    "workingDir": _string("Working directory."),
    "env": _array("Environment variables; these win over the runtime's.", _FREE_ITEM),
    "envFrom": _array("Sources of environment variables.", _FREE_ITEM),
    "ports": _array("Ports; the first one answers requests.", _FREE_ITEM),
    "resources": RESOURCES,
    "volumeMounts": _array("Mounts of the pod's volumes.", _FREE_ITEM),
    "volumeDevices": _array("Block devices.", _FREE_ITEM),
    "livenessProbe": _free("When to restart the container."),
    "readinessProbe": _free("When to send requests."),
    "startupProbe": _free("When the other probes begin."),
    "lifecycle": _free("What runs after start and before stop."),
    "securityContext": _free("Privileges of the container."),
    "terminationMessagePath": _string("File of the last words."),
    "terminationMessagePolicy": _string("Where last words come from."),
    "resizePolicy": _array("What a resize restarts.", _FREE_ITEM),
    "restartPolicy": _string("For sidecars among init containers."),
    "stdin": {"type": "boolean"},
    "stdinOnce": {"type": "boolean"},
    "tty": {"type": "boolean"},
}
"""``corev1.Container``; what lies deeper is Kubernetes' own to check."""

POD: dict[str, Schema] = {
    "containers": _array(
        "Containers of one's own; the one named kserve-container, or the only one, answers requests.",
        {"type": "object", "properties": CONTAINER},
    ),
    "initContainers": _array("Run before the others.", _FREE_ITEM),
    "volumes": _array("Volumes of the pod.", _FREE_ITEM),
    "imagePullSecrets": _array("Credentials of registries.", _FREE_ITEM),
    "tolerations": _array("Taints that the pod tolerates.", _FREE_ITEM),
    "topologySpreadConstraints": _array("How pods spread.", _FREE_ITEM),
    "hostAliases": _array("Lines for /etc/hosts.", _FREE_ITEM),
    "readinessGates": _array("Conditions of readiness.", _FREE_ITEM),
    "resourceClaims": _array("Dynamic resource claims.", _FREE_ITEM),
    "nodeSelector": _map("Labels of the node."),
    "affinity": _free("Where the pod may run."),
    "securityContext": _free("Privileges of the pod."),
    "dnsConfig": _free("Name resolution."),
    "os": _free("Operating system."),
    "overhead": _free("Overhead of the runtime class."),
    **dict.fromkeys(
        (
            "serviceAccountName",
            "serviceAccount",
            "nodeName",
            "schedulerName",
            "priorityClassName",
            "runtimeClassName",
            "restartPolicy",
            "dnsPolicy",
            "hostname",
            "subdomain",
            "preemptionPolicy",
        ),
        _TEXT,
    ),
    **{
        name: {"type": "boolean"}
        for name in (
            "automountServiceAccountToken",
            "hostNetwork",
            "hostPID",
            "hostIPC",
            "hostUsers",
            "enableServiceLinks",
            "setHostnameAsFQDN",
            "shareProcessNamespace",
        )
    },
    **{name: {"type": "integer"} for name in ("activeDeadlineSeconds", "terminationGracePeriodSeconds", "priority")},
}
"""``corev1.PodSpec``."""

_STORAGE = _object(
    "Where a credential entry says where the model is.",
    {
        "path": _string("Path below the entry's bucket or root."),
        "key": _string("Entry of the storage secret."),
        "parameters": _map("Overrides of the entry's fields."),
        "schemaPath": _string("Path of the model's schema file."),
    },
)

_MODEL: dict[str, Schema] = {
    **CONTAINER,
    "storageUri": _string("Where the model is, such as s3://bucket/prefix."),
    "storage": _STORAGE,
    "runtimeVersion": _string("Tag of the runtime's image."),
    "protocolVersion": _string("What the server speaks.", enum=["v1", "v2", "grpc-v1", "grpc-v2"]),
    "confidential": _free("Encrypted models."),
}

_NOT_YET = "Not supported by Servery yet; refused."

COMPONENT: dict[str, Schema] = {
    "minReplicas": _integer("Fewest replicas; 1 where none is given.", minimum=0),
    "maxReplicas": _integer("Most replicas; 0 or none for the fewest.", minimum=0),
    "scaleTarget": _integer("Target of scaleMetric in its own unit."),
    "scaleMetric": _string("What scaling looks at.", enum=["cpu", "memory", "concurrency", "rps"]),
    "scaleMetricType": _string("How the target counts.", enum=["Utilization", "AverageValue"]),
    "autoScaling": _object(
        "Metrics and behavior of the autoscaler.",
        {
            "metrics": _array("Metrics; these win over scaleMetric.", _FREE_ITEM),
            "behavior": _free("autoscaling/v2 behavior."),
        },
    ),
    "containerConcurrency": _integer("Requests at once in one container; 0 for no bound.", minimum=0),
    "timeout": _integer("Seconds that one request may take.", minimum=0),
    "canaryTrafficPercent": _integer(_NOT_YET, minimum=0, maximum=100),
    "logger": _free(_NOT_YET),
    "batcher": _free(_NOT_YET),
    "labels": _map("For the component's objects and pods."),
    "annotations": _map("For the component's pods."),
    "deploymentStrategy": _free("apps/v1 DeploymentStrategy."),
}

_STORAGE_URIS = _array(
    "Several sources, each at its own path.",
    _object(
        "A source.",
        {
            "uri": _string("Where it is.", minLength=1),
            "mountPath": _string("Absolute directory; /mnt/models where none is given.", maxLength=255, pattern="^/.*"),
        },
        "uri",
    ),
    minItems=1,
)

PREDICTOR = _object(
    "The server of the model: exactly one of model, a framework field, or containers.",
    {
        **POD,
        **COMPONENT,
        "name": _string("Makes the objects <service>-<name>-predictor.", pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$"),
        "model": _object(
            "A model in some format, served by a runtime that supports it.",
            {
                **_MODEL,
                "modelFormat": _object(
                    "The format of the model.",
                    {
                        "name": _string("Such as sklearn.", minLength=1),
                        "version": _string("Of the format; any where none is given."),
                    },
                    "name",
                ),
                "runtime": _string("Name of a ServingRuntime or ClusterServingRuntime; chosen where none is given."),
            },
        ),
        **{
            name: _object(f"A model of the format {name}; the same as model with that modelFormat.", _MODEL)
            for name in FRAMEWORKS
        },
        "storageUris": _STORAGE_URIS,
        "storageContainerName": _string(_NOT_YET),
        "workerSpec": _free(_NOT_YET),
    },
)

METADATA: Schema = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {"name": _TEXT, "namespace": _TEXT, "labels": _map("Labels."), "annotations": _map("Annotations.")},
}
"""``ObjectMeta``, as far as it is read here. Not in the CRD: the API server checks it by itself."""

CONDITIONS = _array(
    "What is true of the service, by type.",
    _object(
        "A condition.",
        {
            **dict.fromkeys(("type", "status", "reason", "message", "severity"), _TEXT),
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        },
        "type",
        "status",
    ),
)

SERVICE = _object(
    "Serves a model.",
    {
        "apiVersion": _TEXT,
        "kind": _TEXT,
        "metadata": {"type": "object"},
        "spec": _object(
            "What is wanted.",
            {
                "predictor": PREDICTOR,
                "transformer": _free(_NOT_YET),
                "explainer": _free(_NOT_YET),
                "canary": _array(_NOT_YET, _FREE_ITEM),
            },
            "predictor",
        ),
        "status": {
            **_object(
                "What is.",
                {
                    "observedGeneration": {"type": "integer", "format": "int64"},
                    "conditions": CONDITIONS,
                    "url": _string("Where users call it from outside."),
                    "address": _object("Where the cluster calls it.", {"url": _TEXT}),
                    "components": _free("By component: its URLs."),
                    "modelStatus": _free("How far the model is, and why not further."),
                    "deploymentMode": _TEXT,
                    "servingRuntimeName": _TEXT,
                    "clusterServingRuntimeName": _TEXT,
                },
            ),
            "x-kubernetes-preserve-unknown-fields": True,
        },
    },
    "spec",
)

RUNTIME = _object(
    "How models of some formats are served.",
    {
        "apiVersion": _TEXT,
        "kind": _TEXT,
        "metadata": {"type": "object"},
        "spec": _object(
            "What is run.",
            {
                **POD,
                "supportedModelFormats": _array(
                    "What it serves.",
                    _object(
                        "A format.",
                        {
                            "name": _string("Such as sklearn.", minLength=1),
                            "version": _string("Of the format."),
                            "autoSelect": {"type": "boolean", "description": "May be chosen without being named."},
                            "priority": _integer("Higher wins.", minimum=1),
                        },
                        "name",
                    ),
                ),
                "protocolVersions": _array(
                    "What it speaks; any where none is given.",
                    {"type": "string", "enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
                ),
                "multiModel": {"type": "boolean", "description": "Serves several services from one pod."},
                "disabled": {"type": "boolean", "description": "Not to be used."},
                "labels": _map("For the pods."),
                "annotations": _map("For the pods."),
                "workerSpec": _free("Of multi-node runtimes; never chosen yet."),
                **dict.fromkeys(("grpcEndpoint", "grpcDataEndpoint", "httpDataEndpoint"), _TEXT),
                "replicas": {"type": "integer"},
                "storageHelper": _free("Of ModelMesh."),
                "builtInAdapter": _free("Of ModelMesh."),
            },
            "containers",
        ),
        "status": _free("Unused."),
    },
    "spec",
)
