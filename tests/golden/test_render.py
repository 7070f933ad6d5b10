"""Every example renders to reviewed objects; KServe's own golden service renders to KServe's objects."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from servery_controller import render
from servery_controller.planning import PlanningSettings
from servery_sdk import plugins
from servery_sdk.model import Capability

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
INSTALLED = plugins.load()
# A model may bring YAML of its own.
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("**/*.yaml") if path.parent.name != "model")


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def plain(value: Any) -> Any:
    """Without the types that YAML would spell out."""
    return json.loads(json.dumps(value))


def rendered(manifests: list[dict[str, Any]], **settings: Any) -> Iterator[Any]:
    gateway = frozenset({Capability.GATEWAY_API})
    catalog = render.catalog_from(manifests, INSTALLED, gateway)
    for manifest in manifests:
        if render.dialect_of(manifest, INSTALLED):
            yield from plain(render.render(manifest, catalog, INSTALLED, PlanningSettings(**settings))[1])


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_example_renders_to_reviewed_objects(path: Path, golden: Callable[[Path, Any], None], corpus: Path) -> None:
    manifests = documents(path)
    named = [
        m["spec"].get("predictor", {}).get("model", {}).get("runtime")
        for m in manifests
        if m["kind"] == "InferenceService"
    ]
    for runtime in (corpus / "kserve-runtimes").glob("*.yaml"):
        # An example that names a runtime of KServe's catalogue is meant to run beside that catalogue.
        manifests += [found for found in documents(runtime) if found["metadata"]["name"] in named]
    relative = path.relative_to(ROOT / "examples")
    golden(HERE / "examples" / relative, list(rendered(manifests)))


def appendix_a() -> list[dict[str, Any]]:
    return documents(HERE / "appendix-a" / "input.yaml")


def test_kserves_own_golden_service_renders_to_reviewed_objects(golden: Callable[[Path, Any], None]) -> None:
    settings = {"extra_ingress_domains": ("additional.example.com",), "automount_service_account_token": False}
    golden(HERE / "appendix-a" / "objects.yaml", list(rendered(appendix_a(), **settings)))


def test_rendering_twice_gives_the_same() -> None:
    assert list(rendered(appendix_a())) == list(rendered(appendix_a()))


@pytest.mark.parametrize("folder", ["crds", "roles", "runtimes"])
def test_generated_kustomize_folder_is_up_to_date(folder: str) -> None:
    target = ROOT / "deploy" / "kustomize" / folder
    spec = importlib.util.spec_from_file_location(f"generate_{folder}", target / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {str(path.relative_to(target)): path.read_text() for path in target.glob("**/*.yaml")}
    assert found == module.files()
