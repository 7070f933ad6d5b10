"""Print the installed runtime plugins as ClusterServingRuntimes, one file each, and their kustomization.

Source: KServe ``serving.kserve.io/v1alpha1`` ClusterServingRuntime.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from servery_sdk import plugins
from servery_sdk.manifests import Manifest
from servery_sdk.model import ComponentKind, Runtime, SupportedFormat

FOLDER = Path(__file__).parent
HEADER = "# Printed from the runtime plugins by generate.py; edit those.\n"
CONTAINER = "kserve-container"


def cluster_serving_runtime(runtime: Runtime) -> Manifest:
    """Return the object that says to a cluster what the descriptor says to us."""
    part = runtime.parts[ComponentKind.PREDICTOR]
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime",
        "metadata": {"name": runtime.name, "labels": {"app.kubernetes.io/part-of": "servery"}},
        "spec": {
            "supportedModelFormats": [_format(supported) for supported in runtime.formats],
            "protocolVersions": sorted(map(str, runtime.protocols)),
            "containers": [{"name": CONTAINER, **part.container}],
            **part.pod,
        },
    }


def _format(supported: SupportedFormat) -> Manifest:
    optional = {"version": supported.version, "priority": supported.priority}
    return {
        "name": supported.name,
        "autoSelect": supported.auto_select,
        **{key: value for key, value in optional.items() if value is not None},
    }


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    objects = {
        f"{name}.yaml": cluster_serving_runtime(runtime)
        for name, runtime in sorted(plugins.load().runtimes.items())
        # KServe has no objects for what explains.
        if ComponentKind.PREDICTOR in runtime.parts
    }
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(objects),
    }
    return {
        name: HEADER + yaml.safe_dump(content, sort_keys=False)
        for name, content in {**objects, "kustomization.yaml": kustomization}.items()
    }


if __name__ == "__main__":
    for file, text in files().items():
        (FOLDER / file).write_text(text)
