"""Models of images: classes, classes that a request names, vectors.

Source: transformers' pipelines of the same names: templates, and what is done with logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from servery_sdk.protocol import Datatype, InferRequest, Tensor, TensorMetadata
from servery_sdk.serving import InputError

from servery_runtime_huggingface.model.artifact import Source
from servery_runtime_huggingface.model.candidates import CANDIDATES, candidates_of, template_of
from servery_runtime_huggingface.model.files import input_of
from servery_runtime_huggingface.model.images import IMAGE, PIXEL_VALUES, images_of
from servery_runtime_huggingface.model.perceiving import LABEL, SCORE, Classifier, Perceiver, Row, likeliest, tensor

EMBEDDING = "embedding"
_SIGLIP_TOKENS = 64
"""Every text that SigLIP was trained with was padded to so many."""


def rows_of(given: Tensor, processor: Any) -> tuple[list[Row], list[tuple[int, int]]]:
    """Return what the model takes for each image, and each one's (height, width).

    Raises:
        InputError: The input holds no images.
    """
    if given.name == PIXEL_VALUES:
        if given.data.dtype.kind != "f" or given.data.ndim != 4:
            raise InputError(
                f"input {given.name!r} is {given.datatype} {list(given.data.shape)}; "
                "what the processor makes of images is FP32 [rows, channels, height, width]"
            )
        pixels = torch.from_numpy(given.data.astype(np.float32))
        return [{PIXEL_VALUES: one[None]} for one in pixels], [tuple(given.data.shape[2:])] * len(given.data)
    images = images_of(given)
    rows: list[Row] = [dict(processor(images=[image], return_tensors="pt")) for image in images]
    return rows, [(image.height, image.width) for image in images]


class ImageClassifier(Classifier):
    """The likeliest class of each image."""

    inputs = ((IMAGE, (-1,)),)

    def _rows(self, request: InferRequest) -> Sequence[Row]:
        (given,) = input_of(request, IMAGE).values()
        return rows_of(given, self._processor)[0]


class ImageEmbedder(Perceiver):
    """A vector of length one for each image: the model's own pooled one, or the mean over its patches where it has none."""

    inputs = ((IMAGE, (-1,)),)

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._has_texts = hasattr(self._model, "get_image_features")
        # The vector's width depends on the model's kind in ways that no config tells: one image does.
        probe = dict(self._processor(images=[Image.new("RGB", (64, 64))], return_tensors="pt"))
        (vector,) = self._vectors([probe])
        self._width = len(vector)

    def _outputs(self, request: InferRequest) -> Sequence[Tensor]:
        (given,) = input_of(request, IMAGE).values()
        vectors = self._vectors(rows_of(given, self._processor)[0])
        return [tensor(EMBEDDING, torch.stack(vectors).numpy() if vectors else np.empty((0, self._width), np.float32))]

    def _described(self) -> tuple[TensorMetadata, ...]:
        return (TensorMetadata(name=EMBEDDING, datatype=Datatype.FP32, shape=(-1, self._width)),)

    def _vectors(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        compute = self._model.get_image_features if self._has_texts else self._model
        return self._computed(rows, lambda found, _: self._normalized(found), compute)

    def _normalized(self, found: Any) -> list[torch.Tensor]:
        pooled = getattr(found, "pooler_output", None) if self._source.is_pooled else None
        if pooled is None:
            pooled = found.last_hidden_state.mean(1)
        return list(torch.nn.functional.normalize(pooled.float().flatten(1), dim=1).cpu())


class ZeroShotImageClassifier(Perceiver):
    """How well each of the texts ``candidate_labels`` describes an image, the best first."""

    inputs = ((IMAGE, (-1,)), (CANDIDATES, (-1, -1)))

    def _outputs(self, request: InferRequest) -> Sequence[Tensor]:
        template = template_of(request.parameters, "This is a photo of {}.")
        given, named = candidates_of(request, IMAGE)
        rows, _ = rows_of(given, self._processor)
        is_siglip = "siglip" in self._model.config.model_type
        texts = [tuple(template.replace("{}", name) for name in names) for names in named]
        # Rows with the same texts share one call, which reads the texts once.
        groups: dict[tuple[str, ...], list[int]] = {}
        for number, row_texts in enumerate(texts):
            groups.setdefault(row_texts, []).append(number)
        scores = torch.empty(len(rows), len(named[0]) if named else 0)
        for shared, numbers in groups.items():
            padding: dict[str, Any] = (
                {"padding": "max_length", "max_length": _SIGLIP_TOKENS, "truncation": True}
                if is_siglip
                else {"padding": True, "truncation": True}
            )
            read = self._placed(self._source.tokenizer(list(shared), return_tensors="pt", **padding))
            logits = self._computed(
                [rows[number] for number in numbers],
                lambda found, _: list(found.logits_per_image.float().cpu()),
                lambda _read=read, **pixels: self._model(**_read, **pixels),
            )
            found = torch.stack(logits)
            scores[numbers] = found.sigmoid() if is_siglip else found.softmax(-1)
        return likeliest(scores, named, None)

    def _described(self) -> tuple[TensorMetadata, ...]:
        return (
            TensorMetadata(name=LABEL, datatype=Datatype.BYTES, shape=(-1, -1)),
            TensorMetadata(name=SCORE, datatype=Datatype.FP32, shape=(-1, -1)),
        )
