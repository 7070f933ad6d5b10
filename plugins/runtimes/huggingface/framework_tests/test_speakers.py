"""Models that speak, against transformers itself, and OpenAI's client."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openai
import pytest
import soundfile
import torch
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_runtime_huggingface.model import HuggingFaceModel
from servery_sdk import plugins
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract
from tiny_perceivers import RATE, perceiver
from tiny_transformers import reader

TEXTS = ("the cat sat", "a dog barked at the moon", "rivers")


def column(name: str, values: Sequence[Any]) -> Tensor:
    data = np.empty(len(values), dtype=object)
    data[:] = values
    return Tensor(name=name, data=data, datatype=Datatype.BYTES)


def texts(*values: str, **parameters: Any) -> InferRequest:
    return InferRequest(
        model="m", inputs=(column("text", [value.encode() for value in values]),), parameters=parameters
    )


def spoken(kind: str, text: str, *, seed: int | None = None, **options: Any) -> Any:
    """The sound of a text alone, as transformers makes it, in 16 bits."""
    with TemporaryDirectory() as directory, torch.inference_mode():
        model, tokenizer = perceiver(kind, Path(directory))
        if seed is not None:
            torch.manual_seed(seed)
        model.speaking_rate = options.pop("speed", 1)
        wave = model(**tokenizer(text, return_tensors="pt"), **options).waveform[0].numpy()
    return samples(wav(wave, RATE))


def wav(wave: Any, rate: int) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, wave, rate, format="WAV", subtype="PCM_16")
    return written.getvalue()


def samples(file: bytes) -> Any:
    return soundfile.read(io.BytesIO(file), dtype="int16")[0]


def assert_alike(found: Any, wanted: Any) -> None:
    """Equal but for the last of 16 bits: sums of floats depend on the order that a thread pool takes."""
    np.testing.assert_allclose(found.astype(int), wanted.astype(int), atol=2)


def expected() -> InferResponse:
    with TemporaryDirectory() as directory, torch.inference_mode():
        model, tokenizer = perceiver("voice", Path(directory))
        waves = [model(**tokenizer(text, return_tensors="pt")).waveform[0].numpy() for text in TEXTS]
    files = [base64.b64encode(wav(wave, RATE)) for wave in waves]
    return InferResponse(model="m", outputs=(column("audio", files),))


class TestSpeech(RuntimeContract):
    plugin = "servery_runtime_huggingface.plugin"
    framework = ("torch", "transformers")
    good_request = texts(*TEXTS)
    good_response = expected()
    wrong_request = InferRequest(
        model="m", inputs=(Tensor(name="text", data=np.zeros((1, 5)), datatype=Datatype.FP64),)
    )

    def write_model(self, directory: Path) -> None:
        perceiver("voice", directory)

    def write_other_model(self, directory: Path) -> None:
        perceiver("voice", directory, seed=1)


def loaded(kind: str, directory: Path, **options: Any) -> HuggingFaceModel:
    perceiver(kind, directory)
    model = HuggingFaceModel(**options)
    model.load(directory)
    return model


def heard(model: HuggingFaceModel, request: InferRequest) -> list[Any]:
    (found,) = model.predict(request).outputs
    return [samples(base64.b64decode(file)) for file in found.data]


def test_a_seed_a_voice_and_a_speed_are_the_models_own(tmp_path: Path) -> None:
    model = loaded("voices", tmp_path)
    other, again = heard(model, texts("the cat", "the cat", seed=7, voice="2", speed=0.5))
    assert_alike(other, again)
    assert_alike(other, spoken("voices", "the cat", seed=7, speaker_id=2, speed=0.5))
    (first,) = heard(model, texts("the cat", seed=7))
    assert_alike(first, spoken("voices", "the cat", seed=7, speaker_id=0))
    assert len(other) > len(first)
    drawn = [heard(model, texts("the cat"))[0] for _ in range(2)]
    assert not np.array_equal(*(one[: min(map(len, drawn))] for one in drawn))


def test_a_seed_leaves_the_numbers_of_others_as_they_were(tmp_path: Path) -> None:
    model = loaded("voices", tmp_path)
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    model.predict(texts("the cat", seed=7))
    assert torch.equal(torch.rand(4), wanted)


@pytest.mark.parametrize(
    ("text", "parameters", "words"),
    [
        ("a", {"voice": "3"}, r"'voice': the model's are 0 to 2; found '3'"),
        ("a", {"voice": "alloy"}, r"'voice': the model's are 0 to 2; found 'alloy'"),
        ("a", {"speed": 9}, "'speed': must be a number from 0.25 to 4"),
        ("a", {"format": "aac"}, "'format': must be one of: flac, mp3, opus, pcm, wav"),
        ("日本語", {}, "row 0: nothing of the text can be spoken"),
    ],
)
def test_what_cannot_be_spoken_is_refused(tmp_path: Path, text: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        loaded("voices", tmp_path).predict(texts(text, **parameters))


def test_a_model_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    for part in reader("sequence"):
        part.save_pretrained(tmp_path)
    model = HuggingFaceModel(task="text_to_audio")
    with pytest.raises(LoadError, match="model type 'bert': this runtime speaks with: vits"):
        model.load(tmp_path)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    perceiver("voice", tmp_path)
    settings = Settings(
        runtime="huggingface", model_name="tiny", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    runtime = plugins.load().runtimes["servery-huggingface"]
    predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
    await predictor.start()
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/openai/v1", api_key="none", max_retries=0) as client:
        yield client
    await predictor.stop()


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "opus"])
async def test_openais_client_gets_a_file_of_the_sound(client: openai.AsyncOpenAI, form: Any) -> None:
    wanted = spoken("voice", TEXTS[0])
    answer = await client.audio.speech.create(model="tiny", voice="alloy", input=TEXTS[0], response_format=form)
    with soundfile.SoundFile(io.BytesIO(answer.content)) as file:
        found = file.read(dtype="int16")
        assert (file.samplerate, file.channels) == (RATE, 1)
    if form in ("wav", "flac"):
        assert_alike(found, wanted)
    else:
        # Lossy formats have frames of so many samples.
        assert abs(len(found) - len(wanted)) < 3000


async def test_samples_without_a_head_are_of_openais_rate(client: openai.AsyncOpenAI) -> None:
    wanted = spoken("voice", TEXTS[0])
    answer = await client.audio.speech.create(model="tiny", voice="alloy", input=TEXTS[0], response_format="pcm")
    found = np.frombuffer(answer.content, "<i2")
    assert len(found) == len(wanted) * 24_000 // RATE
