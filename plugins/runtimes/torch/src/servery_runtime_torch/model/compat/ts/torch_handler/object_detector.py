"""The default handler ``object_detector``: what is in an image, and where."""

from __future__ import annotations

from typing import Any

import torch

from .image_transforms import to_tensor
from .vision_handler import VisionHandler


class ObjectDetector(VisionHandler):
    """Answers a list of ``{label: [x1, y1, x2, y2], "score": …}``; images may differ in size."""

    threshold = 0.5
    image_processing = staticmethod(to_tensor)

    def preprocess(self, data: Any) -> Any:
        """Return the images, each ``[channels, height, width]``."""
        items = [item.get("data") or item.get("body") if isinstance(item, dict) else item for item in data]
        return [self._image(item).to(self.device) for item in items]

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the model's boxes, labels and scores for each image."""
        with torch.inference_mode():
            found = self.model(data, *args, **kwargs)
        # TorchScript's detectors answer their losses as well.
        return found[1] if isinstance(found, tuple) else found

    def postprocess(self, data: Any) -> Any:
        """Return what was found with more than ``threshold``."""
        return [
            [
                {(self.mapping or {}).get(str(label), str(label)): box, "score": score}
                for label, box, score in zip(
                    found["labels"].tolist(), found["boxes"].tolist(), found["scores"].tolist(), strict=True
                )
                if score > self.threshold
            ]
            for found in data
        ]
