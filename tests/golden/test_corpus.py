"""Every upstream manifest of the corpus renders, or is refused for a reason that is reviewed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from servery_controller import render
from servery_controller.planning import PlanningSettings
from servery_sdk import plugins
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Manifest
from servery_sdk.model import Capability, Catalog

HERE = Path(__file__).parent
INSTALLED = plugins.load()
EVERYTHING = frozenset(Capability)
OF_OTHER_PRODUCTS = frozenset({"Namespace", "Secret", "ConfigMap", "ServiceAccount"})
"""Kubernetes' own, which lie beside services in a file."""


def documents(folder: Path) -> Iterator[tuple[str, Manifest]]:
    """Yield the manifests of one folder, each with its file and its place in it."""
    for path in sorted(folder.glob("*.yaml")):
        for index, document in enumerate(yaml.safe_load_all(path.read_text())):
            if document and document.get("kind"):
                yield f"{path.name}#{index}", document


def is_known(manifest: Manifest) -> bool:
    owners = (render.dialect_of, render.runtime_dialect_of, render.model_dialect_of)
    return any(owner(manifest, INSTALLED) is not None for owner in owners)


def outcome(manifest: Manifest, catalog: Catalog, mode: str = "raw") -> str:
    try:
        if (owner := render.runtime_dialect_of(manifest, INSTALLED)) is not None:
            owner[0].parse_runtime(manifest)
            return "parsed"
        if (owner := render.model_dialect_of(manifest, INSTALLED)) is not None:
            render.check_model(manifest, *owner)
            return "parsed"
        render.render(manifest, catalog, INSTALLED, PlanningSettings(default_mode=mode))
    except ServeryError as refusal:
        return f"refused: {refusal}"
    return "rendered"


def outcomes(found: Sequence[tuple[str, Manifest]], catalogue: Sequence[Manifest]) -> dict[str, str]:
    results: dict[str, str] = {}
    installed = render.catalog_from(catalogue, INSTALLED, EVERYTHING)
    for name, manifest in found:
        # A manifest that brings its own runtimes and models is applied together with them.
        own = [m for other, m in found if other.partition("#")[0] == name.partition("#")[0] and m not in catalogue]
        with_own = render.catalog_from([*catalogue, *own], INSTALLED, EVERYTHING) if len(own) > 1 else installed
        results[name] = outcome(manifest, with_own)
    return results


def share(results: Mapping[str, str]) -> tuple[Counter[str], float]:
    counts = Counter(result.partition(":")[0] for result in results.values())
    return counts, counts["rendered"] / (counts["rendered"] + counts["refused"])


def reasons(results: Mapping[str, str]) -> list[str]:
    refused = Counter(result for result in results.values() if result.startswith("refused"))
    return [f"{count} {words}" for words, count in refused.most_common()]


CORPORA = {
    # Folder: those whose runtimes and models are installed beside it, as upstream's own installation does.
    "kserve": ("kserve-runtimes",),
    "kserve-runtimes": (),
    "ome": ("ome", "ome-catalogue"),
    "ome-catalogue": ("ome-catalogue",),
    "kubedl": ("kubedl",),
}


@pytest.mark.parametrize("folder", CORPORA)
def test_every_manifest_renders_or_is_refused_for_a_reviewed_reason(
    corpus: Path, golden: Callable[[Path, Any], None], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = [
        manifest
        for name in CORPORA[folder]
        for _, manifest in documents(corpus / name)
        if render.dialect_of(manifest, INSTALLED) is None
    ]
    everything = [(name, manifest) for name, manifest in documents(corpus / folder)]
    found = [(name, manifest) for name, manifest in everything if is_known(manifest)]
    others = Counter(str(m["kind"]) for _, m in everything if not is_known(m) and m["kind"] not in OF_OTHER_PRODUCTS)
    results = outcomes(found, installed)
    services = {name: results[name] for name, manifest in found if render.dialect_of(manifest, INSTALLED)}
    counts, rendered = share(results) if services else (Counter(), 1.0)
    with capsys.disabled():
        print(f"\n{folder}: {len(found)} manifests, {len(services)} services: {dict(sorted(counts.items()))}")
        print(f"  of services, rendered: {rendered:.0%}; other kinds: {dict(sorted(others.items()))}")
        for reason in reasons(results):
            print(f"  {reason}")
    golden(HERE / "corpus" / f"{folder}.yaml", [results])
    assert rendered >= 0.7
