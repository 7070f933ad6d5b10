"""Images in requests: encoded files, pixels, or what the model itself takes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from servery_sdk.protocol import Tensor
from servery_sdk.serving import InputError

from servery_runtime_huggingface.model.files import elements_of

IMAGE = "image"
PIXEL_VALUES = "pixel_values"
"""An input of this name is what the processor would make of images: ``[rows, channels, height, width]``."""

_MAX_PIXELS = 100_000_000
"""Of one image: a file of some kilobytes may unfold to gigabytes."""

_CHANNELS = (1, 3, 4)


def images_of(tensor: Tensor) -> list[Image.Image]:
    """Return the images of an input in RGB: files (BYTES ``[rows]``), or pixels from 0 to 255.

    Pixels are ``[rows, height, width, channels]``, ``[rows, channels, height, width]`` or, in grey, ``[rows, height, width]``.

    Raises:
        InputError: Neither; names the input and the row.
    """
    files = elements_of(tensor, IMAGE)
    if files is None:
        return [Image.fromarray(pixels).convert("RGB") for pixels in _pixels(tensor)]
    return [decoded(file, f"input {tensor.name!r} row {row}") for row, file in enumerate(files)]


def decoded(file: bytes, where: str) -> Image.Image:
    """Return the image of a file, in RGB and as its camera was held.

    Raises:
        InputError: Not an image; begins with ``where``.
    """
    try:
        with Image.open(io.BytesIO(file)) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise InputError(f"{where}: {image.width} x {image.height} pixels; at most {_MAX_PIXELS:,} are taken")
            return ImageOps.exif_transpose(image).convert("RGB")
    except UnidentifiedImageError as error:
        raise InputError(
            f"{where}: {len(file)} bytes that are no image that Pillow knows, nor base64 of one"
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow's readers of broken files, each with an exception of its own.
        raise InputError(f"{where}: the image cannot be read: {error}") from error


def _pixels(tensor: Tensor) -> Any:
    data, shape = tensor.data, list(tensor.data.shape)
    wanted = "files (BYTES [rows]) or pixels from 0 to 255 (UINT8 [rows, height, width, 3])"
    where = f"input {tensor.name!r} is {tensor.datatype} {shape}"
    if data.dtype.kind not in "iu" or data.ndim not in (3, 4) or 0 in shape[1:]:
        raise InputError(f"{where}; the model takes images: {wanted}, or its own {PIXEL_VALUES!r} (FP32)")
    if data.ndim == 4 and shape[3] not in _CHANNELS and shape[1] in _CHANNELS:
        data = data.transpose(0, 2, 3, 1)
    if data.ndim == 4 and data.shape[3] not in _CHANNELS:
        raise InputError(f"{where}; neither the second nor the last axis are channels: {wanted}")
    if data.dtype != np.uint8 and data.size and (data.min() < 0 or data.max() > 255):
        raise InputError(f"{where} and holds {data.min()} to {data.max()}; {wanted}")
    data = data.astype(np.uint8)
    return np.ascontiguousarray(data[..., 0] if data.ndim == 4 and data.shape[3] == 1 else data)
