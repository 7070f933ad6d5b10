"""The default handler ``image_classifier``: the five most probable classes of an image."""

from __future__ import annotations

from typing import Any

import torch

from ..utils.util import map_class_to_label
from .image_transforms import imagenet
from .vision_handler import VisionHandler


class ImageClassifier(VisionHandler):
    """Answers ``{label: probability}``; extend it with other ``image_processing`` or ``topk``."""

    topk = 5
    image_processing = staticmethod(imagenet())

    def set_max_result_classes(self, topk: int) -> None:
        """Set how many classes are answered."""
        self.topk = topk

    def get_max_result_classes(self) -> int:
        """Return how many classes are answered."""
        return self.topk

    def postprocess(self, data: Any) -> Any:
        """Return the probabilities of the most probable classes."""
        chances, classes = torch.topk(torch.softmax(data, dim=1), self.topk, dim=1)
        return map_class_to_label(chances.tolist(), self.mapping, classes.tolist())
