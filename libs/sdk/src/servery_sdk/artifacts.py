"""Which file of an artifact holds the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from servery_sdk.serving import LoadError


def model_file(artifact: Path, suffixes: Sequence[str]) -> Path:
    """Return the one file directly in ``artifact`` that ends in one of ``suffixes``.

    Raises:
        LoadError: None or several; lists what is there.

    Source: KServe's sklearnserver, xgbserver and lgbserver, which refuse a second model file as well.
    """
    if not artifact.is_dir():
        raise LoadError(f"{artifact}: no such directory; the storage initializer should have made it")
    found = sorted(path for path in artifact.iterdir() if path.suffix in suffixes)
    if len(found) == 1:
        return found[0]
    present = ", ".join(sorted(path.name for path in artifact.iterdir())) or "nothing"
    wanted = f"a model directory holds exactly one file of {', '.join(suffixes)}"
    raise LoadError(f"{artifact}: {wanted}; found {len(found)} of them among: {present}")
