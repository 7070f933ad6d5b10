"""The policy that only safetensors are taken: pickles that hold the same weights are left out, others refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from servery_storage.pickles import SUFFIXES, pickles_in
from servery_storage.policies import Refused

logger = logging.getLogger(__name__)

_SHARD = re.compile(r"-\d+-of-\d+$|\.\d+$")
_OF_TRAINING = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state(_\d+)?)\.(bin|pt|pth)")
"""What Hugging Face's and Accelerate's trainers leave beside the weights, and nothing serves."""


def left_out(paths: Iterable[str]) -> Collection[str]:
    """Return those of a model's files that may hold pickles, and for which safetensors are there: of the same name but for
    ``pytorch_`` and the shard's number, or of training in a folder of safetensors.
    """
    listed = [PurePosixPath(path) for path in paths]
    weights = {(path.parent, _name(path)) for path in listed if path.suffix == ".safetensors"}
    folders = {folder for folder, _ in weights}
    return {
        path.as_posix()
        for path in listed
        if path.suffix.lower() in SUFFIXES
        and ((path.parent, _name(path)) in weights or (path.parent in folders and _OF_TRAINING.fullmatch(path.name)))
    }


def _name(path: PurePosixPath) -> str:
    return _SHARD.sub("", path.stem).removeprefix("pytorch_")


class SafetensorsOnly:
    """Takes away what has its safetensors beside it, and refuses a model with any other pickle."""

    terms = "safetensors"

    def check(self, root: Path) -> None:
        """Leave out or refuse pickles, by what the files hold: tables of plain numbers in numpy's form stay."""
        paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
        for name in sorted(left_out(paths)):
            logger.info("pickle left out, as its safetensors are there", extra={"file": name})
            paths.pop(name).unlink()
        for name, path in sorted(paths.items()):
            found = next(pickles_in(path, name), None) if path.suffix.lower() in SUFFIXES else None
            if found is not None:
                raise Refused(
                    f"{found.where} is a pickle, and only safetensors are taken: no safetensors of its name lie beside "
                    "it; convert it, or leave it out by STORAGE_IGNORE_PATTERNS"
                )
