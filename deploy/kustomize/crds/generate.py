"""Print the CustomResourceDefinitions of the installed dialects, one file each, and their kustomization."""

from __future__ import annotations

from pathlib import Path

import yaml
from servery_sdk import plugins

FOLDER = Path(__file__).parent
HEADER = "# Printed from the dialects' schemas by generate.py; edit those.\n"


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    crds = [crd for dialect in plugins.load().dialects.values() for crd in dialect.crds()]
    objects = {f"{crd['metadata']['name']}.yaml": crd for crd in crds}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(objects),
    }
    return {
        name: HEADER + yaml.dump(content, Dumper=_NoAliases, sort_keys=False, width=120)
        for name, content in {**objects, "kustomization.yaml": kustomization}.items()
    }


class _NoAliases(yaml.SafeDumper):
    """Schemas share parts; their YAML must not refer back to them."""

    def ignore_aliases(self, data: object) -> bool:
        """Say that nothing is written as an alias."""
        return True


if __name__ == "__main__":
    for file, text in files().items():
        (FOLDER / file).write_text(text)
