"""The few of torchvision's transforms that the default handlers need, for machines without it.

Source: torchvision's documentation of ``Compose``, ``Resize``, ``CenterCrop``, ``ToTensor`` and ``Normalize``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image

Transform = Callable[[Any], Any]


def imagenet() -> Transform:
    """Return what models of ImageNet were trained behind: torchvision's own transforms where it is installed."""
    if find_spec("torchvision") is None:
        return Compose([resized, cropped, to_tensor, normalized])
    transforms = importlib.import_module("torchvision.transforms")
    made: Transform = transforms.Compose(
        [
            transforms.Resize(SHORTER_SIDE),
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize(mean=MEAN, std=DEVIATION),
        ]
    )
    return made


SHORTER_SIDE, SIDE = 256, 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_GREATEST = 255


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self.transforms = transforms

    def __call__(self, image: Any) -> Any:
        """Return ``image`` behind all of them."""
        for transform in self.transforms:
            image = transform(image)
        return image


def resized(image: Image.Image) -> Image.Image:
    """Return the image with its shorter side of ``SHORTER_SIDE`` pixels, bilinear."""
    width, height = image.size
    if width <= height:
        size = (SHORTER_SIDE, int(SHORTER_SIDE * height / width))
    else:
        size = (int(SHORTER_SIDE * width / height), SHORTER_SIDE)
    return image.resize(size, Image.Resampling.BILINEAR)


def cropped(image: Image.Image) -> Image.Image:
    """Return the middle square of ``SIDE`` pixels."""
    width, height = image.size
    left, top = round((width - SIDE) / 2), round((height - SIDE) / 2)
    return image.crop((left, top, left + SIDE, top + SIDE))


def to_tensor(image: Image.Image) -> torch.Tensor:
    """Return the pixels ``[channels, height, width]`` from 0 to 1."""
    pixels = np.array(image, dtype=np.float32 if image.mode == "F" else None)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    channels = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return channels.float().div(_GREATEST) if pixels.dtype == np.uint8 else channels.float()


def normalized(tensor: torch.Tensor) -> torch.Tensor:
    """Return the pixels less ImageNet's mean, by its deviation."""
    mean, deviation = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, DEVIATION))
    return (tensor - mean) / deviation
