"""Models of images and sounds, against transformers itself."""

from __future__ import annotations

import asyncio
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
from servery_runtime_huggingface.model.listening import Teller
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
    wanted = _boxes(0.3)
    assert any(wanted)
    asked = request(images(PICTURES), parameters={"threshold": 0.3})
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
    parameters = (
        {} if kind == "areas" else {"threshold": 0.0, "mask_threshold": 0.1, "overlap_mask_area_threshold": 0.0}
    )
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
    # Left to itself, transformers says no task where it hears the language.
    good_response = _whispered(task="transcribe")
    wrong_request = WRONG_SOUND


def written(model: HuggingFaceModel, waves: Sequence[Any], *outputs: str, **parameters: Any) -> dict[str, Any]:
    asked = request(sounds(waves), outputs=outputs, parameters=parameters)
    return {one.name: one.data for one in model.predict(asked).outputs}


def test_whisper_is_told_the_language_and_the_task(tmp_path: Path) -> None:
    model = loaded("whisper", tmp_path)
    for options in ({"language": "de"}, {"language": "german", "task": "translate"}):
        found = written(model, WAVES, **options)["text"]
        assert found.tolist() == _whispered(**options).outputs[0].data.tolist()
    assert written(model, WAVES, "language", language="de")["language"].tolist() == [b"german"] * 3
    assert set(written(model, WAVES, "language")["language"].tolist()) <= {b"german", b"english"}
    with pytest.raises(InputError, match="parameter 'language': the model knows: de, en; found 'tlh'"):
        written(model, WAVES, language="tlh")
    with pytest.raises(InputError, match="parameter 'task': must be one of: transcribe, translate; found 'sing'"):
        written(model, WAVES, task="sing")


def test_whisper_hears_sounds_longer_than_its_window(tmp_path: Path) -> None:
    model = loaded("whisper", tmp_path)
    long = wave(5, seconds=2.6)
    found = written(model, [WAVES[0], long, WAVES[1]], "text", "segments", "duration", language="en")
    assert found["duration"] == pytest.approx([0.2, 2.6, 0.3], abs=1e-3)
    segments = [json.loads(one) for one in found["segments"]]
    assert [len(one) > 0 for one in segments] == [True] * 3
    assert all(0 <= one["start"] <= one["end"] <= 2.7 for row in segments for one in row)
    assert max(one["end"] for one in segments[1]) > 1
    alone = written(model, [long], "text", "segments", language="en")
    assert (alone["text"][0], alone["segments"][0]) == (found["text"][1], found["segments"][1])


def test_words_of_ctc_have_times(tmp_path: Path) -> None:
    model = loaded("ctc", tmp_path)
    found = written(model, WAVES, "text", "segments")
    for text, listed, one in zip(found["text"], map(json.loads, found["segments"]), WAVES, strict=True):
        assert " ".join(word["text"] for word in listed) == " ".join(text.decode().split())
        assert all(0 <= word["start"] < word["end"] <= len(one) / RATE for word in listed)
    with pytest.raises(InputError, match="parameter 'language': this model writes down what it hears, and takes none"):
        written(model, WAVES, language="de")


@pytest.mark.parametrize(
    "inputs",
    [
        Tensor(name="audio", data=np.stack([WAVES[0]] * 2), datatype=Datatype.FP32),
        column("audio", [wav(WAVES[0])] * 2),
        column("audio", [b"data:audio/wav;base64," + encoded(wav(WAVES[0]))] * 2),
    ],
    ids=["wave", "file", "url"],
)
def test_a_sound_is_the_same_however_it_is_spelled(tmp_path: Path, inputs: Tensor) -> None:
    model = loaded("ctc", tmp_path)
    found = model.predict(request(inputs)).outputs[0].data.tolist()
    assert found == [_ctc_texts().outputs[0].data[0]] * 2


def test_a_sound_of_another_rate_or_format_is_heard(tmp_path: Path) -> None:
    model = loaded("sound-classes", tmp_path, return_raw_logits=True)
    (wanted,) = model.predict(request(sounds(WAVES[2:]))).outputs[0].data
    louder = wave(2, seconds=0.4, rate=2 * RATE)
    for name, given in {
        "rate": column("audio", [wav(louder, rate=2 * RATE)]),
        "flac": column("audio", [wav(WAVES[2], kind="FLAC")]),
        "stereo": column("audio", [wav(np.stack([WAVES[2]] * 2, axis=1))]),
    }.items():
        (found,) = model.predict(request(given)).outputs[0].data
        np.testing.assert_allclose(found, wanted, atol=0.1, err_msg=name)
    raw = Tensor(name="audio", data=louder[None], datatype=Datatype.FP32)
    (found,) = model.predict(request(raw, parameters={"sampling_rate": 2 * RATE})).outputs[0].data
    np.testing.assert_allclose(found, wanted, atol=0.1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (column("audio", [b"no sound"]), "input 'audio' row 0: 8 bytes that are no sound, nor base64 of one"),
        (column("audio", [wav(WAVES[0][:0])]), "input 'audio' row 0: the sound is empty"),
        (Tensor(name="audio", data=np.full((1, 9), np.nan), datatype=Datatype.FP64), "the wave holds NaN or infinity"),
        (column("audio", [[b"a", b"b"]]), "input 'audio'"),
    ],
)
def test_what_is_no_sound_is_refused(tmp_path: Path, given: Tensor, words: str) -> None:
    with pytest.raises(InputError) as refused:
        loaded("sound-classes", tmp_path).predict(request(given))
    assert words in str(refused.value)


def test_an_image_is_the_same_however_it_is_spelled(tmp_path: Path) -> None:
    model = loaded("image-classes", tmp_path, return_probabilities=True)
    pixels = PICTURES[0]
    wanted = model.predict(request(images([pixels]))).outputs[0].data
    processed = computed_pixels(tmp_path, pixels)
    for name, given in {
        "file": column("image", [png(pixels)]),
        "url": column("image", [b"data:image/png;base64," + encoded(png(pixels))]),
        "uint8": Tensor(name="image", data=pixels[None], datatype=Datatype.UINT8),
        "int64": Tensor(name="x", data=pixels[None].astype(np.int64), datatype=Datatype.INT64),
        "channels first": Tensor(name="image", data=pixels.transpose(2, 0, 1)[None], datatype=Datatype.UINT8),
        "pixel_values": Tensor(name="pixel_values", data=processed, datatype=Datatype.FP32),
    }.items():
        np.testing.assert_allclose(model.predict(request(given)).outputs[0].data, wanted, rtol=1e-4, err_msg=name)


def computed_pixels(directory: Path, pixels: Any) -> Any:
    _, processor = perceiver("image-classes", directory)
    return processor(pixels, return_tensors="np")["pixel_values"]


@pytest.mark.parametrize(
    ("given", "parameters", "words"),
    [
        (column("image", [b"no image"]), {}, "input 'image' row 0: 8 bytes that are no image that Pillow knows"),
        (column("image", [png(PICTURES[0])[:200]]), {}, "input 'image' row 0: the image cannot be read"),
        (column("image", [b"https://example.com/a.png"]), {}, "addresses are not fetched; send the file"),
        (
            Tensor(name="image", data=np.full((1, 4, 4, 3), 300), datatype=Datatype.INT64),
            {},
            "input 'image' is INT64 [1, 4, 4, 3] and holds 300 to 300",
        ),
        (images(PICTURES), {"top_k": 4}, "parameter 'top_k': must be a number from 1 to 3, found 4"),
        (images(PICTURES), {"top_k": 1.5}, "parameter 'top_k': must be an integer, found 1.5"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, given: Tensor, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        loaded("image-classes", tmp_path).predict(request(given, parameters=parameters))
    assert words in str(refused.value)


def test_the_best_classes_are_told_in_v1_by_name(tmp_path: Path) -> None:
    model = loaded("image-classes", tmp_path)
    row = documents(model.predict(request(images(PICTURES[:1]), parameters={"top_k": 3})))[0]
    assert sorted(row["label"]) == sorted(CLASSES.values())
    assert row["score"] == sorted(row["score"], reverse=True)
    assert sum(row["score"]) == pytest.approx(1, abs=1e-4)


def test_clip_gives_vectors_of_images_where_it_is_told_to(tmp_path: Path) -> None:
    model = loaded("clip", tmp_path, task="image_feature_extraction")
    found = model.predict(request(images(PICTURES))).outputs[0].data
    assert model.metadata().outputs[0].shape == (-1, 8)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "seconds", "parameters"),
    [
        ("ctc", 0.3, {}),
        ("whisper", 0.3, {"language": "en"}),
        ("whisper", 0.3, {"language": "de", "prompt": "abc"}),
        ("whisper", 2.6, {"language": "en"}),
        ("whisper", 4.1, {"language": "en", "task": "translate"}),
    ],
)
async def test_the_parts_of_a_stream_are_the_text_of_a_prediction(
    tmp_path: Path, kind: str, seconds: float, parameters: dict[str, Any]
) -> None:
    model = loaded(kind, tmp_path)
    one = wave(5, seconds=seconds)
    (whole,) = written(model, [one], "text", **parameters)["text"]
    asked = request(sounds([one]), outputs=("text",), parameters=parameters)
    transcriber: Any = model.held
    async with asyncio.timeout(60):
        parts = [part async for part in transcriber.listen(asked)]
        again = [part async for part in transcriber.listen(asked)]
    assert "".join(parts) == whole.decode()
    assert again == parts
    assert len(parts) == 1 if kind == "ctc" else len(parts) > 1
    model.close()


async def test_who_listens_no_more_stops_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("whisper", tmp_path)
    transcriber: Any = model.held
    puts: list[int] = []
    take = Teller.put

    def counted(teller: Teller, value: Any) -> None:
        puts.append(1)
        take(teller, value)

    monkeypatch.setattr(Teller, "put", counted)
    asked = request(sounds([wave(5, seconds=0.9)]), outputs=("text",), parameters={"language": "en"})
    async with asyncio.timeout(60):
        whole = [part async for part in transcriber.listen(asked)]
        heard, puts[:] = len(puts), []
        given_up = transcriber.listen(asked)
        assert await anext(given_up) == whole[0]
        await given_up.aclose()
        # One thread listens: the next is heard when the first has been given up.
        assert [part async for part in transcriber.listen(asked)] == whole
    assert len(puts) < 2 * heard
    with pytest.raises(InputError, match="bytes that are no sound"):
        await anext(transcriber.listen(request(column("audio", [b"\xff no sound"]), outputs=("text",))))
    model.close()
