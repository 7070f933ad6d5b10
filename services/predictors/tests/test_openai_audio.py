"""OpenAI's transcripts over a model that hears the bytes of a file, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator
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
from servery_sdk.serving import InputError

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


async def events_of(client: openai.AsyncOpenAI, model: str) -> list[Any]:
    stream = await client.audio.transcriptions.create(model=model, file=FILE, language="de", stream=True)
    return [event async for event in stream]


async def test_a_model_that_tells_all_at_once_streams_one_part(client: openai.AsyncOpenAI) -> None:
    part, done = await events_of(client, "m")
    assert (part.type, part.delta) == ("transcript.text.delta", f"{len(FILE)} bytes language=de")
    assert (done.type, done.text) == ("transcript.text.done", part.delta)


class Listener(Parrot):
    """Tells what it hears word by word, until it is told to go on."""

    stopped = asyncio.Event()
    goes_on = asyncio.Event()

    async def listen(self, request: InferRequest) -> AsyncGenerator[str, None]:
        """Say three words; ``prompt`` is where it fails, or waits."""
        words = {"one": "at", " two": "between", " three": "behind"}
        try:
            for word, place in words.items():
                if request.parameters.get("prompt") == place:
                    raise InputError("not a sound")
                if request.parameters.get("prompt") == f"waits {place}":
                    await type(self).goes_on.wait()
                yield word
        finally:
            type(self).stopped.set()


@pytest.fixture
async def listening(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    Listener.stopped, Listener.goes_on = asyncio.Event(), asyncio.Event()
    settings = Settings(
        runtime="listener",
        model_name="m",
        model_dir=tmp_path,
        host="127.0.0.1",
        http_port=0,
        enable_grpc=False,
        request_timeout_seconds=0.2,
    )
    runtime = Runtime(name="listener", model_class=f"{__name__}:Listener")
    predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
    await predictor.start()
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/v1", api_key="none", max_retries=0) as client:
        yield client
    await predictor.stop()


async def test_parts_come_while_the_model_hears(listening: openai.AsyncOpenAI) -> None:
    events = await events_of(listening, "m")
    assert [event.delta for event in events[:-1]] == ["one", " two", " three"]
    assert events[-1].text == "one two three"
    assert Listener.stopped.is_set()


async def test_a_client_that_hangs_up_stops_the_model(listening: openai.AsyncOpenAI) -> None:
    stream = await listening.audio.transcriptions.create(model="m", file=FILE, prompt="waits between", stream=True)
    assert (await anext(aiter(stream))).type == "transcript.text.delta"
    await stream.close()
    async with asyncio.timeout(10):
        await Listener.stopped.wait()
    assert not Listener.goes_on.is_set()


async def test_what_fails_first_has_a_status_and_what_fails_later_an_event(listening: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not a sound"):
        await listening.audio.transcriptions.create(model="m", file=FILE, prompt="at", stream=True)
    for prompt, words in (("behind", "not a sound"), ("waits between", r"generated nothing in 0\.2 s")):
        stream = await listening.audio.transcriptions.create(model="m", file=FILE, prompt=prompt, stream=True)
        with pytest.raises(openai.APIError, match=words):
            _ = [event async for event in stream]


class Speaker:
    """Says its parameters."""

    speaks = True

    def load(self, artifact: Path) -> None:
        """Nothing lies there."""

    def predict(self, request: InferRequest) -> InferResponse:
        (texts,) = request.inputs
        told = " ".join(f"{name}={value}" for name, value in sorted(request.parameters.items()))
        files = [base64.b64encode(b"\xff" + text + told.encode()) for text in texts.data]
        return InferResponse(
            model=request.model, outputs=(Tensor(name="audio", data=objects(files), datatype=Datatype.BYTES),)
        )


@pytest.fixture
async def speaking(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    settings = Settings(
        runtime="speaker", model_name="m", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    runtime = Runtime(name="speaker", model_class=f"{__name__}:Speaker")
    predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
    await predictor.start()
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/v1", api_key="none", max_retries=0) as client:
        yield client
    await predictor.stop()


async def test_speech_is_the_bytes_of_a_file(speaking: openai.AsyncOpenAI) -> None:
    plain = await speaking.audio.speech.create(model="m", input="Größe ", voice="alloy")
    assert plain.content == b"\xff" + "Größe ".encode() + b"format=mp3 voice=alloy"
    assert plain.response.headers["content-type"] == "audio/mpeg"
    told = await speaking.audio.speech.create(
        model="m", input="", voice={"id": "2"}, response_format="wav", speed=1.5, extra_body={"seed": 7, "input": "x"}
    )
    assert told.content == b"\xffxformat=wav seed=7 speed=1.5 voice=2"
    assert told.response.headers["content-type"] == "audio/wav"
    assert [model.id async for model in await speaking.models.list()] == ["m"]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"response_format": "aac"}, "response_format"),
        ({"speed": 5}, "speed"),
        ({"input": ""}, "input"),
        ({"input": "x" * 4097}, "input"),
        ({"instructions": "Whisper."}, "instructions"),
        ({"stream_format": "sse"}, "stream_format"),
    ],
)
async def test_speech_that_cannot_be_is_refused_by_its_field(
    speaking: openai.AsyncOpenAI, asked: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await speaking.audio.speech.create(**{"model": "m", "input": "x", "voice": "alloy", **asked})
    assert refused.value.param == param


async def test_models_that_do_something_else_say_so(client: openai.AsyncOpenAI, speaking: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="speaks no text"):
        await client.audio.speech.create(model="m", input="x", voice="alloy")
    with pytest.raises(openai.BadRequestError, match="writes down no speech"):
        await speaking.audio.transcriptions.create(model="m", file=FILE)


@pytest.mark.parametrize(
    ("asked", "param", "words"),
    [
        ({"temperature": 2}, "temperature", "less than or equal to 1"),
        ({"response_format": "mp3"}, "response_format", "'json', 'text', 'srt'"),
        ({"stream": True, "response_format": "srt"}, "stream", "json or text, not srt"),
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
