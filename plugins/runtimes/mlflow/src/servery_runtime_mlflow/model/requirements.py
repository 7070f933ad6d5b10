"""What a model was saved with, compared with what is installed. Nothing is ever installed.

Source: MLflow's model directory, "Model dependencies": ``requirements.txt`` and ``python_env.yaml``.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

_SKINNY = {"mlflow": "mlflow-skinny"}
"""Distributions that hold the same code as another, with less beside it."""


def mismatches(directory: Path) -> tuple[str, ...]:
    """Return what the model in ``directory`` asks for and does not find, each as ``asked (found)``.

    A requirement that is not a name with versions, such as a path, says nothing that could be compared.
    """
    return (*_python(_environment(directory)), *_distributions(directory))


def _python(environment: dict[str, object]) -> Iterator[str]:
    asked, here = str(environment.get("python", "")), platform.python_version()
    try:
        # Pickles and compiled code go with the minor version; patches do not matter.
        same = not asked or Version(asked).release[:2] == Version(here).release[:2]
    except InvalidVersion:
        same = False
    if not same:
        yield f"python {asked} ({here})"


def _distributions(directory: Path) -> Iterator[str]:
    for line in _lines(directory):
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        found = _installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            yield f"{line} ({found or 'not installed'})"


def _lines(directory: Path) -> Iterator[str]:
    listed = _environment(directory).get("dependencies")
    lines = [str(line) for line in listed] if isinstance(listed, list) else []
    file = directory / "requirements.txt"
    if file.is_file():
        lines += file.read_text(errors="replace").splitlines()
    for line in lines:
        asked = line.partition(" #")[0].strip()
        if asked and not asked.startswith(("#", "-")):
            yield asked


def _installed(name: str) -> str | None:
    for distribution in filter(None, (name, _SKINNY.get(name))):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def _environment(directory: Path) -> dict[str, object]:
    file = directory / "python_env.yaml"
    if not file.is_file():
        return {}
    try:
        found = yaml.safe_load(file.read_text(errors="replace"))
    except yaml.YAMLError:
        # Only what it says of Python is lost, and the model may load all the same.
        return {}
    return found if isinstance(found, dict) else {}
