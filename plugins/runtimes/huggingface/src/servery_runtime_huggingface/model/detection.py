"""Models that find things in images: boxes, and masks.

Source: transformers' pipelines ``object-detection`` and ``image-segmentation``, whose answers and parameters these are.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import torch
from PIL import Image
from servery_sdk.protocol import Datatype, InferRequest, Tensor, TensorMetadata
from servery_sdk.serving import LoadError

from servery_runtime_huggingface.model.artifact import Source
from servery_runtime_huggingface.model.files import input_of
from servery_runtime_huggingface.model.images import IMAGE
from servery_runtime_huggingface.model.parameters import number, word
from servery_runtime_huggingface.model.perceiving import Perceiver, documents
from servery_runtime_huggingface.model.vision import rows_of

DETECTIONS = "detections"
SEGMENTS = "segments"
_SUBTASKS = ("panoptic", "instance", "semantic")


class _Finder(Perceiver):
    """Answers a JSON list for each image: as many things as there are."""

    inputs = ((IMAGE, (-1,)),)
    output: str

    def _outputs(self, request: InferRequest) -> Sequence[Tensor]:
        (given,) = input_of(request, IMAGE).values()
        rows, sizes = rows_of(given, self._processor)
        found = self._found(request, rows, sizes)
        return [documents(self.output, [orjson.dumps(one) for one in found])]

    def _described(self) -> tuple[TensorMetadata, ...]:
        return (TensorMetadata(name=self.output, datatype=Datatype.BYTES, shape=(-1,)),)

    def _found(
        self, request: InferRequest, rows: Sequence[Any], sizes: Sequence[tuple[int, int]]
    ) -> list[list[dict[str, Any]]]:
        raise NotImplementedError

    def _name(self, number: int) -> str:
        return str(self._model.config.id2label[number])


class ObjectDetector(_Finder):
    """Label, score and box of each thing, in pixels of the image, whose score is above ``threshold`` (0.5)."""

    output = DETECTIONS

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        if not hasattr(self._processor, "post_process_object_detection"):
            raise LoadError(f"{source.place}: {type(self._processor).__name__} makes no boxes of what a model finds")

    def _found(
        self, request: InferRequest, rows: Sequence[Any], sizes: Sequence[tuple[int, int]]
    ) -> list[list[dict[str, Any]]]:
        threshold = number(request.parameters, "threshold", 0.5, least=0, most=1)

        def boxes(found: Any, numbers: Sequence[int]) -> list[list[dict[str, Any]]]:
            targets = [sizes[number] for number in numbers]
            return [
                self._things(one)
                for one in self._processor.post_process_object_detection(
                    found, threshold=threshold, target_sizes=targets
                )
            ]

        return self._computed(rows, boxes)

    def _things(self, found: Any) -> list[dict[str, Any]]:
        listed = zip(found["scores"].tolist(), found["labels"].tolist(), found["boxes"].tolist(), strict=True)
        return [
            {
                "score": score,
                "label": self._name(label),
                "box": dict(zip(("xmin", "ymin", "xmax", "ymax"), map(int, box), strict=True)),
            }
            for score, label, box in sorted(listed, key=lambda one: -one[0])
        ]


class ImageSegmenter(_Finder):
    """Label, score and mask of each segment; a mask is a PNG of the image's size in base64, white where the segment is.

    ``subtask`` is panoptic, instance or semantic, the first that the model's processor knows if left out; only semantic
    segments have no score. ``threshold`` (0.9), ``mask_threshold`` and ``overlap_mask_area_threshold`` (0.5) are of the others.
    """

    output = SEGMENTS

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._subtasks = [name for name in _SUBTASKS if hasattr(self._processor, f"post_process_{name}_segmentation")]
        if not self._subtasks or self._model.config.model_type == "oneformer":
            raise LoadError(f"{source.place}: this runtime makes no segments with {type(self._processor).__name__}")

    def _found(
        self, request: InferRequest, rows: Sequence[Any], sizes: Sequence[tuple[int, int]]
    ) -> list[list[dict[str, Any]]]:
        subtask = word(request.parameters, "subtask", self._subtasks[0], self._subtasks)
        bounds = {
            name: number(request.parameters, name, default, least=0, most=1)
            for name, default in (("threshold", 0.9), ("mask_threshold", 0.5), ("overlap_mask_area_threshold", 0.5))
        }
        process = getattr(self._processor, f"post_process_{subtask}_segmentation")

        def masks(found: Any, numbers: Sequence[int]) -> list[list[dict[str, Any]]]:
            targets = [sizes[number] for number in numbers]
            if subtask == "semantic":
                return [self._areas(one) for one in process(found, target_sizes=targets)]
            return [self._segments(one) for one in process(found, target_sizes=targets, **bounds)]

        return self._computed(rows, masks)

    def _areas(self, classes: torch.Tensor) -> list[dict[str, Any]]:
        found = classes.cpu().numpy()
        return [
            {"score": None, "label": self._name(int(label)), "mask": _png(found == label)} for label in np.unique(found)
        ]

    def _segments(self, found: Any) -> list[dict[str, Any]]:
        numbers = found["segmentation"].cpu().numpy()
        return [
            {
                "score": float(segment["score"]),
                "label": self._name(int(segment["label_id"])),
                "mask": _png(numbers == segment["id"]),
            }
            for segment in found["segments_info"]
        ]


def _png(mask: Any) -> str:
    written = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()
