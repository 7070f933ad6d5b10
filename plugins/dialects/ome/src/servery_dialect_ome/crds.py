"""The CustomResourceDefinitions, printed from the schemas."""

from __future__ import annotations

from servery_sdk.crds import column, definition
from servery_sdk.manifests import Manifest

from servery_dialect_ome import kinds, schema

_TRAFFIC = ".status.components.engine.traffic"


def crds() -> tuple[Manifest, ...]:
    """Return the definitions with OME's short names and printer columns."""
    age = column("Age", ".metadata.creationTimestamp", "date")
    runtime_columns = (
        column("Disabled", ".spec.disabled", "boolean"),
        column("ModelFormat", ".spec.supportedModelFormats[*].modelFormat.name"),
        column("ModelFramework", ".spec.supportedModelFormats[*].modelFramework.name"),
        column("ModelArchitecture", ".spec.supportedModelFormats[*].modelArchitecture"),
        column("ModelSizeMin", ".spec.modelSizeRange.min"),
        column("ModelSizeMax", ".spec.modelSizeRange.max"),
        age,
    )
    model_columns = (
        column("Disabled", ".spec.disabled", "boolean"),
        column("Vendor", ".spec.vendor"),
        column("Architecture", ".spec.modelArchitecture"),
        column("Size", ".spec.modelParameterSize"),
        age,
    )
    return (
        definition(
            kinds.INFERENCE_SERVICE,
            schema.SERVICE,
            (
                column("URL", ".status.url"),
                column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
                column("BaseModel", ".spec.model.name"),
                column("Runtime", ".spec.runtime.name"),
                column("Prev", f'{_TRAFFIC}[?(@.tag=="prev")].percent', "integer"),
                column("Latest", f"{_TRAFFIC}[?(@.latestRevision==true)].percent", "integer"),
                column("PrevRolledoutRevision", f'{_TRAFFIC}[?(@.tag=="prev")].revisionName'),
                column("LatestReadyRevision", f"{_TRAFFIC}[?(@.latestRevision==true)].revisionName"),
                age,
            ),
            # OME's is isvc. KServe's users type that, and where both are installed OME's group would come first.
            short_names=("omeisvc",),
        ),
        definition(kinds.SERVING_RUNTIME, schema.RUNTIME, runtime_columns, has_status=False),
        definition(kinds.CLUSTER_SERVING_RUNTIME, schema.RUNTIME, runtime_columns, has_status=False),
        definition(kinds.BASE_MODEL, schema.MODEL, model_columns),
        definition(kinds.CLUSTER_BASE_MODEL, schema.MODEL, model_columns),
        definition(kinds.FINE_TUNED_WEIGHT, schema.WEIGHT, (column("Vendor", ".spec.vendor"), age)),
        definition(
            kinds.ACCELERATOR_CLASS,
            schema.ACCELERATOR_CLASS,
            (column("Vendor", ".spec.vendor"), column("Family", ".spec.family")),
        ),
    )
