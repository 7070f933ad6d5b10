"""CustomResourceDefinitions, printed from a dialect's schemas."""

from __future__ import annotations

from collections.abc import Sequence

from servery_sdk.kinds import CUSTOM_RESOURCE_DEFINITION
from servery_sdk.manifests import Json, Kind, Manifest


def column(name: str, path: str, kind: str = "string") -> Json:
    """Return a printer column: what ``kubectl get`` shows."""
    return {"name": name, "jsonPath": path, "type": kind}


def definition(
    kind: Kind, schema: Json, columns: Sequence[Json], *, short_names: Sequence[str] = (), has_status: bool = True
) -> Manifest:
    """Return the definition of ``kind``.

    Args:
        columns: From ``column``, in the order in which they are shown.
        short_names: Such as ``isvc``.
        has_status: Whether ``status`` is a subresource of its own.
    """
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
                    "subresources": {"status": {}} if has_status else {},
                    "additionalPrinterColumns": list(columns),
                }
            ],
        },
    }
