"""The CustomResourceDefinitions, printed from the schemas."""

from __future__ import annotations

from servery_sdk.crds import column, definition
from servery_sdk.manifests import Manifest

from servery_dialect_kserve import schema
from servery_dialect_kserve.kinds import CLUSTER_SERVING_RUNTIME, INFERENCE_SERVICE, SERVING_RUNTIME, TRAINED_MODEL

_TRAFFIC = ".status.components.predictor.traffic"


def crds() -> tuple[Manifest, ...]:
    """Return the definitions with KServe's short names and printer columns."""
    age = column("Age", ".metadata.creationTimestamp", "date")
    runtime_columns = (
        column("Disabled", ".spec.disabled", "boolean"),
        column("ModelType", ".spec.supportedModelFormats[*].name"),
        column("Containers", ".spec.containers[*].name"),
        age,
    )
    return (
        definition(
            INFERENCE_SERVICE,
            schema.SERVICE,
            (
                column("URL", ".status.url"),
                column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
                column("Prev", f'{_TRAFFIC}[?(@.tag=="prev")].percent', "integer"),
                column("Latest", f"{_TRAFFIC}[?(@.latestRevision==true)].percent", "integer"),
                column("PrevRolledoutRevision", f'{_TRAFFIC}[?(@.tag=="prev")].revisionName'),
                column("LatestReadyRevision", f"{_TRAFFIC}[?(@.latestRevision==true)].revisionName"),
                age,
            ),
            short_names=("isvc",),
        ),
        definition(
            TRAINED_MODEL,
            schema.TRAINED_MODEL,
            (column("URL", ".status.url"), column("Ready", '.status.conditions[?(@.type=="Ready")].status'), age),
            short_names=("tm",),
        ),
        definition(SERVING_RUNTIME, schema.RUNTIME, runtime_columns),
        definition(CLUSTER_SERVING_RUNTIME, schema.RUNTIME, runtime_columns),
    )
