"""The CustomResourceDefinitions, printed from the schemas."""

from __future__ import annotations

from servery_sdk.crds import column, definition
from servery_sdk.manifests import Manifest

from servery_dialect_kubedl import schema
from servery_dialect_kubedl.kinds import INFERENCE, MODEL, MODEL_VERSION


def crds() -> tuple[Manifest, ...]:
    """Return the definitions with KubeDL's short names and printer columns."""
    return (
        definition(
            INFERENCE,
            schema.INFERENCE,
            (
                column("Endpoint", ".status.inferenceEndpoint"),
                column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
                column("Age", ".metadata.creationTimestamp", "date"),
            ),
        ),
        definition(
            MODEL,
            schema.MODEL,
            (
                column("Latest-Version", ".status.latestVersion.modelVersion"),
                column("Latest-Image", ".status.latestVersion.imageName"),
            ),
            short_names=("mo",),
        ),
        definition(
            MODEL_VERSION,
            schema.MODEL_VERSION,
            (
                column("Model", ".spec.modelName"),
                column("Image", ".status.image"),
                column("Created-By", ".spec.createdBy"),
                column("Finish-Time", ".status.finishTime"),
            ),
            short_names=("mv",),
            # KubeDL writes its status as a part of the object.
            has_status=False,
        ),
    )
