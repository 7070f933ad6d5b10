"""The reference pages are what their generator prints, and say something of everything."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic_settings import BaseSettings
from servery_agent.settings import Settings as AgentSettings
from servery_controller.settings import Settings as ControllerSettings
from servery_predictor.metrics import Metrics
from servery_predictor.settings import Settings as PredictorSettings
from servery_sdk import plugins
from servery_sdk import schema as structural
from servery_sdk.manifests import Kind
from servery_storage.settings import Settings as StorageSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "reference"
INSTALLED = plugins.load()


@pytest.fixture(scope="module", autouse=True)
def folder_of_the_generator() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield


@pytest.fixture(params=sorted(INSTALLED.dialects))
def dialect(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def trials(dialect: str) -> Any:
    return trials_of(dialect)


@functools.cache
def trials_of(dialect: str) -> Any:
    """Make the trials of a dialect; they keep their results."""
    return part("trials").Trials(INSTALLED.dialects[dialect], INSTALLED)


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
    "settings", [AgentSettings, ControllerSettings, PredictorSettings, StorageSettings], ids=lambda s: s.__module__
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


def test_fields_that_change_nothing_are_those_that_have_a_reason(trials: Any) -> None:
    silent = part("fields").without_effect(trials)
    fitting = part("trials").fitting
    assert [field for field in sorted(silent) if fitting(field, trials.nothing) is None] == [], "mend them, or say why"
    assert [end for end in trials.nothing if not any(fitting(field, [end]) for field in silent)] == [], (
        "they do something"
    )


def test_field_that_changes_nothing_without_a_reason_is_named(
    trials: Any, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "nothing", {})
    with pytest.raises(ValueError, match=r"is accepted and no mode does anything with it: mend that, or say why"):
        part("fields").page(trials, dialect, INSTALLED)


@pytest.mark.parametrize("mode", sorted(INSTALLED.modes))
def test_fields_that_one_mode_does_nothing_with_are_those_that_have_a_reason(mode: str) -> None:
    every = [trials_of(dialect) for dialect in INSTALLED.dialects]
    silent = {field for trials in every for field in part("fields").without_effect_in(trials, mode)}
    fitting, reasons = part("trials").fitting, every[0].nothing_in[mode]
    assert [field for field in sorted(silent) if fitting(field, reasons) is None] == [], "mend them, or say why"
    assert [end for end in reasons if not any(fitting(field, [end]) for field in silent)] == [], "they do something"


def test_every_word_of_a_dialect_among_labels_and_annotations_is_tried(trials: Any, dialect: str) -> None:
    (service,) = {kind.kind for kind in INSTALLED.dialects[dialect].services}
    tried = {path.partition("[")[2].removesuffix("]") for path in trials.annotations[service]}
    (start, *_) = trials.starts([service])
    assert start.own - tried - set(trials.added) == set()


def test_every_mode_has_objects_to_compare_for_every_dialect(trials: Any, dialect: str) -> None:
    (service,) = {kind.kind for kind in INSTALLED.dialects[dialect].services}
    (start, *_) = trials.starts([service])
    assert {mode: bool(start.before.of(mode)[1]) for mode in INSTALLED.modes} == dict.fromkeys(INSTALLED.modes, True)


def test_value_is_set_in_lists_and_under_keys_with_dots() -> None:
    schemas = part("schemas")
    found = schemas.with_value({"a": [{"b": 1}, {}]}, "a[].c[x.y/z]", 2)
    assert found == {"a": [{"b": 1, "c": {"x.y/z": 2}}, {}]}
    assert schemas.value_at(found, "a[].c[x.y/z]") == 2
    assert schemas.value_at(found, "a[].d[].e") is None


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 1, "maximum": 2},
        {"type": "integer"},
        {"type": "boolean"},
        {"type": "string", "enum": ["a", "b"], "default": "a"},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"x-kubernetes-int-or-string": True},
    ],
    ids=str,
)
def test_sample_fits_its_schema(schema: dict[str, Any]) -> None:
    assert list(structural.check(part("schemas").sample(schema, None), schema)) == []


@pytest.mark.parametrize(
    "schema",
    [{"type": "integer"}, {"type": "boolean"}, {"type": "string", "enum": ["a", "b", "c"], "default": "b"}],
    ids=lambda schema: schema["type"],
)
def test_sample_is_neither_what_is_there_nor_the_default(schema: dict[str, Any]) -> None:
    sample = part("schemas").sample
    first = sample(schema, None)
    assert sample(schema, first) not in {first, schema.get("default")}


SERVICE, POD = Kind("v1", "Service", "services"), Kind("apps/v1", "Deployment", "deployments")
KNATIVE = Kind("serving.knative.dev/v1", "Service", "services")


def an_object(kind: Kind, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "iris"}, "spec": spec}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (an_object(SERVICE, type="A"), an_object(SERVICE, type="B"), "Service.spec.type"),
        (an_object(KNATIVE, a={}), an_object(KNATIVE, a={"b.c/d": 1}), "Service(serving.knative.dev).spec.a[b.c/d]"),
        (
            an_object(SERVICE, ports=[{"name": "x", "port": 1}]),
            an_object(SERVICE, ports=[{"name": "x", "port": 2}]),
            "Service.spec.ports[x].port",
        ),
        (an_object(SERVICE, a="b: 1\nc: 2\n"), an_object(SERVICE, a="b: 1\nc: 3\n"), "Service.spec.a: c"),
        (
            an_object(POD, template={"spec": {"containers": []}}),
            an_object(POD, template={"spec": {"containers": [], "hostNetwork": True}}),
            "Deployment pod.hostNetwork",
        ),
    ],
    ids=["field", "key with dots", "item by name", "text that is YAML", "pod"],
)
def test_difference_is_said_by_its_path(before: dict[str, Any], after: dict[str, Any], said: str) -> None:
    changes = part("changes").Changes([SERVICE, POD, KNATIVE])
    assert changes.of([before], [after]) == (said,)
    assert changes.of([before], [before]) == ()
    word = said.partition(".spec")[0].partition(" ")[0]
    assert changes.of([], [before]) == (f"a {word}",)
    assert changes.of([before], []) == (f"no {word}",)
