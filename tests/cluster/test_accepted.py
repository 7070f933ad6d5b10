"""A real API server accepts what we print and what we render, with strict field validation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from servery_controller import render
from servery_controller.planning import PlanningSettings
from servery_kube.client import KubeClient, connect
from servery_sdk import kinds, plugins
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Kind, Manifest
from servery_sdk.model import Capability

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared" / "corpus"
INSTALLED = plugins.load()
RENDERED = {
    (kind.api_version, kind.kind): kind
    for kind in (
        kinds.DEPLOYMENT,
        kinds.SERVICE,
        kinds.HORIZONTAL_POD_AUTOSCALER,
        kinds.POD_DISRUPTION_BUDGET,
        kinds.INGRESS,
        kinds.HTTP_ROUTE,
        kinds.SCALED_OBJECT,
    )
}


def manifests() -> Iterator[tuple[str, Manifest]]:
    for path in sorted(
        [*(ROOT / "examples").glob("**/*.yaml"), *CORPUS.glob("kserve*/*.yaml"), *CORPUS.glob("pages/*.yaml")]
    ):
        for document in yaml.safe_load_all(path.read_text()):
            if document and document.get("kind"):
                yield path.name, document


def rendered(capabilities: frozenset[Capability]) -> Iterator[tuple[str, Manifest]]:
    catalogue = [m for _, m in manifests() if render.runtime_dialect_of(m, INSTALLED)]
    catalog = render.catalog_from(catalogue, INSTALLED, capabilities)
    for name, manifest in manifests():
        if render.dialect_of(manifest, INSTALLED) is None:
            continue
        try:
            _, objects = render.render(manifest, catalog, INSTALLED, PlanningSettings())
        except ServeryError:
            # Refusals are reviewed by tests/golden.
            continue
        yield from ((name, found) for found in objects)


def renamed(manifest: Manifest, namespace: str) -> dict[str, Any]:
    # The owner is not there; the API server wants a uid that is not empty.
    metadata = {**manifest["metadata"], "namespace": namespace}
    metadata["ownerReferences"] = [{**owner, "uid": "0"} for owner in metadata.get("ownerReferences", ())]
    return {**manifest, "metadata": metadata}


@pytest.mark.parametrize(
    "capabilities",
    [frozenset[Capability](), frozenset({Capability.GATEWAY_API})],
    ids=["ingress", "gateway-api"],
)
async def test_every_rendered_object_is_accepted(
    api_server: Any,
    engine_crds: None,
    namespace: str,
    capabilities: frozenset[Capability],
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused: list[str] = []
    count = 0
    async with connect(str(api_server.kubeconfig())) as client:
        dry = KubeClient(client._api, dry_run=True)
        for name, manifest in rendered(capabilities):
            kind: Kind = RENDERED[manifest["apiVersion"], manifest["kind"]]
            count += 1
            try:
                await dry.apply(renamed(manifest, namespace), kind)
            except ServeryError as error:
                refused.append(f"{name}: {kind.kind}: {error}")
    with capsys.disabled():
        print(f"\naccepted: {count - len(refused)} of {count} objects")
    assert refused == []
    assert count > 0


async def test_corpus_fits_our_crds(crds: None, api_server: Any, namespace: str) -> None:
    refused: list[str] = []
    async with connect(str(api_server.kubeconfig())) as client:
        dry = KubeClient(client._api, dry_run=True)
        for name, manifest in manifests():
            owner = render.dialect_of(manifest, INSTALLED) or render.runtime_dialect_of(manifest, INSTALLED)
            if owner is None:
                continue
            metadata = {**manifest["metadata"]}
            metadata.pop("namespace", None)
            placed = {**manifest, "metadata": {**metadata, **({"namespace": namespace} if owner[1].namespaced else {})}}
            try:
                owner[0].parse(placed, render.catalog_from([], INSTALLED)) if owner[1] in owner[0].services else None
            except ServeryError:
                continue
            try:
                await dry.apply(placed, owner[1])
            except ServeryError as error:
                refused.append(f"{name}: {error}")
    assert refused == []


def test_overlay_is_applied_whole(api_server: Any, crds: None) -> None:
    api_server.apply_kustomization(ROOT / "deploy" / "kustomize" / "overlays" / "raw")
