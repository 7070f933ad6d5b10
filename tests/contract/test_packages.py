"""Every distribution declares what it imports, and nothing that it does not."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections import Counter
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
    "pyopenssl": "model-signing imports it, and asks only for sigstore, which no longer brings it",
    "setuptools": "paddle imports it, and asks for it from Python 3.12 on only",
}

# What is declared nowhere, and why.
UNDECLARED = {
    "vllm": "a distribution for each accelerator, which pins its own torch: whoever installs it says which",
    "safetensors": "vLLM brings it",
}

INSTALLED = packages_distributions()

# Modules of extras that are not called as their distributions are.
NAMED = {
    "PIL": "pillow",
    "art": "adversarial-robustness-toolbox",
    "jpype": "jpype1",
    "mlflow": "mlflow-skinny",
    "paddle": "paddlepaddle",
    "spnego": "pyspnego",
    "tensorflow": "tensorflow-cpu",
}

# Editable installs are not in importlib's index of modules.
OWN = {
    path.name: tomllib.loads((package / "pyproject.toml").read_text())["project"]["name"]
    for package in PACKAGES
    for path in package.glob("src/*")
}


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(package: Path, extra: str | None) -> set[str]:
    """Return what ``extra`` adds, or what is always installed."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    return {normalized(re.split(r"[\[<>=!~ ;]", requirement, maxsplit=1)[0]) for requirement in requirements}


def extras(package: Path) -> set[str]:
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    return set(project.get("optional-dependencies", {}))


def imports(package: Path, extra: str | None) -> Iterator[str]:
    """Yield what the modules import that ``extra`` is for: the module or subpackage of its name; None for all others."""
    for path in package.glob("src/**/*.py"):
        if path.name.endswith("_pb2_grpc.py"):
            # Generated service stubs, for those who have grpcio; the messages need protobuf alone.
            continue
        if (set(path.relative_to(package / "src").with_suffix("").parts[1:]) & extras(package) or {None}) != {extra}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def distributions(module: str) -> set[str]:
    if (own := OWN.get(module.partition(".")[0])) is not None:
        return {own}
    if module.startswith("google.protobuf"):
        return {"protobuf"}
    if module.startswith("google."):
        return {"google-cloud-storage"}
    top = module.partition(".")[0]
    # What is not installed here, as Ray, is of the same name, or of a name that is known.
    return {normalized(name) for name in INSTALLED.get(top, [NAMED.get(top, top)])}


PARTS = [(package, extra) for package in PACKAGES for extra in (None, *sorted(extras(package)))]
PART_NAMES = [f"{package.relative_to(ROOT)}{f'[{extra}]' if extra else ''}" for package, extra in PARTS]


@pytest.mark.parametrize(("package", "extra"), PARTS, ids=PART_NAMES)
def test_package_declares_every_distribution_that_it_imports(package: Path, extra: str | None) -> None:
    own = {path.name for path in package.glob("src/*") if path.is_dir()}
    known = declared(package, None) | (declared(package, extra) if extra else set())
    undeclared = {
        module
        for module in set(imports(package, extra))
        if module.partition(".")[0] not in sys.stdlib_module_names | own | set(UNDECLARED)
        and not distributions(module) & known
    }
    assert undeclared == set()


@pytest.mark.parametrize(("package", "extra"), PARTS, ids=PART_NAMES)
def test_package_imports_every_distribution_that_it_declares(package: Path, extra: str | None) -> None:
    used = {name for module in set(imports(package, extra)) for name in distributions(module)}
    names = declared(package, extra)
    composed = {name for name in names if package.name == "cli" and name.startswith("servery-")}
    assert names - used - composed - set(UNIMPORTED) == set()


@pytest.mark.parametrize(
    ("package", "extra"), [part for part in PARTS if part[1]], ids=lambda part: getattr(part, "name", part)
)
def test_nothing_outside_imports_the_part_that_an_extra_is_for(package: Path, extra: str) -> None:
    (root,) = (path.name for path in package.glob("src/*") if path.is_dir())
    assert [module for module in imports(package, None) if module.startswith(f"{root}.{extra}")] == []


def test_no_two_plugins_are_registered_under_one_name() -> None:
    """pluggy passes over the second one, and says nothing."""
    names = Counter(
        name
        for package in PACKAGES
        for name in tomllib.loads((package / "pyproject.toml").read_text())["project"]
        .get("entry-points", {})
        .get("servery", {})
    )
    assert {name for name, times in names.items() if times > 1} == set()
