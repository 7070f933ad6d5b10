"""Files of volumes, written before a pod's containers start and deleted with it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from servery.local.configuration import File


def write(directory: Path, files: Iterable[File]) -> None:
    """Write ``files`` below ``directory``, each with its mode from its first byte on."""
    for file in files:
        _write(directory / file.path, file)


def rewrite(directory: Path, before: Iterable[File], files: Iterable[File]) -> None:
    """Bring what ``write`` has made of ``before`` to ``files``; whoever reads a file sees its old content or its new.

    A kubelet swaps all files of a volume at once, behind a link; here each is swapped by itself.
    """
    old, new = {file.path: file for file in before}, {file.path: file for file in files}
    for path, file in new.items():
        if old.get(path) != file:
            made = directory / f"{path}.new"
            _write(made, file)
            made.rename(directory / path)
    for path in old.keys() - new.keys():
        (directory / path).unlink(missing_ok=True)


def _write(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
        opened.write(file.content)
        os.fchmod(opened.fileno(), file.mode)
