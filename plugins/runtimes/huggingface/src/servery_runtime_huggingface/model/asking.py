"""Models that read and are asked something: questions about a text, classes that a request names, how near two texts are.

Source: transformers' pipelines ``question-answering`` and ``zero-shot-classification``, and sentence-transformers' similarity:
what is done with logits, and the names of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from servery_sdk import language
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, TensorMetadata
from servery_sdk.protocol.elements import objects
from servery_sdk.serving import InputError, LoadError
from servery_sdk.texts import text_column, texts_of

from servery_runtime_huggingface.model.artifact import Source
from servery_runtime_huggingface.model.candidates import CANDIDATES, candidates_of, template_of
from servery_runtime_huggingface.model.encoders import Embedder, Encoder
from servery_runtime_huggingface.model.parameters import switch, whole
from servery_runtime_huggingface.model.perceiving import LABEL, SCORE, likeliest, tensor
from servery_runtime_huggingface.tasks import Task

QUESTION, CONTEXT = "question", "context"
ANSWER, START, END = "answer", "start", "end"
SOURCE, SENTENCE = "source_sentence", "sentence"
_WINDOWS = 32
"""Parts of long texts that are read at once."""
_WIDTH = 384
"""Tokens of such a part, where the model takes more."""


class Answerer(Encoder):
    """The part of each ``context`` that answers its ``question``: text, probability, and where its characters are.

    A context longer than the model is read in parts that overlap by ``doc_stride`` tokens; an answer has at most
    ``max_answer_len`` tokens (15). With ``handle_impossible_answer``, the answer may be empty.
    """

    inputs = (QUESTION, CONTEXT)

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        if not self._tokenizer.is_fast:
            raise LoadError(f"{source.place}: the tokenizer is in Python and does not tell where tokens are in a text")
        self._width = min(self._limit or _WIDTH, _WIDTH)

    def predict(self, request: InferRequest) -> InferResponse:
        """Answer questions.

        Raises:
            InputError: The inputs are not texts, or a question leaves no room for its context.
        """
        questions, contexts = texts_of(request, *self.inputs)
        if len(questions) != len(contexts):
            shapes = ", ".join(f"{one.name!r} {list(one.data.shape)}" for one in request.inputs)
            raise InputError(f"inputs differ in rows: {shapes}")
        longest = whole(request.parameters, "max_answer_len", 15, least=1, most=self._width)
        stride = whole(request.parameters, "doc_stride", min(128, self._width // 4), least=0, most=self._width)
        is_optional = switch(request.parameters, "handle_impossible_answer")
        found = [
            self._answer(question, context, longest, stride, is_optional=is_optional)
            for question, context in zip(questions, contexts, strict=True)
        ]
        starts, ends = (np.array([one[at] for one in found], np.int64).reshape(-1) for at in (1, 2))
        texts = [text[one[1] : one[2]].encode() for one, text in zip(found, contexts, strict=True)]
        outputs = (
            tensor(ANSWER, objects(texts)),
            tensor(SCORE, np.array([one[0] for one in found], np.float32)),
            tensor(START, starts),
            tensor(END, ends),
        )
        return InferResponse(model=request.model, outputs=outputs)

    def _answer(
        self, question: str, context: str, longest: int, stride: int, *, is_optional: bool
    ) -> tuple[float, int, int]:
        """Return the score and the first and last character (exclusive) of the best answer."""
        asked = self._tokenizer(question, add_special_tokens=False)["input_ids"]
        room = self._width - len(asked) - self._tokenizer.num_special_tokens_to_add(pair=True)
        if room <= stride:
            raise InputError(
                f"inputs {QUESTION!r} and {CONTEXT!r}: a question of {len(asked)} tokens leaves room for {max(room, 0)} of "
                f"its context; it takes more than the doc_stride of {stride}"
            )
        read = self._tokenizer(
            question,
            context,
            truncation="only_second",
            max_length=self._width,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            padding=True,
            return_tensors="pt",
        )
        offsets, parts = read.pop("offset_mapping"), read.encodings
        read.pop("overflow_to_sample_mapping", None)
        best, none = (0.0, 0, 0), 1.0
        for first in range(0, len(parts), _WINDOWS):
            chosen = slice(first, first + _WINDOWS)
            given = {name: value[chosen].to(self._device) for name, value in read.items()}
            with torch.inference_mode():
                found = self._model(**given)
            for part, spans, start, end in zip(
                parts[chosen], offsets[chosen].tolist(), found.start_logits, found.end_logits, strict=True
            ):
                score, at, to, empty = _best(part.sequence_ids, start, end, longest)
                none = min(none, empty)
                if score > best[0]:
                    best = (score, spans[at][0], spans[to][1])
        return (none, 0, 0) if is_optional and none > best[0] else best

    def _described(self) -> tuple[TensorMetadata, ...]:
        kinds = {ANSWER: Datatype.BYTES, SCORE: Datatype.FP32, START: Datatype.INT64, END: Datatype.INT64}
        return tuple(TensorMetadata(name=name, datatype=kind, shape=(-1,)) for name, kind in kinds.items())


def _best(sequences: Sequence[int | None], start: Any, end: Any, longest: int) -> tuple[float, int, int, float]:
    """Return the likeliest span's probability, first and last token, and the probability that there is no answer."""
    inside = torch.tensor([sequence == 1 for sequence in sequences])
    # The first token stands for "no answer".
    allowed = inside.clone()
    allowed[0] = True
    first, last = (logits.float().cpu().masked_fill(~allowed, -1e4).softmax(-1) for logits in (start, end))
    empty = float(first[0] * last[0])
    spans = torch.outer(first * inside, last * inside).triu().tril(longest - 1)
    at = int(spans.argmax())
    width = len(inside)
    return float(spans.ravel()[at]), at // width, at % width, empty


class ZeroShotClassifier(Encoder):
    """How well each of ``candidate_labels`` fits each text, the best first, by a model that knows what follows from what.

    With ``multi_label`` each is judged alone; without, their scores sum to one.
    """

    inputs = (language.TEXT,)

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        labels = {str(name).lower(): number for number, name in source.config.id2label.items()}
        self._entails = next((number for name, number in labels.items() if name.startswith("entail")), None)
        self._contradicts = next((number for name, number in labels.items() if name.startswith("contra")), None)
        if self._entails is None:
            named = ", ".join(sorted(labels))
            raise LoadError(
                f"{source.place}: a model for {source.task} has a class 'entailment'; this one's id2label has: {named}"
            )

    def predict(self, request: InferRequest) -> InferResponse:
        """Classify texts.

        Raises:
            InputError: The inputs are not texts, or there are no classes.
        """
        template = template_of(request.parameters, "This example is {}.")
        is_several = switch(request.parameters, "multi_label")
        given, named = candidates_of(request, language.TEXT)
        texts = text_column(given)
        rows = [
            self._scores_of(text, [template.replace("{}", name) for name in names], is_several=is_several)
            for text, names in zip(texts, named, strict=True)
        ]
        scores = torch.stack(rows) if rows else torch.empty(0, 0)
        return InferResponse(model=request.model, outputs=tuple(likeliest(scores, named, None)))

    def _scores_of(self, text: str, hypotheses: Sequence[str], *, is_several: bool) -> torch.Tensor:
        read = self._tokenizer(
            [text] * len(hypotheses),
            list(hypotheses),
            padding=True,
            truncation="only_first",
            max_length=self._limit,
            return_tensors="pt",
        ).to(self._device)
        with torch.inference_mode():
            logits: torch.Tensor = self._model(**read).logits.float().cpu()
        entails = logits[:, self._entails]
        if not is_several and len(hypotheses) > 1:
            return entails.softmax(-1)
        if self._contradicts is None:
            return logits.softmax(-1)[:, self._entails]
        return torch.stack([logits[:, self._contradicts], entails], 1).softmax(-1)[:, 1]

    def metadata(self) -> Any:
        """Return texts and classes in, classes and scores out."""
        found = super().metadata()
        classes = TensorMetadata(name=CANDIDATES, datatype=Datatype.BYTES, shape=(-1, -1))
        return replace(found, inputs=(*found.inputs, classes))

    def _described(self) -> tuple[TensorMetadata, ...]:
        return (
            TensorMetadata(name=LABEL, datatype=Datatype.BYTES, shape=(-1, -1)),
            TensorMetadata(name=SCORE, datatype=Datatype.FP32, shape=(-1, -1)),
        )


class Comparer(Embedder):
    """The cosine between the vectors of ``source_sentence`` and ``sentence`` of each row."""

    embeds = False
    inputs = (SOURCE, SENTENCE)

    def predict(self, request: InferRequest) -> InferResponse:
        """Compare texts.

        Raises:
            InputError: The inputs are not texts, or not as many.
        """
        first, second = texts_of(request, *self.inputs)
        if len(first) != len(second):
            shapes = ", ".join(f"{one.name!r} {list(one.data.shape)}" for one in request.inputs)
            raise InputError(f"inputs differ in rows: {shapes}")
        vectors = [self._vectors(request, texts) for texts in (first, second)]
        return InferResponse(model=request.model, outputs=(tensor(SCORE, (vectors[0] * vectors[1]).sum(1)),))

    def _vectors(self, request: InferRequest, texts: Sequence[str]) -> Any:
        return self._read(replace(request, outputs=()), [texts]).outputs[0].data

    def _described(self) -> tuple[TensorMetadata, ...]:
        return (TensorMetadata(name=SCORE, datatype=Datatype.FP32, shape=(-1,)),)


ASKED: Mapping[Task, type[Encoder]] = {
    Task.QUESTION_ANSWERING: Answerer,
    Task.ZERO_SHOT_CLASSIFICATION: ZeroShotClassifier,
    Task.SENTENCE_SIMILARITY: Comparer,
}
