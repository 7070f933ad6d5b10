"""Models that speak: a sound for each text.

Source: transformers' pipeline ``text-to-audio``: what each model reads, and at what rate it answers; OpenAI API reference,
"Create speech".
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from servery_sdk import language
from servery_sdk.language import SoundFormat
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, Tensor, TensorMetadata
from servery_sdk.protocol.elements import objects
from servery_sdk.serving import InputError, LoadError
from servery_sdk.texts import texts_of

from servery_runtime_huggingface.model.artifact import Source
from servery_runtime_huggingface.model.parameters import number, whole, word
from servery_runtime_huggingface.model.perceiving import Perceiver, tensor
from servery_runtime_huggingface.model.sounds import file_of

_VITS = "vits"
_SLOWEST, _FASTEST = 0.25, 4.0

_drawing = threading.Lock()
"""The model draws from the process's own numbers."""


class Speaker(Perceiver):
    """What each text sounds like, alone: sounds differ in length, and their noise would differ beside others."""

    inputs = ((language.TEXT, (-1,)),)
    speaks = True

    def __init__(self, source: Source) -> None:
        kind = source.config.model_type
        if kind != _VITS:
            raise LoadError(f"{source.place}: model type {kind!r}: this runtime speaks with: {_VITS}")
        super().__init__(source)
        self._tokenizer = source.tokenizer
        self._rate: int = self._model.config.sampling_rate
        self._voices: int = self._model.config.num_speakers
        try:
            # What turns letters to sounds may be a library that is not there.
            self._tokenizer("a")
        except ImportError as error:
            raise LoadError(f"{source.place}: the tokenizer wants a library: {error}") from error

    def _outputs(self, request: InferRequest) -> Sequence[Tensor]:
        (texts,) = texts_of(request, language.TEXT)
        form = SoundFormat(word(request.parameters, "format", SoundFormat.WAV, tuple(SoundFormat)))
        options = self._options_of(request.parameters)
        seed = whole(request.parameters, "seed", -1, least=-1, most=2**63 - 1)
        files = []
        for row, text in enumerate(texts):
            with torch.inference_mode(), _drawn(None if seed < 0 else seed):
                wave = self._spoken(text, row, options)
            files.append(base64.b64encode(file_of(wave, self._rate, form)))
        return [tensor(language.AUDIO, objects(files))]

    def _described(self) -> tuple[TensorMetadata, ...]:
        return (TensorMetadata(name=language.AUDIO, datatype=Datatype.BYTES, shape=(-1,)),)

    def _options_of(self, parameters: Mapping[str, Json]) -> dict[str, Any]:
        """Return what the model is told beside a text.

        Raises:
            InputError: It has no such voice, or the speed is out of bounds.
        """
        speed = number(parameters, "speed", 1, least=_SLOWEST, most=_FASTEST)
        self._model.speaking_rate = self._model.config.speaking_rate * speed
        voice = word(parameters, "voice", "")
        if self._voices <= 1:
            # OpenAI's clients must name one; the only one goes by any name.
            return {}
        if voice and not (voice.isascii() and voice.isdigit() and int(voice) < self._voices):
            raise InputError(f"parameter 'voice': the model's are 0 to {self._voices - 1}; found {voice!r}")
        return {"speaker_id": int(voice or 0)}

    def _spoken(self, text: str, row: int, options: Mapping[str, Any]) -> Any:
        """Return the sound ``[samples]`` of a text."""
        read = self._tokenizer(text, return_tensors="pt")
        if not read["input_ids"].shape[1]:
            raise InputError(f"row {row}: nothing of the text can be spoken; the model knows none of its characters")
        given = self._placed({name: read[name] for name in ("input_ids", "attention_mask")})
        wave = self._model(**given, **options).waveform[0].float().cpu().numpy()
        if not np.isfinite(wave).all():
            raise InputError(f"row {row}: the model's sound is no number; try another text or seed")
        return wave


@contextmanager
def _drawn(seed: int | None) -> Iterator[None]:
    """Draw from ``seed``, and leave the numbers of others as they were."""
    if seed is None:
        yield
        return
    with _drawing, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
