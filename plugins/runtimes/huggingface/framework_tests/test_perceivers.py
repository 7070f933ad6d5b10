"""Models of images and sounds, against transformers itself."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from servery_runtime_huggingface.model import HuggingFaceModel
from servery_runtime_huggingface.tasks import Task
from servery_sdk.language import TranscribingModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, v1
from servery_sdk.serving import InputError, LoadError, held
from servery_sdk.testing import RuntimeContract
from tiny_perceivers import CLASSES, RATE, encoded, perceiver, picture, png, wav, wave

PICTURES = [picture(seed, width=20 + 4 * seed) for seed in range(3)]
WAVES = [wave(seed, seconds=0.2 + 0.1 * seed) for seed in range(3)]


def column(name: str, values: Sequence[Any]) -> Tensor:
    data = np.empty(len(values), dtype=object)
    data[:] = values
    return Tensor(name=name, data=data, datatype=Datatype.BYTES)


def images(pixels: Sequence[Any]) -> Tensor:
    return column("image", [encoded(png(one)) for one in pixels])


def sounds(waves: Sequence[Any]) -> Tensor:
    return column("audio", [encoded(wav(one)) for one in waves])


def request(*inputs: Tensor, **more: Any) -> InferRequest:
    return InferRequest(model="m", inputs=inputs, **more)


def answer(**outputs: Any) -> InferResponse:
    tensors = [
        Tensor(name=name, data=np.asarray(data), datatype=Datatype.of(np.asarray(data)))
        for name, data in outputs.items()
    ]
    return InferResponse(model="m", outputs=tuple(tensors))


def texts(*values: str) -> Any:
    return column("", [value.encode() for value in values]).data


def computed(kind: str, rows: Sequence[Any], **options: Any) -> list[Any]:
    """What the model computes for each row alone, as transformers' own words have it."""
    with TemporaryDirectory() as directory, torch.inference_mode():
        model, processor, *_ = perceiver(kind, Path(directory))
        return [
            model(
                **processor(row, return_tensors="pt", **({"sampling_rate": RATE} if row.ndim == 1 else {}), **options)
            )
            for row in rows
        ]


def best(found: Sequence[Any]) -> InferResponse:
    probabilities = torch.cat([one.logits.softmax(-1) for one in found])
    top = probabilities.max(-1)
    return answer(label=texts(*(CLASSES[number] for number in top.indices.tolist())), score=top.values.numpy())


class PerceiverContract(RuntimeContract):
    plugin = "servery_runtime_huggingface.plugin"
    framework = ("torch", "transformers")
    relative_tolerance = 1e-3
    kind: ClassVar[str]

    def write_model(self, directory: Path) -> None:
        perceiver(self.kind, directory)

    def write_other_model(self, directory: Path) -> None:
        perceiver(self.kind, directory, seed=1)


WRONG_IMAGE = request(Tensor(name="image", data=np.zeros((2, 5)), datatype=Datatype.FP64))
WRONG_SOUND = request(Tensor(name="audio", data=np.zeros((2, 5, 2)), datatype=Datatype.FP64))


class TestImageClasses(PerceiverContract):
    kind = "image-classes"
    good_request = request(images(PICTURES))
    good_response = best(computed("image-classes", PICTURES))
    wrong_request = WRONG_IMAGE


class TestImageVectors(PerceiverContract):
    kind = "image-vector"
    good_request = request(images(PICTURES))
    good_response = answer(
        embedding=torch.cat(
            [
                torch.nn.functional.normalize(one.last_hidden_state.mean(1), dim=1)
                for one in computed("image-vector", PICTURES)
            ]
        ).numpy()
    )
    wrong_request = WRONG_IMAGE


class TestSoundClasses(PerceiverContract):
    kind = "sound-classes"
    good_request = request(sounds(WAVES))
    good_response = best(computed("sound-classes", WAVES))
    wrong_request = WRONG_SOUND
