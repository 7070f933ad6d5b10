"""The reference pages are what their generator prints, and say something of everything."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client import CollectorRegistry
from pydantic_settings import BaseSettings
from servery_controller.settings import Settings as ControllerSettings
from servery_predictor.metrics import Metrics
from servery_predictor.settings import Settings as PredictorSettings
from servery_storage.settings import Settings as StorageSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_is_up_to_date(generator: ModuleType) -> None:
    found = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    assert found == generator.files(), "run: uv run python docs/reference/generate.py"


def test_every_service_with_settings_has_a_section(generator: ModuleType) -> None:
    services = len(list(ROOT.glob("services/*/src/*/settings.py")))
    assert generator.settings_page().count("\n## ") == services == len(generator.FLAGS)


@pytest.mark.parametrize(
    "settings", [ControllerSettings, PredictorSettings, StorageSettings], ids=lambda s: s.__module__
)
def test_every_field_has_a_row_with_its_variable(generator: ModuleType, settings: type[BaseSettings]) -> None:
    rows = [line.split(" | ") for line in generator.settings_page().splitlines()]
    variables = {f"`{settings.model_config['env_prefix']}{name.upper()}`" for name in settings.model_fields}
    meanings = {cell: row[-1] for row in rows for cell in row if cell in variables}
    assert meanings.keys() == variables
    assert all(len(meaning.rstrip(" |")) > 5 for meaning in meanings.values())


def test_every_metric_that_is_exposed_has_a_row(generator: ModuleType) -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    exposed = {metric.name for metric in registry.collect()}
    assert exposed
    assert [name for name in exposed if f"| `{name}" not in generator.metrics_page()] == []


class Undocumented(BaseSettings):
    """A field of it has no docstring."""

    workers: int = 1
    retries: int = 2
    """Tries."""


def test_field_without_a_docstring_is_named(generator: ModuleType) -> None:
    with pytest.raises(ValueError, match="field workers has no docstring"):
        generator._settings_table("servery-controller", Undocumented)
