"""The Python file of an artifact: which it is, and what its errors say of it."""

from __future__ import annotations

import ast
from pathlib import Path

from servery_sdk.importing import line_of
from servery_sdk.serving import LoadError

FILE = "model.py"


def model_file(artifact: Path, named: str = "") -> Path:
    """Return the file that is ``named`` (below ``artifact``), else ``model.py``, else the only one.

    Raises:
        LoadError: There is none, or several and nothing says which.
    """
    if named:
        file = artifact / named
        if not file.resolve().is_relative_to(artifact.resolve()) or not file.is_file():
            raise LoadError(
                f"{artifact}: --model-file {named}: no such file in the artifact; found: {_found(artifact)}"
            )
        return file
    file = artifact / FILE
    if file.is_file():
        return file
    others = sorted(artifact.glob("*.py"))
    if len(others) == 1:
        return others[0]
    if others:
        raise LoadError(f"{artifact}: has no {FILE} but {_found(artifact)}; say which with --model-file")
    raise LoadError(f"{artifact}: the python runtime needs a {FILE} with a class Model; found: {_found(artifact)}")


def imports(file: Path, module: str) -> bool:
    """Return whether ``file`` imports ``module`` anywhere; one that is no Python imports nothing."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return False
    found = (
        [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level)
    )
    return any(name.partition(".")[0] == module for names in found for name in names)


def failure(file: Path, error: BaseException) -> LoadError:
    """Return what ``error`` means for who wrote ``file``: its own words, and the line where it came from."""
    return LoadError(f"{file.name}: {type(error).__name__}: {error}{line_of(error, file)}")


def _found(artifact: Path) -> str:
    return ", ".join(sorted(path.name for path in artifact.iterdir())) if artifact.is_dir() else "nothing"
