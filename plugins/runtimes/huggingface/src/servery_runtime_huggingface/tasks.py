"""What a model does, by its architecture. Pure.

Source: KServe, python/huggingfaceserver/task.py: the names of the tasks of text and the endings of architectures; the
other tasks are called as transformers' pipelines are.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence


class Task(enum.StrEnum):
    """What ``--task`` takes."""

    SEQUENCE_CLASSIFICATION = "sequence_classification"
    TOKEN_CLASSIFICATION = "token_classification"  # noqa: S105  # no password
    FILL_MASK = "fill_mask"
    TEXT_EMBEDDING = "text_embedding"
    RERANK = "rerank"
    """Ours: a classifier of pairs with one label, which is how well the second text answers the first."""
    TEXT_GENERATION = "text_generation"
    TEXT2TEXT_GENERATION = "text2text_generation"
    QUESTION_ANSWERING = "question_answering"
    ZERO_SHOT_CLASSIFICATION = "zero_shot_classification"
    """A classifier of pairs that knows entailment; no architecture says so."""
    SENTENCE_SIMILARITY = "sentence_similarity"
    """An embedding model, asked how near two texts are."""
    IMAGE_CLASSIFICATION = "image_classification"
    ZERO_SHOT_IMAGE_CLASSIFICATION = "zero_shot_image_classification"
    IMAGE_FEATURE_EXTRACTION = "image_feature_extraction"
    OBJECT_DETECTION = "object_detection"
    IMAGE_SEGMENTATION = "image_segmentation"
    IMAGE_TEXT_TO_TEXT = "image_text_to_text"
    AUDIO_CLASSIFICATION = "audio_classification"
    AUTOMATIC_SPEECH_RECOGNITION = "automatic_speech_recognition"
    TEXT_TO_AUDIO = "text_to_audio"


SEEING = frozenset(
    {
        Task.IMAGE_CLASSIFICATION,
        Task.ZERO_SHOT_IMAGE_CLASSIFICATION,
        Task.IMAGE_FEATURE_EXTRACTION,
        Task.OBJECT_DETECTION,
        Task.IMAGE_SEGMENTATION,
        Task.IMAGE_TEXT_TO_TEXT,
    }
)
"""They take images."""
HEARING = frozenset({Task.AUDIO_CLASSIFICATION, Task.AUTOMATIC_SPEECH_RECOGNITION})
"""They take sounds."""

_ENDINGS = {
    "ForQuestionAnswering": Task.QUESTION_ANSWERING,
    "ForTokenClassification": Task.TOKEN_CLASSIFICATION,
    "ForSequenceClassification": Task.SEQUENCE_CLASSIFICATION,
    "ForMaskedLM": Task.FILL_MASK,
    "ForCausalLM": Task.TEXT_GENERATION,
    "LMHeadModel": Task.TEXT_GENERATION,
    "ForConditionalGeneration": Task.TEXT2TEXT_GENERATION,
    "MTModel": Task.TEXT2TEXT_GENERATION,
    "EncoderDecoderModel": Task.TEXT2TEXT_GENERATION,
    "ForImageClassification": Task.IMAGE_CLASSIFICATION,
    "ForObjectDetection": Task.OBJECT_DETECTION,
    "Segmentation": Task.IMAGE_SEGMENTATION,
    "ForAudioClassification": Task.AUDIO_CLASSIFICATION,
    "ForCTC": Task.AUTOMATIC_SPEECH_RECOGNITION,
    "Model": Task.TEXT_EMBEDDING,
}


def task_of(architectures: Sequence[str], *, labels: int, known: Mapping[str, Task]) -> Task | None:
    """Return what a model of ``architectures`` (``config.json``'s, the first counts) and ``labels`` classes does.

    None where its name does not say it. A classifier with one label ranks: as a class it would say nothing.

    Args:
        known: What the framework knows of architectures whose endings mislead: ``Wav2Vec2ForSequenceClassification``
            hears, and ``WhisperForConditionalGeneration`` writes no text2text.
    """
    name = architectures[0] if architectures else ""
    found = known.get(name) or next((task for ending, task in _ENDINGS.items() if name.endswith(ending)), None)
    return Task.RERANK if found is Task.SEQUENCE_CLASSIFICATION and labels == 1 else found
