"""Labels and annotations that OME's objects carry: routers find servers by them, and so do people's dashboards."""

from __future__ import annotations

import re
from collections.abc import Mapping

from servery_sdk import names
from servery_sdk.model import ComponentKind

from servery_dialect_ome import kinds
from servery_dialect_ome.models import Model, Weight

_NOT_IN_A_VALUE = re.compile(r"[^A-Za-z0-9_.-]+")

_NOT_COPIED = frozenset(
    {
        "autoscaling.knative.dev/min-scale",
        "autoscaling.knative.dev/max-scale",
        "internal.ome.io/storage-initializer-sourceuri",
        "kubectl.kubernetes.io/last-applied-configuration",
    }
)
"""Annotations of a service that its pods do not get (OME's own list)."""


def value(text: str) -> str:
    """Return ``text`` as the value of a label."""
    return names.shortened(_NOT_IN_A_VALUE.sub("-", text)).strip("-_.")


def of_component(
    service: str, word: str, model: Model | None, weight: Weight | None, annotations: Mapping[str, str]
) -> dict[str, str]:
    """Return the labels of a component; ``annotations`` are the service's.

    Source: OME constants and components/base.go; the words are read by shipped routers and cannot change.
    """
    made = {kinds.SERVICE_LABEL: service, kinds.COMPONENT_LABEL: word, "fine-tuned-serving": str(bool(weight)).lower()}
    if model is not None:
        made |= {
            "base-model-name": value(model.name),
            "base-model-size": value(model.category),
            "base-model-type": "Serving",
        }
        if model.vendor:
            made["base-model-vendor"] = value(model.vendor)
    if weight is not None:
        made["fine-tuned-serving-with-merged-weights"] = str(weight.is_merged).lower()
        if weight.strategy:
            made["fine-tuned-weight-ft-strategy"] = value(weight.strategy)
    return made | _queue(annotations)


def _queue(annotations: Mapping[str, str]) -> dict[str, str]:
    dedicated = annotations.get(kinds.DEDICATED_CLUSTER)
    if dedicated and kinds.KUEUE in annotations:
        return {
            "kueue.x-k8s.io/queue-name": value(dedicated),
            "kueue.x-k8s.io/priority-class": "kueue-scheduling-high-priority",
        }
    if dedicated:
        return {
            "volcano.sh/queue-name": value(dedicated),
            "ray.io/priority-class-name": "volcano-scheduling-high-priority",
        }
    queue = annotations.get(kinds.VOLCANO_QUEUE)
    return {"volcano.sh/queue-name": value(queue)} if queue else {}


def annotations_of(
    annotations: Mapping[str, str], own: Mapping[str, str], model: Model | None, compartment: str | None
) -> dict[str, str]:
    """Return the annotations of a component's pods: the service's, its own, and what OME says of the model."""
    made = {key: found for key, found in annotations.items() if key not in _NOT_COPIED} | dict(own)
    if model is not None:
        made[f"{kinds.GROUP}/base-model-name"] = model.name
        made[f"{kinds.GROUP}/base-model-vendor"] = model.vendor
        made[f"{kinds.GROUP}/base-model-format"] = model.format.name if model.format else ""
        if model.format and model.format.version:
            made[f"{kinds.GROUP}/base-model-format-version"] = model.format.version
    if compartment:
        made[f"{kinds.GROUP}/compartment-id"] = compartment
    return made


WORDS: Mapping[ComponentKind, str] = {
    ComponentKind.PREDICTOR: "engine",
    ComponentKind.DECODER: "decoder",
    ComponentKind.ROUTER: "router",
}
"""OME's words for components."""
