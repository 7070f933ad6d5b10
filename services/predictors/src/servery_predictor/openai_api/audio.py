"""Transcripts and translations: forms with a file in, and the five shapes of what was said out; speech, the other way.

Source: OpenAI API reference, "Audio"; SubRip and WebVTT for their times.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from servery_http.messages import Response
from servery_sdk.language import SoundFormat

from servery_predictor.openai_api.errors import Refused
from servery_predictor.openai_api.requests import RequestBody, complaint

PLAIN, VTT = b"text/plain; charset=utf-8", b"text/vtt; charset=utf-8"
"""Of transcripts that are no JSON."""
_MAX_FIELDS = 64
MAX_SPOKEN = 4096
"""Characters of a text to speak."""
SOUNDS: Mapping[SoundFormat, bytes] = {
    SoundFormat.MP3: b"audio/mpeg",
    SoundFormat.OPUS: b"audio/ogg",
    SoundFormat.FLAC: b"audio/flac",
    SoundFormat.WAV: b"audio/wav",
    SoundFormat.PCM: b"audio/pcm",
}
"""The media types of what is spoken."""


class TranslationRequest(RequestBody):
    """Of ``POST /audio/translations``."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    file: Annotated[bytes, Field(min_length=1, json_schema_extra={"format": "binary"})]
    prompt: str = ""
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0

    @property
    def is_timed(self) -> bool:
        """Whether the answer says when what was said."""
        return self.response_format in ("srt", "verbose_json", "vtt")

    @property
    def parameters(self) -> dict[str, Any]:
        """What the model is told, by ``TranscribingModel``'s names; what is left out is not."""
        told = {"task": "translate", "prompt": self.prompt, "temperature": self.temperature}
        return {name: value for name, value in told.items() if value}


class TranscriptionRequest(TranslationRequest):
    """Of ``POST /audio/transcriptions``."""

    language: str = ""
    stream: bool = False

    @field_validator("stream")
    @classmethod
    def _is_of_text(cls, stream: bool, info: ValidationInfo) -> bool:  # pydantic's own call
        if stream and (shape := info.data.get("response_format")) not in ("json", "text"):
            raise ValueError(f"goes with the response_format json or text, not {shape}")
        return stream

    @property
    def parameters(self) -> dict[str, Any]:
        """The same, with the language."""
        told = {"language": self.language, "prompt": self.prompt, "temperature": self.temperature}
        return {name: value for name, value in told.items() if value}


class Voice(BaseModel):
    """A voice by its id, as OpenAI's custom voices are named."""

    id: str


class SpeechRequest(RequestBody):
    """Of ``POST /audio/speech``; ``seed`` is ours."""

    input: Annotated[str, Field(min_length=1, max_length=MAX_SPOKEN)]
    voice: str | Voice
    response_format: SoundFormat = SoundFormat.MP3
    speed: Annotated[float, Field(ge=0.25, le=4)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    instructions: Literal[""] | None = None
    stream_format: Literal["audio"] | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        """What the model is told, by ``SpeakingModel``'s names."""
        told = {
            "format": str(self.response_format),
            "voice": self.voice if isinstance(self.voice, str) else self.voice.id,
            "speed": None if self.speed == 1 else self.speed,
            "seed": self.seed,
        }
        return {name: value for name, value in told.items() if value is not None}


Form = TypeVar("Form", bound=TranslationRequest)


def read_form(kind: type[Form], content_type: bytes, body: bytes) -> Form:
    """Return the request that a form spells.

    Raises:
        Refused: It is no ``multipart/form-data``, or a field is wrong.
    """
    media, options = parse_options_header(content_type)
    if media != b"multipart/form-data" or not (boundary := options.get(b"boundary")):
        found = content_type.decode("latin-1") or "nothing"
        raise Refused(f"content-type: must be multipart/form-data with a boundary, found {found}")
    try:
        # The file is bytes; pydantic decodes the others.
        return kind.model_validate(_fields(body, boundary))
    except FormParserError as error:
        raise Refused(f"the body is no multipart/form-data: {error}") from error
    except ValidationError as error:
        message, param = complaint(error)
        raise Refused(message, param=param) from error


def _fields(body: bytes, boundary: bytes) -> dict[str, bytes | str]:
    fields: list[tuple[str, bytes | str]] = []
    headers: dict[bytes, bytes] = {}
    name, value, data = bytearray(), bytearray(), bytearray()

    def header_ended() -> None:
        headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def part_ended() -> None:
        _, options = parse_options_header(headers.get(b"content-disposition", b""))
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if len(fields) >= _MAX_FIELDS:
            raise FormParserError(f"more than {_MAX_FIELDS} fields")
        fields.append((field, bytes(data) if field == "file" else data.decode("utf-8", "replace")))
        headers.clear()
        data.clear()

    gathering: dict[str, Callable[..., None]] = {
        "on_header_field": lambda chunk, start, end: name.extend(chunk[start:end]),
        "on_header_value": lambda chunk, start, end: value.extend(chunk[start:end]),
        "on_header_end": header_ended,
        "on_part_data": lambda chunk, start, end: data.extend(chunk[start:end]),
        "on_part_end": part_ended,
    }
    parser = MultipartParser(boundary, gathering)  # type: ignore[arg-type]  # its own type of callbacks is a TypedDict
    parser.write(body)
    parser.finalize()
    return dict(fields)


def transcript(
    asked: TranslationRequest, text: str, segments: Sequence[Mapping[str, Any]], *, language: str, seconds: float
) -> Response:
    """Return what was said in the shape that was asked for; ``segments`` have ``start`` and ``end`` in seconds and ``text``."""
    match asked.response_format:
        case "text":
            return Response(body=f"{text}\n".encode(), content_type=PLAIN)
        case "srt":
            cues = [f"{number}\n{_span(one, ',')}\n" for number, one in enumerate(segments, 1)]
            return Response(body="\n".join(cues).encode(), content_type=PLAIN)
        case "vtt":
            cues = [f"{_span(one, '.')}\n" for one in segments]
            return Response(body="\n".join(["WEBVTT\n", *cues]).encode(), content_type=VTT)
        case "json":
            usage = {"type": "duration", "seconds": round(seconds)}
            return Response(body=orjson.dumps({"text": text, "usage": usage}))
        case "verbose_json":
            task = "transcribe" if isinstance(asked, TranscriptionRequest) else "translate"
            document = {"task": task, "language": language, "duration": seconds, "text": text}
            listed = [{"id": number, **one} for number, one in enumerate(segments)]
            return Response(body=orjson.dumps({**document, "segments": listed}))


def delta(text: str) -> dict[str, Any]:
    """Return the event that tells a part of a transcript."""
    return {"type": "transcript.text.delta", "delta": text}


def done(text: str) -> dict[str, Any]:
    """Return the event behind the last part: the whole ``text``."""
    return {"type": "transcript.text.done", "text": text}


def speech(asked: SpeechRequest, file: bytes) -> Response:
    """Return what was spoken, a ``file`` in base64."""
    return Response(body=base64.b64decode(file), content_type=SOUNDS[asked.response_format])


def _span(segment: Mapping[str, Any], point: str) -> str:
    text = str(segment["text"]).strip()
    return f"{_time(segment['start'], point)} --> {_time(segment['end'], point)}\n{text}"


def _time(seconds: float, point: str) -> str:
    """Return ``hh:mm:ss,mmm``, with ``point`` before the milliseconds."""
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"
