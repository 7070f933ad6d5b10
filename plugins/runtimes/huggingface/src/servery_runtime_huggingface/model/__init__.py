"""A directory of transformers' files, served as what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.serving import ClosableModel, LoadError

from servery_runtime_huggingface.model.artifact import Options, Source
from servery_runtime_huggingface.model.detection import ImageSegmenter, ObjectDetector
from servery_runtime_huggingface.model.encoders import ENCODERS, Encoder
from servery_runtime_huggingface.model.generator import Generator
from servery_runtime_huggingface.model.hearing import AudioClassifier, Transcriber
from servery_runtime_huggingface.model.perceiving import Perceiver
from servery_runtime_huggingface.model.vision import ImageClassifier, ImageEmbedder, ZeroShotImageClassifier
from servery_runtime_huggingface.tasks import Task

__all__ = ["HuggingFaceModel"]

_READERS: Mapping[Task, type[Encoder | Perceiver]] = {
    **ENCODERS,
    Task.IMAGE_CLASSIFICATION: ImageClassifier,
    Task.ZERO_SHOT_IMAGE_CLASSIFICATION: ZeroShotImageClassifier,
    Task.IMAGE_FEATURE_EXTRACTION: ImageEmbedder,
    Task.OBJECT_DETECTION: ObjectDetector,
    Task.IMAGE_SEGMENTATION: ImageSegmenter,
    Task.AUDIO_CLASSIFICATION: AudioClassifier,
    Task.AUTOMATIC_SPEECH_RECOGNITION: Transcriber,
}
"""All others write texts."""


class HuggingFaceModel:
    """Finds out from the files what the model does; ``held`` is it, with its abilities.

    Args:
        options: By the names of ``Options``.
    """

    batchable = True

    def __init__(self, **options: str | int | bool) -> None:
        self._options = Options.of(options)
        self._held: Encoder | Perceiver | Generator | None = None

    @property
    def held(self) -> object:
        """The model of its task."""
        return self._held

    def load(self, artifact: Path) -> None:
        """Read config, tokenizer and weights.

        Raises:
            LoadError: They cannot be served; says the directory and why.
        """
        source = Source.of(artifact, self._options)
        reader = _READERS.get(source.task)
        self._held = Generator(source) if reader is None else reader(source)
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
    def _loaded(self) -> Encoder | Perceiver | Generator:
        if self._held is None:
            raise LoadError("the model has not been loaded")
        return self._held
