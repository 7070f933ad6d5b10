"""OpenAI's transcripts over a model that hears the bytes of a file, asked by OpenAI's own client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import orjson
import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk.model import Option, OptionKind, Runtime
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.protocol.elements import objects

FILE = b"\x00RIFF\r\n--x\r\nhello"


class Parrot:
    """Says what bytes and parameters came."""

    transcribes = True

    def __init__(self, *, english: bool = False) -> None:
        self.translates = not english

    def load(self, artifact: Path) -> None:
        """Nothing lies there."""

    def predict(self, request: InferRequest) -> InferResponse:
        (sounds,) = request.inputs
        told = " ".join(f"{name}={value}" for name, value in sorted(request.parameters.items()))
        texts = [f"{len(sound)} bytes {told}".strip() for sound in sounds.data]
        segments = [{"start": 0.0, "end": 1.5, "text": " one"}, {"start": 3661.25, "end": 3662, "text": " two"}]
        outputs = {
            "text": objects([text.encode() for text in texts]),
            "segments": objects([orjson.dumps(segments) for _ in texts]),
            "language": objects([b"german" for _ in texts]),
            "duration": np.full(len(texts), 2.6),
        }
        named = {name: outputs[name] for name in request.outputs}
        tensors = [Tensor(name=name, data=data, datatype=Datatype.of(data)) for name, data in named.items()]
        return InferResponse(model=request.model, outputs=tuple(tensors))


PARROT = Runtime(
    name="parrot",
    model_class=f"{__name__}:Parrot",
    options=(Option(name="english", meaning="Does not translate.", kind=OptionKind.SWITCH),),
)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Predictor]:
    settings = Settings(
        runtime="parrot", model_name="m", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    predictor = Predictor(settings, PARROT, Metrics(CollectorRegistry()))
    await predictor.start()
    yield predictor
    await predictor.stop()


@pytest.fixture
async def client(served: Predictor) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{served.http.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def translated_by(client: openai.AsyncOpenAI, **fields: str) -> httpx.Response:
    """Ask for a translation; OpenAI's client warns of its own method."""
    async with httpx.AsyncClient() as http:
        return await http.post(
            f"{client.base_url}audio/translations", data={"model": "m", **fields}, files={"file": ("a.wav", FILE)}
        )


async def test_a_file_is_written_down_with_what_the_client_says(client: openai.AsyncOpenAI) -> None:
    plain = await client.audio.transcriptions.create(model="m", file=FILE)
    assert plain.text == f"{len(FILE)} bytes"
    told = await client.audio.transcriptions.create(
        model="m", file=("a.wav", FILE), language="de", prompt="Größe", temperature=0.5
    )
    assert told.text == f"{len(FILE)} bytes language=de prompt=Größe temperature=0.5"
    translated = await translated_by(client)
    assert translated.json()["text"] == f"{len(FILE)} bytes task=translate"
    assert [model.id async for model in await client.models.list()] == ["m"]


async def test_times_come_in_every_shape(client: openai.AsyncOpenAI) -> None:
    verbose = await client.audio.transcriptions.create(model="m", file=FILE, response_format="verbose_json")
    assert (verbose.language, verbose.duration, verbose.text) == ("german", 2.6, f"{len(FILE)} bytes")
    assert [(one.id, one.start, one.text) for one in verbose.segments or ()] == [(0, 0, " one"), (1, 3661.25, " two")]
    srt = await client.audio.transcriptions.create(model="m", file=FILE, response_format="srt")
    assert srt == "1\n00:00:00,000 --> 00:00:01,500\none\n\n2\n01:01:01,250 --> 01:01:02,000\ntwo\n"
    vtt = await translated_by(client, response_format="vtt")
    assert vtt.headers["content-type"] == "text/vtt; charset=utf-8"
    assert vtt.text == "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\none\n\n01:01:01.250 --> 01:01:02.000\ntwo\n"
    text = await client.audio.transcriptions.create(model="m", file=FILE, response_format="text")
    assert text == f"{len(FILE)} bytes\n"


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        ({"temperature": 2}, "temperature", "less than or equal to 1"),
        ({"response_format": "mp3"}, "response_format", "'json', 'text', 'srt'"),
        ({"stream": True}, "stream", "stream"),
        ({"file": b""}, "file", "file"),
    ],
)
async def test_a_wrong_field_is_refused_by_its_name(
    client: openai.AsyncOpenAI, asked: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.audio.transcriptions.create(**{"model": "m", "file": FILE, **asked})
    assert refused.value.param == param
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("content_type", "body", "words"),
    [
        (
            "application/json",
            b"{}",
            "content-type: must be multipart/form-data with a boundary, found application/json",
        ),
        ("multipart/form-data; boundary=x", b"nothing", "the body is no multipart/form-data"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", "model: Field required"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 65 + b"--x--\r\n",
            "more than 64 fields",
        ),
    ],
)
async def test_what_is_no_form_is_refused(served: Predictor, content_type: str, body: bytes, words: str) -> None:
    async with httpx.AsyncClient() as http:
        answer = await http.post(
            f"{served.http.url}/v1/audio/transcriptions", content=body, headers={"content-type": content_type}
        )
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


async def test_a_model_that_does_not_translate_says_so(tmp_path: Path) -> None:
    settings = Settings(
        runtime="parrot", model_name="m", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    predictor = Predictor(settings, PARROT, Metrics(CollectorRegistry()), options={"english": True})
    await predictor.start()
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/v1", api_key="none", max_retries=0) as client:
        refused = await translated_by(client)
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "model 'm' does not translate; ask it for transcriptions"
    await predictor.stop()
