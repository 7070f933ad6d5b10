"""Which pods a Deployment makes and ends next. Pure.

Source: Kubernetes' Deployment controller, strategy RollingUpdate: never more than ``replicas + maxSurge`` pods, never
fewer than ``replicas - maxUnavailable`` ready ones.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from servery_sdk.manifests import Json, Manifest

HASH_LABEL = "pod-template-hash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do now: how many pods of the new template to make, and which to end."""

    create: int
    delete: tuple[str, ...]


def template_hash(template: Manifest) -> str:
    """Return ten characters that change with the template."""
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def is_ready(pod: Manifest) -> bool:
    """Return whether the pod takes requests."""
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def step(deployment: Manifest, replicas: int, pods: Sequence[Manifest]) -> Step:
    """Return what brings ``pods`` closer to ``replicas`` of the template."""
    rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate") or {}
    surge = _share(rolling.get("maxSurge", "25%"), replicas, math.ceil)
    unavailable = _share(rolling.get("maxUnavailable", "25%"), replicas, math.floor)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    wanted = template_hash(deployment["spec"]["template"])
    new = [pod for pod in pods if pod["metadata"].get("labels", {}).get(HASH_LABEL) == wanted]
    old = [pod for pod in pods if pod not in new]
    if deployment["spec"].get("strategy", {}).get("type") == "Recreate":
        return Step(create=0 if old else max(0, replicas - len(new)), delete=_names(old))
    spare_new = sorted(new, key=is_ready)[: max(0, len(new) - replicas)]
    create = max(0, min(replicas - len(new), replicas + surge - len(pods)))
    unready_old = [pod for pod in old if not is_ready(pod)]
    ready = sum(is_ready(pod) for pod in pods if pod not in spare_new)
    may_go = max(0, ready - (replicas - unavailable))
    ready_old = [pod for pod in old if is_ready(pod)][:may_go]
    return Step(create=create, delete=_names([*spare_new, *unready_old, *ready_old]))


def status(deployment: Manifest, replicas: int, pods: Sequence[Manifest]) -> Manifest:
    """Return the Deployment's status."""
    wanted = template_hash(deployment["spec"]["template"])
    rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate") or {}
    least = replicas - _share(rolling.get("maxUnavailable", "25%"), replicas, math.floor)
    updated = [pod for pod in pods if pod["metadata"].get("labels", {}).get(HASH_LABEL) == wanted]
    ready = sum(is_ready(pod) for pod in pods)
    done = len(updated) == len(pods) == replicas == ready
    return {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": len(pods),
        "updatedReplicas": len(updated),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, replicas - ready),
        "conditions": [
            _condition("Available", ready >= least, "MinimumReplicasAvailable", "MinimumReplicasUnavailable"),
            {**_condition("Progressing", True, "NewReplicaSetAvailable" if done else "ReplicaSetUpdated", "")},
        ],
    }


def _condition(kind: str, holds: bool, yes: str, no: str) -> dict[str, Json]:
    message = "" if holds else "Deployment does not have minimum availability."
    return {"type": kind, "status": "True" if holds else "False", "reason": yes if holds else no, "message": message}


def _names(pods: Sequence[Manifest]) -> tuple[str, ...]:
    return tuple(str(pod["metadata"]["name"]) for pod in pods)


def _share(value: int | str, replicas: int, rounded: Json) -> int:
    if isinstance(value, str) and value.endswith("%"):
        return int(rounded(replicas * int(value[:-1]) / 100))
    return int(value)
