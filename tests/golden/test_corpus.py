"""Every KServe manifest of the corpus renders, or is refused for a reason that is reviewed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from servery_controller import render
from servery_controller.planning import PlanningSettings
from servery_sdk import plugins
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Manifest

HERE = Path(__file__).parent
INSTALLED = plugins.load()
KINDS = frozenset({"InferenceService", "ServingRuntime", "ClusterServingRuntime"})


def manifests(corpus: Path) -> Iterator[tuple[str, Manifest]]:
    for path in sorted(
        [*corpus.glob("kserve*/*.yaml"), *corpus.glob("pages/kserve*.yaml"), *corpus.glob("pages/lesson*.yaml")]
    ):
        for index, document in enumerate(yaml.safe_load_all(path.read_text())):
            if document and document.get("kind") in KINDS:
                yield f"{path.relative_to(corpus)}#{index}", document


def outcome(manifest: Manifest, catalog: Any) -> str:
    try:
        owner = render.runtime_dialect_of(manifest, INSTALLED)
        if owner is not None:
            owner[0].parse_runtime(manifest)
            return "parsed"
        render.render(manifest, catalog, INSTALLED, PlanningSettings())
    except ServeryError as refusal:
        return f"refused: {refusal}"
    return "rendered"


def test_every_manifest_of_the_corpus_renders_or_is_refused_for_a_reviewed_reason(
    corpus: Path, golden: Callable[[Path, Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    found = list(manifests(corpus))
    catalogue = [manifest for name, manifest in found if name.startswith("kserve-runtimes/")]
    outcomes: dict[str, str] = {}
    for name, manifest in found:
        # A manifest that brings its own runtimes is applied together with them.
        own = [m for other, m in found if other.partition("#")[0] == name.partition("#")[0]]
        catalog = render.catalog_from([*catalogue, *own], INSTALLED)
        outcomes[name] = outcome(manifest, catalog)
    counts = Counter(result.partition(":")[0] for result in outcomes.values())
    with capsys.disabled():
        print("\ncorpus:", ", ".join(f"{count} {result}" for result, count in sorted(counts.items())))
    golden(HERE / "corpus.yaml", [outcomes])
