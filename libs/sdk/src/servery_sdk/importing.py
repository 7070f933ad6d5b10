"""Imports of what an artifact brings beside its model."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

OURS = "servery_artifact_"
"""What the names begin with that are given to modules of which each is the only one of its name."""

_imported: set[str] = set()
"""Directories, a separator behind each, whose files have been imported; a process's modules are its own, so this is, too."""


def make_importable(directory: Path) -> None:
    """Let ``directory``'s own files be found first, and no other artifact's modules in the place of its own."""
    # Strings: a path for each of thousands of modules takes 60 ms, in which the model that is replaced cannot answer.
    before = tuple(_imported)
    # Models load at once, in threads that import: a list of the items would meet theirs, at a collection between two.
    for name, module in sys.modules.copy().items():
        file = getattr(module, "__file__", None)
        if file is not None and file.startswith(before) and not name.startswith(OURS):
            sys.modules.pop(name, None)
    _imported.add(f"{directory}{os.sep}")
    importlib.invalidate_caches()
    if str(directory) in sys.path:
        sys.path.remove(str(directory))
    sys.path.insert(0, str(directory))


def line_of(error: BaseException, file: Path) -> str:
    """Return `` (line n)`` of ``file``, the last that ``error`` went through; nothing where it did not."""
    frame, at = error.__traceback__, None
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == str(file):
            at = frame.tb_lineno
        frame = frame.tb_next
    return "" if at is None else f" (line {at})"
