"""Files of volumes, written before a pod's containers start and deleted with it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from servery.local.configuration import File


def write(directory: Path, files: Iterable[File]) -> None:
    """Write ``files`` below ``directory``, each with its mode from its first byte on."""
    for file in files:
        path = directory / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as opened:
            opened.write(file.content)
            os.fchmod(opened.fileno(), file.mode)
