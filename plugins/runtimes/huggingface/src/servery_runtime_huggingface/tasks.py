"""What a model does, by its architecture. Pure.

Source: KServe, python/huggingfaceserver/task.py: the names of the tasks and the endings of architectures.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


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


_ENDINGS = {
    "ForTokenClassification": Task.TOKEN_CLASSIFICATION,
    "ForSequenceClassification": Task.SEQUENCE_CLASSIFICATION,
    "ForMaskedLM": Task.FILL_MASK,
    "ForCausalLM": Task.TEXT_GENERATION,
    "LMHeadModel": Task.TEXT_GENERATION,
    "ForConditionalGeneration": Task.TEXT2TEXT_GENERATION,
    "MTModel": Task.TEXT2TEXT_GENERATION,
    "EncoderDecoderModel": Task.TEXT2TEXT_GENERATION,
    "Model": Task.TEXT_EMBEDDING,
}


def task_of(architectures: Sequence[str], *, labels: int) -> Task | None:
    """Return what a model of ``architectures`` (``config.json``'s, the first counts) and ``labels`` classes does.

    None where its name does not say it. A classifier with one label ranks: as a class it would say nothing.
    """
    name = architectures[0] if architectures else ""
    found = next((task for ending, task in _ENDINGS.items() if name.endswith(ending)), None)
    return Task.RERANK if found is Task.SEQUENCE_CLASSIFICATION and labels == 1 else found
