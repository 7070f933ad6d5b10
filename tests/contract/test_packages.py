"""Every distribution declares what it imports, and nothing that it does not."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = sorted(
    path.parent
    for pattern in ("libs/*", "services/*", "cli", "plugins/*/*")
    for path in ROOT.glob(f"{pattern}/pyproject.toml")
)

# The command declares the plugins that it ships with; these bring something without being imported by name.
UNIMPORTED = {
    "uvloop": "uvicorn picks it up by itself",
    "google-cloud-storage": "imported as google.cloud.storage, a namespace that other distributions share",
    "protobuf": "imported as google.protobuf, likewise",
}


# Editable installs are not in importlib's index of modules.
OWN = {
    path.name: tomllib.loads((package / "pyproject.toml").read_text())["project"]["name"]
    for package in PACKAGES
    for path in package.glob("src/*")
}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(package: Path) -> set[str]:
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=!~ ;]", requirement, maxsplit=1)[0] for requirement in project["dependencies"]}
    return {normalized(name) for name in names}


def imports(package: Path) -> Iterator[str]:
    for path in package.glob("src/**/*.py"):
        if path.name.endswith("_pb2_grpc.py"):
            # Generated service stubs, for those who have grpcio; the messages need protobuf alone.
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield node.module


def distributions(module: str) -> set[str]:
    if (own := OWN.get(module.partition(".")[0])) is not None:
        return {own}
    if module.startswith("google.protobuf"):
        return {"protobuf"}
    if module.startswith("google."):
        return {"google-cloud-storage"}
    return {normalized(name) for name in packages_distributions().get(module.partition(".")[0], ())}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_package_declares_every_distribution_that_it_imports(package: Path) -> None:
    own = {path.name for path in package.glob("src/*") if path.is_dir()}
    known = declared(package)
    undeclared = {
        module
        for module in set(imports(package))
        if module.partition(".")[0] not in sys.stdlib_module_names | own and not distributions(module) & known
    }
    assert undeclared == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_package_imports_every_distribution_that_it_declares(package: Path) -> None:
    used = {name for module in set(imports(package)) for name in distributions(module)}
    composed = {name for name in declared(package) if package.name == "cli" and name.startswith("servery-")}
    assert declared(package) - used - composed - set(UNIMPORTED) == set()
