"""The CustomResourceDefinitions, printed from the schemas."""

from __future__ import annotations

from collections.abc import Sequence

from servery_sdk.kinds import CUSTOM_RESOURCE_DEFINITION
from servery_sdk.manifests import Json, Kind, Manifest

from servery_dialect_kserve import schema
from servery_dialect_kserve.kinds import CLUSTER_SERVING_RUNTIME, INFERENCE_SERVICE, SERVING_RUNTIME

_TRAFFIC = ".status.components.predictor.traffic"


def crds() -> tuple[Manifest, ...]:
    """Return the definitions with KServe's short names and printer columns."""
    age = _column("Age", ".metadata.creationTimestamp", "date")
    runtime_columns = (
        _column("Disabled", ".spec.disabled", "boolean"),
        _column("ModelType", ".spec.supportedModelFormats[*].name"),
        _column("Containers", ".spec.containers[*].name"),
        age,
    )
    return (
        _definition(
            INFERENCE_SERVICE,
            schema.SERVICE,
            (
                _column("URL", ".status.url"),
                _column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
                _column("Prev", f'{_TRAFFIC}[?(@.tag=="prev")].percent', "integer"),
                _column("Latest", f"{_TRAFFIC}[?(@.latestRevision==true)].percent", "integer"),
                _column("PrevRolledoutRevision", f'{_TRAFFIC}[?(@.tag=="prev")].revisionName'),
                _column("LatestReadyRevision", f"{_TRAFFIC}[?(@.latestRevision==true)].revisionName"),
                age,
            ),
            short_names=("isvc",),
        ),
        _definition(SERVING_RUNTIME, schema.RUNTIME, runtime_columns),
        _definition(CLUSTER_SERVING_RUNTIME, schema.RUNTIME, runtime_columns),
    )


def _column(name: str, path: str, kind: str = "string") -> Json:
    return {"name": name, "jsonPath": path, "type": kind}


def _definition(kind: Kind, schema: Json, columns: Sequence[Json], short_names: Sequence[str] = ()) -> Manifest:
    names = {"kind": kind.kind, "listKind": f"{kind.kind}List", "plural": kind.plural, "singular": kind.kind.lower()}
    if short_names:
        names["shortNames"] = list(short_names)  # type: ignore[assignment]  # JSON
    return {
        "apiVersion": CUSTOM_RESOURCE_DEFINITION.api_version,
        "kind": CUSTOM_RESOURCE_DEFINITION.kind,
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [
                {
                    "name": kind.api_version.rpartition("/")[2],
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": list(columns),
                }
            ],
        },
    }
