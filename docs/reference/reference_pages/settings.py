"""The page of the services' settings."""

from __future__ import annotations

import ast
import importlib
import inspect
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from reference_pages.markdown import table, words

SERVICES = Path(__file__).parents[3] / "services"

FLAGS: Mapping[str, str] = {
    "servery-agent": "A flag counts before a variable, a variable before the default. Flags may have underscores for "
    "dashes. The flags of KServe's agent are accepted as it spells them; those that ask for what is not here yet are errors.",
    "servery-controller": "A flag counts before a variable, a variable before the file that `--config` names (YAML, "
    "a key a field: `ingress_domain: models.acme.dev`), the file before the default. An unknown flag or key is an error.",
    "servery-predictor": "A flag counts before a variable, a variable before the default. Flags may have underscores "
    "for dashes, as KServe's have; KServe's other flags are accepted and change nothing (`servery-predictor --help`).",
    "servery-storage-initializer": "",
}
"""What is to say of each command's flags; empty where it has none."""
NO_FLAGS = "Its arguments are sources and targets, as KServe's are. A variable counts before the default."


def page() -> str:
    """Return a table of settings for each service that has some."""
    sections = []
    for project in sorted(SERVICES.glob("*/pyproject.toml")):
        for module in project.parent.glob("src/*/settings.py"):
            # The first is the container's; another shares its variables.
            command = next(iter(tomllib.loads(project.read_text())["project"]["scripts"]))
            settings = importlib.import_module(f"{module.parent.name}.settings").Settings
            sections.append(f"## {command}\n\n{FLAGS[command] or NO_FLAGS}\n\n{settings_table(command, settings)}")
    return "# Settings\n\n" + "\n".join(sections)


def settings_table(command: str, settings: type[BaseSettings]) -> str:
    """Return the table of one service.

    Raises:
        ValueError: A field has no docstring; says which.
    """
    has_flags = bool(FLAGS[command])
    head = ["field", *(["flag"] if has_flags else []), "variable", "type", "default", "meaning"]
    rows = []
    for name, kind, meaning in _declared(settings):
        flag = [f"`--{name.replace('_', '-')}`"] if has_flags else []
        variable = f"`{settings.model_config['env_prefix']}{name.upper()}`"
        default = _default(settings.model_fields[name])
        rows.append([f"`{name}`", *flag, variable, f"`{kind}`", default, meaning])
    return table(head, rows)


def _declared(settings: type[BaseSettings]) -> Iterator[tuple[str, str, str]]:
    """Yield each field's name, type and docstring."""
    (declared,) = ast.parse(inspect.getsource(settings)).body
    assert isinstance(declared, ast.ClassDef)
    for field, behind in zip(declared.body, declared.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if not (isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant)):
            raise ValueError(f"{settings.__module__}: field {field.target.id} has no docstring; say what it means")
        kind = ast.unparse(field.annotation).removesuffix(" | None")
        yield field.target.id, kind, words(str(behind.value.value))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return words(inspect.getdoc(field.default_factory) or "").removesuffix(".")
    if field.default is None:
        return "none"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
