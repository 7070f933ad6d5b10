"""Print the reference pages from what they describe: the services' settings and the predictor's metrics."""

from __future__ import annotations

import ast
import importlib
import inspect
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings
from servery_predictor.metrics import Metrics

FOLDER = Path(__file__).parent
SERVICES = FOLDER.parents[1] / "services"
HEADER = "<!-- Printed by generate.py; edit what it reads. -->\n"

FLAGS: Mapping[str, str] = {
    "servery-controller": "A flag counts before a variable, a variable before the file that `--config` names (YAML, "
    "a key a field: `ingress_domain: models.acme.dev`), the file before the default. An unknown flag or key is an error.",
    "servery-predictor": "A flag counts before a variable, a variable before the default. Flags may have underscores "
    "for dashes, as KServe's have; KServe's other flags are accepted and change nothing (`servery-predictor --help`).",
    "servery-storage-initializer": "",
}
"""What is to say of each command's flags; empty where it has none."""
NO_FLAGS = "Its arguments are sources and targets, as KServe's are. A variable counts before the default."


def files() -> dict[str, str]:
    """Return the text of each page by its name."""
    return {"settings.md": HEADER + settings_page(), "metrics.md": HEADER + metrics_page()}


def settings_page() -> str:
    """Return a table of settings for each service that has some."""
    sections = []
    for project in sorted(SERVICES.glob("*/pyproject.toml")):
        for module in project.parent.glob("src/*/settings.py"):
            (command,) = tomllib.loads(project.read_text())["project"]["scripts"]
            settings = importlib.import_module(f"{module.parent.name}.settings").Settings
            sections.append(f"## {command}\n\n{FLAGS[command] or NO_FLAGS}\n\n{_settings_table(command, settings)}")
    return "# Settings\n\n" + "\n".join(sections)


def _settings_table(command: str, settings: type[BaseSettings]) -> str:
    has_flags = bool(FLAGS[command])
    head = ["field", *(["flag"] if has_flags else []), "variable", "type", "default", "meaning"]
    rows = [head, ["---"] * len(head)]
    for name, kind, meaning in _declared(settings):
        flag = [f"`--{name.replace('_', '-')}`"] if has_flags else []
        variable = f"`{settings.model_config['env_prefix']}{name.upper()}`"
        default = _default(settings.model_fields[name])
        rows.append([f"`{name}`", *flag, variable, f"`{kind}`", default, meaning])
    return _table(rows)


def _declared(settings: type[BaseSettings]) -> Iterator[tuple[str, str, str]]:
    """Yield each field's name, type and docstring.

    Raises:
        ValueError: A field has none; says which.
    """
    (declared,) = ast.parse(inspect.getsource(settings)).body
    assert isinstance(declared, ast.ClassDef)
    for field, behind in zip(declared.body, declared.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if not (isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant)):
            raise ValueError(f"{settings.__module__}: field {field.target.id} has no docstring; say what it means")
        kind = ast.unparse(field.annotation).removesuffix(" | None")
        yield field.target.id, kind, _words(str(behind.value.value))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return _words(inspect.getdoc(field.default_factory) or "").removesuffix(".")
    if field.default is None:
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


def metrics_page() -> str:
    """Return a table of what the predictor counts."""
    rows = [["metric", "type", "labels", "meaning"], ["---"] * 4]
    for metric in vars(Metrics(CollectorRegistry())).values():
        if isinstance(metric, MetricWrapperBase):
            (described,) = metric.describe()
            name = described.name + ("_total" if described.type == "counter" else "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001  # told nowhere else
            rows.append([f"`{name}`", described.type, labels, described.documentation])
    return (
        "# Metrics\n\n## servery-predictor\n\nAt `/metrics` of the HTTP port. Units are in the names; a histogram "
        f"has `_bucket`, `_sum` and `_count`.\n\n{_table(rows)}"
    )


def _words(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def _table(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    for file, text in files().items():
        (FOLDER / file).write_text(text)
