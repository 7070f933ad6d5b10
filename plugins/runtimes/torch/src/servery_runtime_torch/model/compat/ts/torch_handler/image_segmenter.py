"""The default handler ``image_segmenter``: for each pixel, its most probable class."""

from __future__ import annotations

from typing import Any

import torch

from .image_transforms import imagenet
from .vision_handler import VisionHandler


class ImageSegmenter(VisionHandler):
    """Answers ``[height, width, 2]``: a pixel's class and that class's probability."""

    image_processing = staticmethod(imagenet())

    def postprocess(self, data: Any) -> Any:
        """Return classes and probabilities of ``data["out"]``, ``[rows, classes, height, width]``."""
        chances, classes = torch.softmax(data["out"], dim=1).max(dim=1)
        return torch.stack([classes.type(chances.dtype), chances], dim=3).tolist()
