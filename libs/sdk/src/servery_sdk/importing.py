"""Imports of what an artifact brings beside its model."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

_imported: set[Path] = set()
"""Directories whose files have been imported; a process's modules are its own, so this is, too."""


def make_importable(directory: Path) -> None:
    """Let ``directory``'s own files be found first, and no other artifact's modules in the place of its own."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is not None and not _imported.isdisjoint(Path(file).parents):
            del sys.modules[name]
    _imported.add(directory)
    importlib.invalidate_caches()
    sys.path.insert(0, str(directory))
