"""The manifests that upstream's introduction pages print, ready to be applied as their pages mean them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from servery_sdk.manifests import Manifest

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
OME_CATALOG = ROOT / "tests" / "golden" / "ome-pages-catalog.yaml"
GRAPH = "kserve-graph-dog-breed.yaml"
"""An InferenceGraph, which is no service: Servery does not take it yet."""

_NAMES = {"ServingRuntime": "vllm-text-generation", "InferenceService": "llama-chat"}
"""What the page of OME's merge leaves to its reader."""


@dataclass(frozen=True)
class Page:
    """One file: its manifests, what is installed beside it, and its installation's mode."""

    name: str
    manifests: tuple[Manifest, ...]
    catalog: tuple[Manifest, ...]
    mode: str


def pages() -> Iterator[Page]:
    for path in sorted((CORPUS / "pages").glob("*.yaml")):
        if path.name == GRAPH:
            continue
        manifests = tuple(_named(manifest) for manifest in _documents(path))
        own = {manifest["metadata"]["name"] for manifest in manifests}
        yield Page(
            name=path.stem,
            manifests=manifests,
            catalog=tuple(found for found in _catalog() if found["metadata"]["name"] not in own),
            # KServe's page on scaling is about its Knative installation.
            mode="knative" if path.name.startswith("kserve-scale-") else "raw",
        )


def _documents(path: Path) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _named(manifest: Manifest) -> Manifest:
    metadata = manifest.get("metadata") or {"name": _NAMES[manifest["kind"]]}
    return {**manifest, "metadata": {"namespace": "default", **metadata}}


def _catalog() -> Iterator[Manifest]:
    for path in sorted((CORPUS / "kserve-runtimes").glob("*.yaml")):
        yield from _documents(path)
    yield from _documents(OME_CATALOG)
