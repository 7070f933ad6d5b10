"""The reference pages are what their generator prints, and say something of everything."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic_settings import BaseSettings
from servery_controller.settings import Settings as ControllerSettings
from servery_predictor.metrics import Metrics
from servery_predictor.settings import Settings as PredictorSettings
from servery_sdk import plugins
from servery_storage.settings import Settings as StorageSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"
INSTALLED = plugins.load()


@pytest.fixture(scope="module", autouse=True)
def folder_of_the_generator() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield


def part(name: str) -> Any:
    """Import a part of the generator; its own types are not checked."""
    found: ModuleType = importlib.import_module(f"reference_pages.{name}")
    return found


def test_reference_is_up_to_date() -> None:
    found = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    assert found == importlib.import_module("generate").files(), "run: uv run python docs/reference/generate.py"


def test_every_service_with_settings_has_a_section() -> None:
    services = len(list(ROOT.glob("services/*/src/*/settings.py")))
    assert part("settings").page().count("\n## ") == services == len(part("settings").FLAGS)


@pytest.mark.parametrize(
    "settings", [ControllerSettings, PredictorSettings, StorageSettings], ids=lambda s: s.__module__
)
def test_every_field_has_a_row_with_its_variable(settings: type[BaseSettings]) -> None:
    rows = [line.split(" | ") for line in part("settings").page().splitlines()]
    variables = {f"`{settings.model_config['env_prefix']}{name.upper()}`" for name in settings.model_fields}
    meanings = {cell: row[-1] for row in rows for cell in row if cell in variables}
    assert meanings.keys() == variables
    assert all(len(meaning.rstrip(" |")) > 5 for meaning in meanings.values())


def test_every_metric_that_is_exposed_has_a_row() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    exposed = {metric.name for metric in registry.collect()}
    assert exposed
    assert [name for name in exposed if f"| `{name}" not in part("metrics").page()] == []


class Undocumented(BaseSettings):
    """A field of it has no docstring."""

    workers: int = 1
    retries: int = 2
    """Tries."""


def test_field_without_a_docstring_is_named() -> None:
    with pytest.raises(ValueError, match="field workers has no docstring"):
        part("settings").settings_table("servery-controller", Undocumented)
