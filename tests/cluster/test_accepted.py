"""A real API server accepts what we print, and what every mode renders of every service, with strict field validation."""

from __future__ import annotations

import asyncio
import functools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import Page, pages
from servery_controller import planning, render
from servery_controller.planning import PlanningSettings
from servery_kube.client import KubeClient, connect
from servery_sdk import plugins
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Kind, Manifest
from servery_sdk.model import Capability

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
INSTALLED = plugins.load()
KINDS = {(kind.api_version, kind.kind): kind for mode in INSTALLED.modes.values() for kind in mode.kinds}
AT_ONCE = 16

EVERYTHING = frozenset(Capability)
OFFERS = {"gateway-api": EVERYTHING, "ingress": EVERYTHING - {Capability.GATEWAY_API}}


def folders() -> Iterator[Path]:
    """Examples, and the corpora that are named after a dialect: ``kserve``, ``kserve-runtimes``."""
    yield ROOT / "examples"
    for dialect in INSTALLED.dialects:
        yield from (SHARED / "corpus").glob(f"{dialect}*")
    yield SHARED / "corpus" / "pages"


@functools.cache
def manifests() -> tuple[tuple[str, Manifest], ...]:
    return tuple(
        (f"{folder.name}/{path.relative_to(folder)}", document)
        for folder in sorted(folders())
        for path in sorted(folder.glob("**/*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document and document.get("kind")
    )


@dataclass
class Rendered:
    """What a mode makes of the services: of which file each object comes, and why others are left out."""

    objects: dict[str, tuple[str, Manifest]] = field(default_factory=dict)
    services: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def rendered(name: str, capabilities: frozenset[Capability]) -> Rendered:
    mode, made = INSTALLED.modes[name], Rendered()
    catalog = render.catalog_from([manifest for _, manifest in manifests()], INSTALLED, capabilities)
    for file, manifest in manifests():
        owner = render.dialect_of(manifest, INSTALLED)
        if owner is None:
            continue
        try:
            service = replace(owner[0].parse(manifest, catalog), mode=name)
            plan = planning.plan(service, catalog, PlanningSettings())
        except ServeryError:
            # Refused in every mode; tests/golden reviews the reasons.
            continue
        if objections := mode.objections(plan):
            made.left_out.update(objections)
            continue
        if missing := mode.requires(plan) - capabilities:
            made.left_out.update(f"needs {capability.product}" for capability in missing)
            continue
        made.services[owner[0].name] += 1
        for found in mode.render(plan):
            # Many services of a corpus make the same objects but for their uid.
            made.objects.setdefault(json.dumps(found, sort_keys=True), (file, found))
    return made


def renamed(manifest: Manifest, namespace: str) -> dict[str, Any]:
    # The owner is not there; the API server wants a uid that is not empty.
    metadata = {**manifest["metadata"], "namespace": namespace}
    metadata["ownerReferences"] = [{**owner, "uid": "0"} for owner in metadata.get("ownerReferences", ())]
    made = {**manifest, "metadata": metadata}
    if "subjects" in made:
        made["subjects"] = [{**subject, "namespace": namespace} for subject in made["subjects"]]
    return made


@pytest.mark.timeout(300)
@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("mode", sorted(INSTALLED.modes))
async def test_every_rendered_object_is_accepted(
    api_server: Any,
    engines: None,
    namespace: str,
    mode: str,
    offer: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made, refused, turn = rendered(mode, OFFERS[offer]), [], asyncio.Semaphore(AT_ONCE)
    async with connect(str(api_server.kubeconfig())) as client:
        dry = KubeClient(client._api, dry_run=True)

        async def check(file: str, manifest: Manifest) -> None:
            kind: Kind = KINDS[manifest["apiVersion"], manifest["kind"]]
            async with turn:
                try:
                    await dry.apply(renamed(manifest, namespace), kind)
                except ServeryError as error:
                    refused.append(f"{file}: {kind.kind}: {error}")

        async with asyncio.TaskGroup() as group:
            for file, manifest in made.objects.values():
                group.create_task(check(file, manifest))
    with capsys.disabled():
        services = ", ".join(f"{count} {dialect}" for dialect, count in sorted(made.services.items()))
        print(
            f"\n{mode}, {offer}: accepted {len(made.objects) - len(refused)} of {len(made.objects)} objects ({services})"
        )
        for reason, count in sorted(made.left_out.items()):
            print(f"  left out {count}: {reason}")
    assert sorted(refused) == []
    assert made.services["kserve"] > 0


@pytest.mark.parametrize("page", list(pages()), ids=lambda page: page.name)
async def test_page_is_accepted_in_its_own_mode(
    admin: KubeClient, crds: None, engines: None, namespace: str, page: Page
) -> None:
    catalog = render.catalog_from([*page.catalog, *page.manifests], INSTALLED, EVERYTHING)
    settings = PlanningSettings(default_mode=page.mode)
    dry = KubeClient(admin._api, dry_run=True)
    for manifest in page.manifests:
        service, runtime = render.dialect_of(manifest, INSTALLED), render.runtime_dialect_of(manifest, INSTALLED)
        owner = service or runtime
        assert owner is not None
        metadata = {**manifest["metadata"], "namespace": namespace}
        await dry.apply({**manifest, "metadata": metadata}, owner[1])
        if service is not None:
            for found in render.render(manifest, catalog, INSTALLED, settings)[1]:
                await dry.apply(renamed(found, namespace), KINDS[found["apiVersion"], found["kind"]])


async def test_corpus_fits_our_crds(crds: None, api_server: Any, namespace: str) -> None:
    refused: list[str] = []
    catalog = render.catalog_from([manifest for _, manifest in manifests()], INSTALLED)
    async with connect(str(api_server.kubeconfig())) as client:
        dry = KubeClient(client._api, dry_run=True)
        for name, manifest in manifests():
            owner = render.dialect_of(manifest, INSTALLED) or render.runtime_dialect_of(manifest, INSTALLED)
            if owner is None:
                continue
            try:
                parse = owner[0].parse if owner[1] in owner[0].services else None
                parse(manifest, catalog) if parse else owner[0].parse_runtime(manifest)
            except ServeryError:
                continue
            metadata = {**manifest["metadata"]}
            metadata.pop("namespace", None)
            placed = {**manifest, "metadata": {**metadata, **({"namespace": namespace} if owner[1].namespaced else {})}}
            try:
                await dry.apply(placed, owner[1])
            except ServeryError as error:
                refused.append(f"{name}: {error}")
    assert refused == []


@pytest.mark.parametrize("mode", sorted(INSTALLED.modes))
def test_overlay_is_applied_whole(api_server: Any, crds: None, mode: str) -> None:
    api_server.apply_kustomization(ROOT / "deploy" / "kustomize" / "overlays" / mode)
