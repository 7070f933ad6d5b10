"""Models of sounds: classes, and what was said.

Source: transformers' pipelines of the same names; OpenAI API reference, "Audio", for what is told of a transcript.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson
import torch
from servery_sdk import language
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, Tensor, TensorMetadata
from servery_sdk.protocol.elements import as_text, objects
from servery_sdk.serving import InputError, LoadError
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from servery_runtime_huggingface.model.artifact import Source
from servery_runtime_huggingface.model.files import input_of
from servery_runtime_huggingface.model.listening import Ear, GivenUp, Teller, stripped
from servery_runtime_huggingface.model.parameters import number, switch, word
from servery_runtime_huggingface.model.perceiving import Classifier, Perceiver, Row, documents, tensor
from servery_runtime_huggingface.model.sounds import sounds_of

_WRITERS = frozenset({"whisper", "speech_to_text", "speech-encoder-decoder", "moonshine"})
"""Models that write what was said from sounds alone; others want a prompt around them."""


class AudioClassifier(Classifier):
    """The likeliest class of each sound."""

    inputs = ((language.AUDIO, (-1,)),)

    def _rows(self, request: InferRequest) -> Sequence[Row]:
        (given,) = input_of(request, language.AUDIO).values()
        rate = self._processor.sampling_rate
        return [
            dict(self._processor(wave, sampling_rate=rate, return_tensors="pt"))
            for wave in sounds_of(request, given, rate)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What was said; ``segments`` are of ``start`` and ``end`` in seconds and ``text``, where times were asked for."""

    text: str
    segments: tuple[Mapping[str, Json], ...] = ()


class Transcriber(Perceiver):
    """What is said in each sound."""

    inputs = ((language.AUDIO, (-1,)),)
    transcribes = True

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._extractor = getattr(self._processor, "feature_extractor", self._processor)
        self._tokenizer = source.tokenizer
        self._rate: int = self._extractor.sampling_rate
        kind = self._model.config.model_type
        self._is_whisper = kind == "whisper"
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="listen")
        self._is_ctc = type(self._model).__name__.endswith("ForCTC")
        if self._tokenizer is None:
            raise LoadError(f"{source.place}: the files have no tokenizer, so what was heard cannot be written")
        if not self._is_ctc and kind not in _WRITERS:
            known = ", ".join(sorted(_WRITERS))
            raise LoadError(
                f"{source.place}: model type {kind!r}: this runtime writes down speech with CTC models and: {known}"
            )

    def close(self) -> None:
        """Listen no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def listen(self, request: InferRequest) -> AsyncGenerator[str, None]:
        """Yield what is said in one sound while it is written; CTC's letters come at once, since each needs all of it.

        Raises:
            InputError: With the first part: as ``predict``.
        """
        ear = Ear()
        self._thread.submit(self._hear, request, ear)
        async with aclosing(stripped(ear.parts()) if self._is_whisper else ear.parts()) as parts:
            async for part in parts:
                yield part

    def _hear(self, request: InferRequest, ear: Ear) -> None:
        try:
            if self._is_ctc:
                (found,) = self._outputs(request)
                ear.tell(as_text(found.data[0]))
            else:
                self._write_to(request, ear)
            ear.end()
        except GivenUp:
            return
        except Exception as error:
            # A rim: a model of anybody, and whoever listens is told.
            ear.fail(error)

    def _write_to(self, request: InferRequest, ear: Ear) -> None:
        (given,) = input_of(request, language.AUDIO).values()
        (wave,) = sounds_of(request, given, self._rate)
        # Moments are the ids behind the last of the others.
        last = getattr(self._model.generation_config, "no_timestamps_token_id", None) if self._is_whisper else None
        teller = Teller(self._tokenizer, ear.tell, times=None if last is None else last + 1)
        if self._is_whisper:
            self._whispered([wave], {**self._whisper_options(request.parameters), "streamer": teller}, is_timed=False)
        else:
            self._refuse_options(request.parameters)
            generate = partial(self._model.generate, streamer=teller)
            self._computed(self._features([wave]), lambda _, rows: rows, generate)
        teller.rest()

    @property
    def translates(self) -> bool:
        """Whether it can write English of what was said in another language."""
        return self._is_whisper and bool(getattr(self._model.generation_config, "is_multilingual", False))

    def _outputs(self, request: InferRequest) -> Sequence[Tensor]:
        (given,) = input_of(request, language.AUDIO).values()
        waves = sounds_of(request, given, self._rate)
        is_timed = language.SEGMENTS in request.outputs or switch(request.parameters, "return_timestamps")
        if self._is_whisper:
            found = self._whispered(waves, self._whisper_options(request.parameters), is_timed=is_timed)
        else:
            self._refuse_options(request.parameters)
            found = self._ctc(waves, is_timed=is_timed) if self._is_ctc else self._written(waves, is_timed=is_timed)
        outputs = [tensor(language.TEXT, objects([one.text.encode() for one in found]))]
        if is_timed:
            outputs.append(documents(language.SEGMENTS, [orjson.dumps(one.segments) for one in found]))
        if language.DURATION in request.outputs:
            seconds = np.array([len(wave) / self._rate for wave in waves], np.float64)
            outputs.append(tensor(language.DURATION, seconds))
        if language.SPOKEN in request.outputs:
            outputs.append(tensor(language.SPOKEN, objects([one.encode() for one in self._spoken(request, waves)])))
        return outputs

    @staticmethod
    def _refuse_options(parameters: Mapping[str, Json]) -> None:
        for name in ("language", "prompt", "task"):
            if parameters.get(name, "transcribe") != "transcribe":
                raise InputError(f"parameter {name!r}: this model writes down what it hears, and takes none")

    def _described(self) -> tuple[TensorMetadata, ...]:
        return (TensorMetadata(name=language.TEXT, datatype=Datatype.BYTES, shape=(-1,)),)

    def _features(self, waves: Sequence[Any], **options: Any) -> list[Row]:
        return [dict(self._extractor(wave, sampling_rate=self._rate, return_tensors="pt", **options)) for wave in waves]

    # CTC: a character for each moment.

    def _ctc(self, waves: Sequence[Any], *, is_timed: bool) -> list[Transcript]:
        if is_timed and getattr(self._tokenizer, "word_delimiter_token", None) is None:
            raise InputError(f"this model's {type(self._tokenizer).__name__} tells no times; ask without them")
        seconds = getattr(self._model.config, "inputs_to_logits_ratio", 1) / self._rate

        def read(found: Any, _: Sequence[int]) -> list[Transcript]:
            return [self._spelled(ids, seconds if is_timed else None) for ids in found.logits.argmax(-1).cpu()]

        return self._computed(self._features(waves), read)

    def _spelled(self, ids: torch.Tensor, seconds: float | None) -> Transcript:
        """Return the text of a row's ``ids``; its words are the segments where ``seconds`` of a moment are given."""
        if seconds is None:
            return Transcript(text=self._tokenizer.decode(ids))
        found = self._tokenizer.decode(ids, output_word_offsets=True)
        words = [
            {
                "start": float(word["start_offset"] * seconds),
                "end": float(word["end_offset"] * seconds),
                "text": word["word"],
            }
            for word in found.word_offsets
        ]
        return Transcript(text=found.text, segments=tuple(words))

    # Encoder and decoder: a text of its own.

    def _written(self, waves: Sequence[Any], *, is_timed: bool) -> list[Transcript]:
        if is_timed:
            raise InputError(f"this model, {self._model.config.model_type}, tells no times; ask without them")

        def read(found: Any, _: Sequence[int]) -> list[Transcript]:
            return [Transcript(text=text) for text in self._tokenizer.batch_decode(found, skip_special_tokens=True)]

        return self._computed(self._features(waves), read, self._model.generate)

    def _whisper_options(self, parameters: Mapping[str, Json]) -> dict[str, Any]:
        """Return what ``generate`` is told.

        Raises:
            InputError: The model does not know the language, or no other than English.
        """
        task = word(parameters, "task", "transcribe", ("transcribe", "translate"))
        spoken = word(parameters, "language", "")
        options: dict[str, Any] = {}
        if self.translates:
            options = {"task": task, **({"language": self._known(spoken)} if spoken else {})}
        elif task == "translate" or spoken.lower() not in ("", "en", "english"):
            raise InputError("parameters 'task' and 'language': this model writes down English, and nothing else")
        if prompt := word(parameters, "prompt", ""):
            options["prompt_ids"] = self._tokenizer.get_prompt_ids(prompt, return_tensors="pt").to(self._source.device)
        if temperature := number(parameters, "temperature", 0, least=0, most=1):
            options |= {"temperature": float(temperature), "do_sample": True}
        return options

    def _known(self, spoken: str) -> str:
        codes = sorted(token.strip("<|>") for token in self._model.generation_config.lang_to_id)
        code = str(TO_LANGUAGE_CODE.get(spoken.lower(), spoken.lower()))
        if code not in codes:
            raise InputError(f"parameter 'language': the model knows: {', '.join(codes)}; found {spoken!r}")
        return code

    def _whispered(self, waves: Sequence[Any], options: Mapping[str, Any], *, is_timed: bool) -> list[Transcript]:
        """Return transcripts; a sound that is longer than the model's window is heard window by window, alone."""
        window = self._extractor.n_samples
        is_any_long = any(len(wave) > window for wave in waves)
        if (is_timed or is_any_long) and getattr(self._model.generation_config, "no_timestamps_token_id", None) is None:
            raise InputError(
                f"this model's generation config has no no_timestamps_token_id, so it tells no times, and hears no more "
                f"than {window / self._rate:g} s at once"
            )
        heard: dict[int, Transcript] = {}
        for is_long in (False, True):
            numbers = [number for number, wave in enumerate(waves) if (len(wave) > window) is is_long]
            more = {"truncation": False, "padding": "longest", "return_attention_mask": True} if is_long else {}
            rows = self._features([waves[number] for number in numbers], **more)
            found = self._computed(
                rows,
                self._timed if is_timed else self._untimed,
                partial(self._whisper, options, return_timestamps=is_timed or is_long, return_segments=is_timed),
            )
            heard.update(zip(numbers, found, strict=True))
        return [heard[number] for number in range(len(waves))]

    def _whisper(self, options: Mapping[str, Any], /, **given: Any) -> Any:
        return self._model.generate(**options, **given)

    def _untimed(self, found: Any, _: Sequence[int]) -> list[Transcript]:
        return [Transcript(text=text.strip()) for text in self._tokenizer.batch_decode(found, skip_special_tokens=True)]

    def _timed(self, found: Any, _: Sequence[int]) -> list[Transcript]:
        return [self._segmented(segments) for segments in found["segments"]]

    def _segmented(self, segments: Sequence[Any]) -> Transcript:
        listed = [
            {
                "start": round(float(one["start"]), 2),
                "end": round(float(one["end"]), 2),
                "text": self._tokenizer.decode(one["tokens"], skip_special_tokens=True),
            }
            for one in segments
        ]
        return Transcript(text="".join(str(one["text"]) for one in listed).strip(), segments=tuple(listed))

    def _spoken(self, request: InferRequest, waves: Sequence[Any]) -> list[str]:
        """Return the name of each row's language: what the request says, or what the model hears; English if it knows one."""
        if given := word(request.parameters, "language", ""):
            return [LANGUAGES.get(given.lower(), given.lower())] * len(waves)
        if not self.translates:
            return ["english" if self._is_whisper else ""] * len(waves)
        names = {number: token.strip("<|>") for token, number in self._model.generation_config.lang_to_id.items()}

        def read(found: Any, _: Sequence[int]) -> list[str]:
            return [LANGUAGES.get(names[number], names[number]) for number in found.tolist()]

        window = self._extractor.n_samples
        return self._computed(self._features([wave[:window] for wave in waves]), read, self._model.detect_language)
