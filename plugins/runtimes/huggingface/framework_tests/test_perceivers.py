"""Models of images and sounds, against transformers itself."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from servery_runtime_huggingface.model import HuggingFaceModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, v1
from servery_sdk.serving import InputError
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


def scored(probabilities: torch.Tensor, names: Sequence[str]) -> InferResponse:
    order = probabilities.topk(len(names))
    labels = texts(*(names[number] for row in order.indices.tolist() for number in row))
    return answer(label=labels.reshape(order.indices.shape), score=order.values.numpy())


CANDIDATES = ("cat", "dog barked", "the moon")


def _zero_shot() -> InferResponse:
    with TemporaryDirectory() as directory, torch.inference_mode():
        model, processor, tokenizer = perceiver("clip", Path(directory))
        written = tokenizer([f"This is a photo of {name}." for name in CANDIDATES], return_tensors="pt", padding=True)
        rows = [model(**written, **processor(one, return_tensors="pt")).logits_per_image for one in PICTURES]
    return scored(torch.cat(rows).softmax(-1), CANDIDATES)


def candidates(rows: int) -> Tensor:
    names = texts(*CANDIDATES * rows).reshape(rows, len(CANDIDATES))
    return Tensor(name="candidate_labels", data=names, datatype=Datatype.BYTES)


class TestZeroShotImageClasses(PerceiverContract):
    kind = "clip"
    good_request = request(images(PICTURES), candidates(3))
    good_response = _zero_shot()
    wrong_request = request(images(PICTURES), column("candidate_labels", ["cat"] * 3))


def _boxes(threshold: float) -> list[list[dict[str, Any]]]:
    with TemporaryDirectory() as directory, torch.inference_mode():
        model, processor = perceiver("boxes", Path(directory))
        listed = []
        for one in PICTURES:
            found = model(**processor(one, return_tensors="pt"))
            (kept,) = processor.post_process_object_detection(
                found, threshold=threshold, target_sizes=[tuple(one.shape[:2])]
            )
            things = sorted(
                zip(*(kept[key].tolist() for key in ("scores", "labels", "boxes")), strict=True), reverse=True
            )
            boxes = [dict(zip(("xmin", "ymin", "xmax", "ymax"), map(int, box), strict=True)) for _, _, box in things]
            listed.append(
                [
                    {"score": score, "label": CLASSES[label], "box": box}
                    for (score, label, _), box in zip(things, boxes, strict=True)
                ]
            )
    return listed


def loaded(kind: str, directory: Path, **options: Any) -> HuggingFaceModel:
    perceiver(kind, directory)
    model = HuggingFaceModel(**options)
    model.load(directory)
    return model


def documents(response: InferResponse) -> Any:
    return json.loads(v1.encode_response(response))["predictions"]


def test_boxes_are_what_the_model_finds_in_each_image(tmp_path: Path) -> None:
    model = loaded("boxes", tmp_path)
    wanted = _boxes(0.4)
    assert any(wanted)
    asked = request(images(PICTURES), parameters={"threshold": 0.4})
    found = documents(model.predict(asked))
    for things, expected in zip(found, wanted, strict=True):
        assert [one["box"] for one in things] == [one["box"] for one in expected]
        assert [one["label"] for one in things] == [one["label"] for one in expected]
        assert [one["score"] for one in things] == pytest.approx([one["score"] for one in expected], rel=1e-3)
    fewer = documents(model.predict(request(images(PICTURES), parameters={"threshold": 1})))
    assert fewer == [[], [], []]


@pytest.mark.parametrize("kind", ["masks", "areas"])
def test_segments_have_masks_of_the_images_size(tmp_path: Path, kind: str) -> None:
    model = loaded(kind, tmp_path)
    parameters = {} if kind == "areas" else {"threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    found = documents(model.predict(request(images(PICTURES), parameters=parameters)))
    covered = np.zeros(PICTURES[0].shape[:2], int)
    for one in found[0]:
        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["mask"]))))
        assert (mask.shape, set(np.unique(mask)) <= {0, 255}) == (PICTURES[0].shape[:2], True)
        covered += mask > 0
        assert one["label"] in CLASSES.values()
        assert (one["score"] is None) == (kind == "areas")
    # Every pixel belongs to one thing.
    assert covered.max() == 1
    assert kind == "masks" or covered.min() == 1
    with pytest.raises(
        InputError, match=r"parameter 'subtask': must be one of: (instance, panoptic, )?semantic; found 'x'"
    ):
        model.predict(request(images(PICTURES), parameters={"subtask": "x"}))


def _ctc_texts() -> InferResponse:
    with TemporaryDirectory() as directory, torch.inference_mode():
        model, processor = perceiver("ctc", Path(directory))
        found = [model(**processor(one, sampling_rate=RATE, return_tensors="pt")).logits.argmax(-1)[0] for one in WAVES]
        return answer(text=texts(*(processor.decode(ids) for ids in found)))


class TestCharactersOfSpeech(PerceiverContract):
    kind = "ctc"
    good_request = request(sounds(WAVES))
    good_response = _ctc_texts()
    wrong_request = WRONG_SOUND


def _whispered(waves: Sequence[Any] = WAVES, **options: Any) -> InferResponse:
    with TemporaryDirectory() as directory, torch.inference_mode():
        model, processor = perceiver("whisper", Path(directory))
        ids = [model.generate(**processor(one, sampling_rate=RATE, return_tensors="pt"), **options)[0] for one in waves]
        return answer(text=texts(*(processor.decode(one, skip_special_tokens=True).strip() for one in ids)))


class TestWhisper(PerceiverContract):
    kind = "whisper"
    good_request = request(sounds(WAVES))
    good_response = _whispered()
    wrong_request = WRONG_SOUND
