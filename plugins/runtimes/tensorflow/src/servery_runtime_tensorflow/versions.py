"""Where in an artifact the model lies. Needs no framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from servery_sdk.artifacts import model_file
from servery_sdk.serving import LoadError

SAVED_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
KERAS_SUFFIXES = (".keras", ".h5")
FIRST = "1"
"""Version of a model without versions: TensorFlow Serving's are numbers, and its clients read one."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model's files.

    Attributes:
        path: The directory of a SavedModel, or Keras' one file.
        version: A number.
    """

    path: Path
    version: str = FIRST

    @property
    def is_keras(self) -> bool:
        """Whether Keras reads it."""
        return self.path.suffix in KERAS_SUFFIXES


def found(artifact: Path) -> Found:
    """Return the model of the highest version in ``artifact``, which may also be a model itself.

    Raises:
        LoadError: There is none; says what is there.

    Source: TensorFlow Serving, file_system_storage_path_source.cc: directories that are numbers are versions, the latest
    is served.
    """
    if not artifact.is_dir():
        raise LoadError(f"{artifact}: no such directory; the storage initializer should have made it")
    if _is_saved_model(artifact):
        return Found(artifact)
    versions = [path for path in artifact.iterdir() if path.is_dir() and path.name.isascii() and path.name.isdigit()]
    if versions:
        latest = max(versions, key=lambda path: int(path.name))
        version = str(int(latest.name))
        return Found(latest if _is_saved_model(latest) else _keras_file(latest), version)
    return Found(_keras_file(artifact))


def _is_saved_model(directory: Path) -> bool:
    return any((directory / name).is_file() for name in SAVED_MODEL_FILES)


def _keras_file(directory: Path) -> Path:
    try:
        return model_file(directory, KERAS_SUFFIXES)
    except LoadError as error:
        raise LoadError(
            f"{directory}: holds no {SAVED_MODEL_FILES[0]}, no version's directory such as 1/ and not one Keras file; {error}"
        ) from error
