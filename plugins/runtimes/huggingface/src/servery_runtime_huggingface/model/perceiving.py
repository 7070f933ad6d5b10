"""What models of images and sounds share: rows of one shape are computed together, and classes are told by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import transformers
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.protocol.elements import objects
from servery_sdk.protocol.v1 import CONTENT_TYPE, JSON

from servery_runtime_huggingface.model.artifact import Source
from servery_runtime_huggingface.model.parameters import whole

LABEL = "label"
SCORE = "score"
PROBABILITIES = "probabilities"
LOGITS = "logits"

Row = Mapping[str, torch.Tensor]
"""What the model takes for one row, each with an axis 0 of length one."""
Answer = TypeVar("Answer")


class Perceiver:
    """A model of images or sounds.

    Attributes:
        inputs: Names and shapes of what it takes; all BYTES.
    """

    batchable = True
    inputs: tuple[tuple[str, tuple[int, ...]], ...]

    def __init__(self, source: Source) -> None:
        self._source, self._options = source, source.options
        self._model, self._processor = source.model, source.processor

    def predict(self, request: InferRequest) -> InferResponse:
        """Answer images, or sounds.

        Raises:
            InputError: The inputs are none, or a parameter is wrong.
        """
        return InferResponse(model=request.model, outputs=tuple(self._outputs(request)))

    def metadata(self) -> ModelMetadata:
        """Return what goes in and comes out."""
        return ModelMetadata(
            name="",
            platform=f"transformers-{transformers.__version__}",
            inputs=tuple(
                TensorMetadata(name=name, datatype=Datatype.BYTES, shape=shape) for name, shape in self.inputs
            ),
            outputs=self._described(),
        )

    def _outputs(self, request: InferRequest) -> Sequence[Tensor]:
        raise NotImplementedError

    def _described(self) -> tuple[TensorMetadata, ...]:
        raise NotImplementedError

    def _computed(
        self,
        rows: Sequence[Row],
        read: Callable[[Any, Sequence[int]], Sequence[Answer]],
        compute: Callable[..., Any] | None = None,
    ) -> list[Answer]:
        """Return each row's answer; rows of one shape are computed at once, so no row is padded for another's sake.

        Args:
            read: Takes what the model found for some rows and their numbers; returns their answers.
            compute: Instead of the model's ``forward``.
        """
        answers: dict[int, Answer] = {}
        groups: dict[Any, list[int]] = {}
        for number, row in enumerate(rows):
            shapes = tuple((name, tuple(tensor.shape)) for name, tensor in sorted(row.items()))
            groups.setdefault(shapes, []).append(number)
        with torch.inference_mode():
            for numbers in groups.values():
                given = {name: torch.cat([rows[number][name] for number in numbers]) for name in rows[numbers[0]]}
                found = (compute or self._model)(**self._placed(given))
                answers.update(zip(numbers, read(found, numbers), strict=True))
        return [answers[number] for number in range(len(rows))]

    def _placed(self, given: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return tensors where the model is, numbers as precise as its weights."""
        device, dtype = self._source.device, self._model.dtype
        return {
            name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
            for name, tensor in given.items()
        }


class Classifier(Perceiver):
    """Tells the likeliest class of each row by name, with its probability; ``top_k`` of them where a request says so."""

    def _rows(self, request: InferRequest) -> Sequence[Row]:
        raise NotImplementedError

    def _outputs(self, request: InferRequest) -> Sequence[Tensor]:
        top = whole(request.parameters, "top_k", 1, least=1, most=self._classes)
        rows = self._rows(request)
        logits = self._computed(rows, lambda found, _: list(found.logits.float().cpu()))
        stacked = torch.stack(logits) if logits else torch.empty(0, self._classes)
        if self._options.return_raw_logits:
            return [tensor(LOGITS, stacked.numpy())]
        config = self._model.config
        is_several = config.problem_type == "multi_label_classification" or self._classes == 1
        probabilities = stacked.sigmoid() if is_several else stacked.softmax(-1)
        if self._options.return_probabilities:
            return [tensor(PROBABILITIES, probabilities.numpy())]
        names = [str(config.id2label[number]) for number in range(self._classes)]
        return likeliest(probabilities, [names] * len(rows), top)

    def _described(self) -> tuple[TensorMetadata, ...]:
        if self._options.return_raw_logits or self._options.return_probabilities:
            name = LOGITS if self._options.return_raw_logits else PROBABILITIES
            return (TensorMetadata(name=name, datatype=Datatype.FP32, shape=(-1, self._classes)),)
        return (
            TensorMetadata(name=LABEL, datatype=Datatype.BYTES, shape=(-1,)),
            TensorMetadata(name=SCORE, datatype=Datatype.FP32, shape=(-1,)),
        )

    @property
    def _classes(self) -> int:
        return int(self._model.config.num_labels)


def likeliest(scores: torch.Tensor, names: Sequence[Sequence[str]], top: int | None) -> list[Tensor]:
    """Return outputs ``label`` and ``score`` ``[rows, top]`` of scores ``[rows, classes]``, the highest first.

    Args:
        names: Of each row's classes.
        top: 1 gives ``[rows]``; None gives all.
    """
    best = scores.topk(scores.shape[1] if top is None else top)
    labels = objects([names[row][index].encode() for row, ranks in enumerate(best.indices.tolist()) for index in ranks])
    shape = best.indices.shape if top != 1 else best.indices.shape[:1]
    return [tensor(LABEL, labels.reshape(shape)), tensor(SCORE, best.values.numpy().reshape(shape))]


def tensor(name: str, data: Any) -> Tensor:
    """Return an output."""
    return Tensor(name=name, data=data, datatype=Datatype.of(data))


def documents(name: str, texts: Sequence[bytes]) -> Tensor:
    """Return an output of JSON documents, one a row, which v1 writes as what they are."""
    data: Any = objects(texts)
    return Tensor(name=name, data=data, datatype=Datatype.BYTES, parameters={CONTENT_TYPE: JSON})


def single(prepared: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return what a processor made of one row, as tensors."""
    return {name: torch.as_tensor(np.asarray(value)) for name, value in prepared.items()}
