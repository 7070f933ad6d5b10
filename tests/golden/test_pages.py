"""Every page's manifest renders in its own mode, and is explained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import CORPUS, Page, pages
from servery_controller import render
from servery_controller.planning import PlanningSettings
from servery_sdk import plugins
from servery_sdk.model import Capability

HERE = Path(__file__).parent
INSTALLED = plugins.load()
PAGES = list(pages()) if CORPUS.is_dir() else []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_renders_in_its_own_mode_and_is_explained(
    page: Page, golden: Callable[[Path, Any], None], corpus: Path
) -> None:
    catalog = render.catalog_from([*page.catalog, *page.manifests], INSTALLED, frozenset(Capability))
    settings = PlanningSettings(default_mode=page.mode)
    services = [manifest for manifest in page.manifests if render.dialect_of(manifest, INSTALLED)]
    assert services
    for service in services:
        plan, objects = render.render(service, catalog, INSTALLED, settings)
        assert objects
        # Without the types that YAML would spell out.
        plain = json.loads(json.dumps([{"explained": list(plan.explanations)}, *objects]))
        golden(HERE / "pages" / f"{page.name}.yaml", plain)


def test_every_page_is_tried(corpus: Path) -> None:
    assert len(PAGES) == len(list((corpus / "pages").glob("*.yaml"))) - 1
