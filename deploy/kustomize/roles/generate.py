"""Print what the controller may do with the kinds of the installed dialects, and of each mode, a folder each.

No wildcard, and nothing that a dialect does not read or a mode does not render.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml
from servery_sdk import plugins
from servery_sdk.contract import HoldingDialect
from servery_sdk.kinds import CONFIG_MAP
from servery_sdk.manifests import Kind, Manifest

FOLDER = Path(__file__).parent
HEADER = "# Printed from the plugins by generate.py; edit those.\n"
READ = ["get", "list", "watch"]
OWN = ["get", "list", "watch", "create", "patch", "delete"]


def rules(kinds: Iterable[Kind], verbs: list[str], subresource: str = "") -> Iterator[Manifest]:
    """Yield a rule for each API group among ``kinds``."""
    by_group: dict[str, set[str]] = {}
    for kind in kinds:
        group = kind.api_version.rpartition("/")[0]
        by_group.setdefault(group, set()).add(f"{kind.plural}/{subresource}" if subresource else kind.plural)
    for group, resources in sorted(by_group.items()):
        yield {"apiGroups": [group], "resources": sorted(resources), "verbs": verbs}


def dialect_rules() -> Iterator[Manifest]:
    """Yield what reading manifests and writing their status takes."""
    dialects = plugins.load().dialects.values()
    services = {kind for dialect in dialects for kind in dialect.services}
    yield from rules({kind for d in dialects for kind in d.services | d.runtimes | d.models}, READ)
    held = {kind for dialect in dialects if isinstance(dialect, HoldingDialect) for kind in dialect.held}
    yield from rules(services | held, ["get", "patch"], "status")
    if held:
        # They tell pods which models they hold.
        yield from rules({CONFIG_MAP}, OWN)
    # Owner references that block deletion need this where the admission plugin of that name is on.
    yield from rules(services, ["update"], "finalizers")


def role(name: str, granted: Iterable[Manifest]) -> list[Manifest]:
    """Return a ClusterRole of ``granted`` for the controller."""
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subject = {"kind": "ServiceAccount", "name": "servery-controller", "namespace": "servery-system"}
    api_version = "rbac.authorization.k8s.io/v1"
    return [
        {"apiVersion": api_version, "kind": "ClusterRole", "metadata": {"name": name}, "rules": list(granted)},
        {
            "apiVersion": api_version,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": reference,
            "subjects": [subject],
        },
    ]


def files() -> dict[str, str]:
    """Return the text of each file by its name."""
    roles = {"dialects": role("servery-dialects", dialect_rules())}
    for name, mode in sorted(plugins.load().modes.items()):
        roles[name] = role(f"servery-mode-{name}", rules(mode.kinds, OWN))
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["rbac.yaml"],
    }
    return {
        file: HEADER + yaml.dump_all(content, Dumper=_NoAliases, sort_keys=False)
        for name, granted in roles.items()
        for file, content in ((f"{name}/rbac.yaml", granted), (f"{name}/kustomization.yaml", [kustomization]))
    }


class _NoAliases(yaml.SafeDumper):
    """Rules share verbs; their YAML must not refer back to them."""

    def ignore_aliases(self, data: object) -> bool:
        """Say that nothing is written as an alias."""
        return True


if __name__ == "__main__":
    for file, text in files().items():
        (FOLDER / file).parent.mkdir(exist_ok=True)
        (FOLDER / file).write_text(text)
