"""What the handlers of images share: base64, bytes or numbers in, a tensor out; integrated gradients."""

from __future__ import annotations

import base64
import io
from abc import ABC
from typing import Any

import torch
from PIL import Image

from ..context import Context
from .base_handler import BaseHandler


class VisionHandler(BaseHandler, ABC):
    """Extend it with ``image_processing``, which makes a tensor of an image."""

    image_processing: Any

    def initialize(self, context: Context) -> None:
        """Load the model."""
        super().initialize(context)
        if not context.system_properties.get("limit_max_image_pixels"):
            Image.MAX_IMAGE_PIXELS = None

    def preprocess(self, data: Any) -> Any:
        """Return the images ``[rows, channels, height, width]``; lists of numbers are taken as they are."""
        images = [
            self._image(item.get("data") or item.get("body") if isinstance(item, dict) else item) for item in data
        ]
        return torch.stack(images).to(self.device)

    def _image(self, image: Any) -> Any:
        if image is None:
            raise ValueError("an item has neither data nor body")
        if isinstance(image, str):
            image = base64.b64decode(image)
        if isinstance(image, bytes | bytearray):
            return self.image_processing(Image.open(io.BytesIO(image)))
        return torch.FloatTensor(image)

    def get_insights(self, tensor_data: Any, _: Any, target: int = 0) -> Any:
        """Return integrated gradients ``[rows, channels, height, width]`` of the class ``target``."""
        # Here, and not above: Captum takes seconds to import, and few explain.
        from captum.attr import IntegratedGradients

        return IntegratedGradients(self.model).attribute(tensor_data, target=target, n_steps=15).tolist()
