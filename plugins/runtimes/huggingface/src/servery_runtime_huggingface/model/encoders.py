"""Models that read: classes of texts and tokens, masks, vectors, ranks.

Source: KServe, python/huggingfaceserver/encoder_model.py: the form of each answer in v1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from servery_sdk import language
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.protocol.elements import objects
from servery_sdk.serving import InputError, LoadError
from servery_sdk.texts import texts_of

from servery_runtime_huggingface.model.artifact import Source
from servery_runtime_huggingface.tasks import Task

OUTPUT = "output-0"


class Encoder:
    """Reads a batch of texts, or of pairs of texts, at once."""

    batchable = True
    inputs: tuple[str, ...] = (language.TEXT,)

    def __init__(self, source: Source) -> None:
        self._tokenizer, self._model, self._options = source.tokenizer, source.model, source.options
        self._special_tokens, self._device, self._limit = source.special_tokens, source.device, source.limit
        names = self._options.tensor_input_names
        self._names = None if names is None else {name.strip() for name in names.split(",")}
        if self._tokenizer.pad_token is None:
            raise LoadError(f"{source.place}: the tokenizer has no token to pad with, so texts cannot be read together")

    def predict(self, request: InferRequest) -> InferResponse:
        """Answer texts.

        Raises:
            InputError: The inputs are not texts.
        """
        texts = texts_of(request, *self.inputs)
        if len({len(column) for column in texts}) > 1:
            shapes = ", ".join(f"{tensor.name!r} {list(tensor.data.shape)}" for tensor in request.inputs)
            raise InputError(f"inputs differ in rows: {shapes}")
        return self._read(request, texts)

    def _read(self, request: InferRequest, texts: Sequence[Sequence[str]]) -> InferResponse:
        """Answer columns of texts."""
        encoded = self._tokenizer(
            *map(list, texts),
            add_special_tokens=self._special_tokens,
            return_token_type_ids=True if self._options.return_token_type_ids else None,
            return_tensors="pt",
            padding=True,
            truncation=self._limit is not None,
            max_length=self._limit,
        ).to(self._device)
        given = {name: value for name, value in encoded.items() if self._names is None or name in self._names}
        with torch.inference_mode():
            outputs = self._outputs(self._model(**given, return_dict=True), encoded)
        if language.TOKENS in request.outputs:
            outputs[language.TOKENS] = encoded["attention_mask"].sum(1).cpu().numpy().astype(np.int64)
        tensors = tuple(Tensor(name=name, data=data, datatype=Datatype.of(data)) for name, data in outputs.items())
        return InferResponse(model=request.model, outputs=tensors)

    def metadata(self) -> ModelMetadata:
        """Return what goes in and comes out."""
        return ModelMetadata(
            name="",
            platform=f"transformers-{transformers.__version__}",
            inputs=tuple(TensorMetadata(name=name, datatype=Datatype.BYTES, shape=(-1,)) for name in self.inputs),
            outputs=self._described(),
        )

    def _outputs(self, found: Any, encoded: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs ``[rows, …]`` of what the model ``found``."""
        raise NotImplementedError

    def _described(self) -> tuple[TensorMetadata, ...]:
        raise NotImplementedError

    def _scores(self, logits: Any) -> Any:
        """Return logits or probabilities, as the options have it; None where only the likeliest class is asked for."""
        if self._options.return_raw_logits:
            return logits.float()
        return logits.float().softmax(-1) if self._options.return_probabilities else None


class SequenceClassifier(Encoder):
    """The likeliest class of each text; or an output for each class, which v1 writes as KServe does: ``{"0": 0.9, …}``."""

    def _outputs(self, found: Any, encoded: Mapping[str, Any]) -> dict[str, Any]:
        scores = self._scores(found.logits)
        if scores is None:
            return {OUTPUT: found.logits.argmax(-1).cpu().numpy()}
        return {str(label): column for label, column in enumerate(scores.T.cpu().numpy())}

    def _described(self) -> tuple[TensorMetadata, ...]:
        if not (self._options.return_probabilities or self._options.return_raw_logits):
            return (TensorMetadata(name=OUTPUT, datatype=Datatype.INT64, shape=(-1,)),)
        labels = range(self._model.config.num_labels)
        return tuple(TensorMetadata(name=str(label), datatype=Datatype.FP32, shape=(-1,)) for label in labels)


class TokenClassifier(Encoder):
    """The likeliest class of each token, ``[rows, 1, tokens]`` as KServe has it; with scores, ``[rows, tokens, classes]``.

    Rows are as long as the request's longest, so requests are not merged: one's length would show in another's answer.
    """

    batchable = False

    def _outputs(self, found: Any, encoded: Mapping[str, Any]) -> dict[str, Any]:
        scores = self._scores(found.logits)
        return {OUTPUT: (found.logits.argmax(-1).unsqueeze(1) if scores is None else scores).cpu().numpy()}

    def _described(self) -> tuple[TensorMetadata, ...]:
        if not (self._options.return_probabilities or self._options.return_raw_logits):
            return (TensorMetadata(name=OUTPUT, datatype=Datatype.INT64, shape=(-1, 1, -1)),)
        return (TensorMetadata(name=OUTPUT, datatype=Datatype.FP32, shape=(-1, -1, self._model.config.num_labels)),)


class MaskFiller(Encoder):
    """The likeliest token for each text's mask, several with spaces between them; with scores, ``[rows, vocabulary]``."""

    def _outputs(self, found: Any, encoded: Mapping[str, Any]) -> dict[str, Any]:
        masks = encoded["input_ids"] == self._tokenizer.mask_token_id
        for row, count in enumerate(masks.sum(1).tolist()):
            if count != 1 and (count == 0 or self._scores(found.logits[:1, :1]) is not None):
                raise InputError(
                    f"text {row} has {count} times {self._tokenizer.mask_token}; "
                    f"it takes {'one' if count else 'at least one'}"
                )
        scores = self._scores(found.logits[masks])
        if scores is not None:
            return {OUTPUT: scores.cpu().numpy()}
        likeliest = found.logits.argmax(-1)
        texts = [self._tokenizer.decode(ids[mask]) for ids, mask in zip(likeliest, masks, strict=True)]
        return {OUTPUT: objects([text.encode() for text in texts])}

    def _described(self) -> tuple[TensorMetadata, ...]:
        if not (self._options.return_probabilities or self._options.return_raw_logits):
            return (TensorMetadata(name=OUTPUT, datatype=Datatype.BYTES, shape=(-1,)),)
        return (TensorMetadata(name=OUTPUT, datatype=Datatype.FP32, shape=(-1, self._model.config.vocab_size)),)


class Embedder(Encoder):
    """A vector of length one for each text: the mean over its tokens."""

    embeds = True

    def _outputs(self, found: Any, encoded: Mapping[str, Any]) -> dict[str, Any]:
        states = found.last_hidden_state.float()
        weights = encoded["attention_mask"].unsqueeze(-1).to(states.dtype)
        # A text without tokens has no mean; its vector is zero.
        mean = (states * weights).sum(1) / weights.sum(1).clamp(min=1)
        return {language.EMBEDDING: torch.nn.functional.normalize(mean, dim=1).cpu().numpy()}

    def _described(self) -> tuple[TensorMetadata, ...]:
        width = self._model.config.get_text_config().hidden_size
        return (TensorMetadata(name=language.EMBEDDING, datatype=Datatype.FP32, shape=(-1, width)),)


class Ranker(Encoder):
    """How well each document answers its query: the sigmoid of the one logit, or the logit itself."""

    ranks = True
    inputs = (language.QUERY, language.DOCUMENT)

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        if source.config.num_labels != 1:
            raise LoadError(f"{source.place}: a ranking model has one label, this has {source.config.num_labels}")

    def _outputs(self, found: Any, encoded: Mapping[str, Any]) -> dict[str, Any]:
        logits = found.logits.float().squeeze(-1)
        return {language.SCORE: (logits if self._options.return_raw_logits else logits.sigmoid()).cpu().numpy()}

    def _described(self) -> tuple[TensorMetadata, ...]:
        return (TensorMetadata(name=language.SCORE, datatype=Datatype.FP32, shape=(-1,)),)


ENCODERS: Mapping[Task, type[Encoder]] = {
    Task.SEQUENCE_CLASSIFICATION: SequenceClassifier,
    Task.TOKEN_CLASSIFICATION: TokenClassifier,
    Task.FILL_MASK: MaskFiller,
    Task.TEXT_EMBEDDING: Embedder,
    Task.RERANK: Ranker,
}
