"""A directory of transformers' files, served as what it is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol

from servery_sdk.allocating import keep_freed_memory
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.serving import ClosableModel, LoadError

from servery_runtime_huggingface.model.artifact import Options, Source
from servery_runtime_huggingface.model.asking import ASKED
from servery_runtime_huggingface.model.encoders import ENCODERS
from servery_runtime_huggingface.model.generator import Generator
from servery_runtime_huggingface.tasks import Task

__all__ = ["HuggingFaceModel"]

_PACKAGE = "servery_runtime_huggingface.model"
_PERCEIVERS: Mapping[Task, str] = {
    Task.IMAGE_CLASSIFICATION: f"{_PACKAGE}.vision:ImageClassifier",
    Task.ZERO_SHOT_IMAGE_CLASSIFICATION: f"{_PACKAGE}.vision:ZeroShotImageClassifier",
    Task.IMAGE_FEATURE_EXTRACTION: f"{_PACKAGE}.vision:ImageEmbedder",
    Task.OBJECT_DETECTION: f"{_PACKAGE}.detection:ObjectDetector",
    Task.IMAGE_SEGMENTATION: f"{_PACKAGE}.detection:ImageSegmenter",
    Task.AUDIO_CLASSIFICATION: f"{_PACKAGE}.hearing:AudioClassifier",
    Task.AUTOMATIC_SPEECH_RECOGNITION: f"{_PACKAGE}.hearing:Transcriber",
    Task.TEXT_TO_AUDIO: f"{_PACKAGE}.speaking:Speaker",
}
"""Imported where they are served: Pillow, SciPy and libsndfile cost seconds that models of texts do not wait for."""


class Reader(Protocol):
    """A model of one task."""

    batchable: bool

    def predict(self, request: InferRequest) -> InferResponse:
        """Answer what it reads."""

    def metadata(self) -> ModelMetadata:
        """Return what goes in and comes out."""


class HuggingFaceModel:
    """Finds out from the files what the model does; ``held`` is it, with its abilities.

    Args:
        options: By the names of ``Options``.
    """

    batchable = True

    def __init__(self, **options: str | int | bool) -> None:
        self._options = Options.of(options)
        self._held: Reader | None = None

    @property
    def held(self) -> object:
        """The model of its task."""
        return self._held

    def load(self, artifact: Path) -> None:
        """Read config, tokenizer and weights.

        Raises:
            LoadError: They cannot be served; says the directory and why.
        """
        keep_freed_memory()
        source = Source.of(artifact, self._options)
        self._held = _reader(source)
        self.batchable = self._held.batchable

    def predict(self, request: InferRequest) -> InferResponse:
        """Answer texts, images or sounds.

        Raises:
            InputError: The inputs are not what the model reads, or the model does not take them.
        """
        return self._loaded.predict(request)

    def metadata(self) -> ModelMetadata:
        """Return what goes in and comes out."""
        return self._loaded.metadata()

    def close(self) -> None:
        """Give up what is being generated."""
        if isinstance(self._held, ClosableModel):
            self._held.close()

    @property
    def _loaded(self) -> Reader:
        if self._held is None:
            raise LoadError("the model has not been loaded")
        return self._held


def _reader(source: Source) -> Reader:
    if (place := _PERCEIVERS.get(source.task)) is not None:
        module, _, name = place.partition(":")
        perceiver: Reader = getattr(import_module(module), name)(source)
        return perceiver
    encoder = ENCODERS.get(source.task) or ASKED.get(source.task)
    return Generator(source) if encoder is None else encoder(source)
