"""Structural schemas of what every dialect's kinds have in common, and short words to write schemas in.

What Kubernetes owns (PodSpec, Container) is described one level deep; the API server checks what lies deeper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def string(description: str, **more: Any) -> Schema:
    """Return the schema of a string."""
    return {"type": "string", "description": description, **more}


def integer(description: str, **more: Any) -> Schema:
    """Return the schema of an integer."""
    return {"type": "integer", "description": description, **more}


def record(description: str, properties: Mapping[str, Schema], *required: str) -> Schema:
    """Return the schema of an object with these properties and no others."""
    made: Schema = {"type": "object", "description": description, "properties": dict(properties)}
    if required:
        made["required"] = list(required)
    return made


def array(description: str, items: Schema, **more: Any) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "description": description, "items": items, **more}


def free(description: str) -> Schema:
    """Return the schema of an object that somebody else checks."""
    return {"type": "object", "description": description, "x-kubernetes-preserve-unknown-fields": True}


def texts(description: str) -> Schema:
    """Return the schema of a map from strings to strings."""
    return {"type": "object", "description": description, "additionalProperties": {"type": "string"}}


FREE_ITEM: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
INT_OR_STRING: Schema = {"x-kubernetes-int-or-string": True}
TEXT: Schema = {"type": "string"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}


def _known_by(**required: Schema) -> Schema:
    """Return the schema of an item that somebody else checks, but that nobody can tell from others without these."""
    return {**FREE_ITEM, "properties": required, "required": list(required)}


RESOURCES = record(
    "Compute resources of the container.",
    {
        "limits": {"type": "object", "description": "Upper bounds.", "additionalProperties": INT_OR_STRING},
        "requests": {"type": "object", "description": "What is reserved.", "additionalProperties": INT_OR_STRING},
        "claims": array("Dynamic resources.", FREE_ITEM),
    },
)

CONTAINER: dict[str, Schema] = {
    "name": string("Name of the container."),
    "image": string("Image of the container."),
    "imagePullPolicy": string("Always, IfNotPresent or Never."),
    "command": array("Replaces the image's entry point.", TEXT),
    "args": array("Arguments; added behind those of the runtime.", TEXT),
    "workingDir": string("Working directory."),
    "env": array("Environment variables; these win over the runtime's.", _known_by(name=TEXT)),
    "envFrom": array("Sources of environment variables.", FREE_ITEM),
    "ports": array("Ports; the first one answers requests.", _known_by(containerPort=PORT)),
    "resources": RESOURCES,
    "volumeMounts": array("Mounts of the pod's volumes.", _known_by(name=TEXT, mountPath=TEXT)),
    "volumeDevices": array("Block devices.", FREE_ITEM),
    "livenessProbe": free("When to restart the container."),
    "readinessProbe": free("When to send requests."),
    "startupProbe": free("When the other probes begin."),
    "lifecycle": free("What runs after start and before stop."),
    "securityContext": free("Privileges of the container."),
    "terminationMessagePath": string("File of the last words."),
    "terminationMessagePolicy": string("Where last words come from."),
    "resizePolicy": array("What a resize restarts.", FREE_ITEM),
    "restartPolicy": string("For sidecars among init containers."),
    "stdin": {"type": "boolean"},
    "stdinOnce": {"type": "boolean"},
    "tty": {"type": "boolean"},
}
"""``corev1.Container``; what lies deeper is Kubernetes' own to check."""

POD: dict[str, Schema] = {
    "containers": array(
        "Containers of one's own; the one named kserve-container, or the only one, answers requests.",
        {"type": "object", "properties": CONTAINER},
    ),
    "initContainers": array("Run before the others.", _known_by(name=TEXT)),
    "volumes": array("Volumes of the pod.", _known_by(name=TEXT)),
    "imagePullSecrets": array("Credentials of registries.", FREE_ITEM),
    "tolerations": array("Taints that the pod tolerates.", FREE_ITEM),
    "topologySpreadConstraints": array("How pods spread.", FREE_ITEM),
    "hostAliases": array("Lines for /etc/hosts.", FREE_ITEM),
    "readinessGates": array("Conditions of readiness.", FREE_ITEM),
    "resourceClaims": array("Dynamic resource claims.", FREE_ITEM),
    "nodeSelector": texts("Labels of the node."),
    "affinity": free("Where the pod may run."),
    "securityContext": free("Privileges of the pod."),
    "dnsConfig": free("Name resolution."),
    "os": free("Operating system."),
    "overhead": free("Overhead of the runtime class."),
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
        TEXT,
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

METADATA: Schema = {
    "type": "object",
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {"name": TEXT, "namespace": TEXT, "labels": texts("Labels."), "annotations": texts("Annotations.")},
}
"""``ObjectMeta``, as far as it is read here. Not in the CRD: the API server checks it by itself."""

CONDITIONS = array(
    "What is true of the service, by type.",
    record(
        "A condition.",
        {
            **dict.fromkeys(("type", "status", "reason", "message", "severity"), TEXT),
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        },
        "type",
        "status",
    ),
)
