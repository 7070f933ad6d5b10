"""Models that write: completions and conversations, over one engine."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
from servery_sdk import language
from servery_sdk.language import Generation, Piece, Prompt, Sampling, SeenPrompt
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.protocol.elements import objects
from servery_sdk.serving import InputError, LoadError
from servery_sdk.texts import sampling_of, texts_of
from servery_sdk.toolcalls import ToolForm, form_of

from servery_runtime_huggingface.model.artifact import Source
from servery_runtime_huggingface.model.constraints import Constrainer, Constraint
from servery_runtime_huggingface.model.encoders import OUTPUT
from servery_runtime_huggingface.model.engine import Engine, Row, Told
from servery_runtime_huggingface.model.rows import DecoderRows, EncoderDecoderRows
from servery_runtime_huggingface.model.sampling import draw_of
from servery_runtime_huggingface.model.seeing import IMAGE, Seer
from servery_runtime_huggingface.tasks import Task


class Generator:
    """A model that continues texts, or answers them with others."""

    batchable = True
    constrains = True

    def __init__(self, source: Source) -> None:
        self._model, self._tokenizer, self._device = source.model, source.tokenizer, source.device
        self._special_tokens, self._limit = source.special_tokens, source.limit
        self._writes_apart = source.task is Task.TEXT2TEXT_GENERATION
        if source.options.chat_template is not None:
            self._tokenizer.chat_template = _template(source.options.chat_template)
        ends = self._model.generation_config.eos_token_id
        known = ends if isinstance(ends, list) else [ends, self._tokenizer.eos_token_id]
        self._ends = frozenset(end for end in known if end is not None)
        self._tool_form = _tool_form(source, self._tokenizer.chat_template)
        self._constrainer = Constrainer(self._tokenizer, self._ends)
        self._seer = Seer(source) if source.task is Task.IMAGE_TEXT_TO_TEXT else None
        rows = (
            EncoderDecoderRows(self._model)
            if self._writes_apart
            else DecoderRows(self._model, most=source.options.max_num_seqs, place=source.place)
        )
        self._engine = Engine(rows, self._tokenizer)

    def generate(self, prompt: Prompt, sampling: Sampling, *, is_streamed: bool) -> Generation:
        """Return the text that follows ``prompt``.

        Raises:
            InputError: It leaves no room in the model's context.
        """
        ids = self._ids(prompt)
        inputs = prompt.inputs if isinstance(prompt, SeenPrompt) else {}
        most = self._most(ids, sampling)
        constraint = None if sampling.json_schema is None else self._constrainer.constraint(sampling.json_schema)

        def row(tell: Callable[[Told], None]) -> Row:
            return self._row(ids, sampling, most, tell, is_streamed=is_streamed, inputs=inputs, constraint=constraint)

        return Generation(prompt_tokens=len(ids), pieces=self._pieces(row))

    async def _pieces(self, row_of: Callable[[Callable[[Told], None]], Row]) -> AsyncGenerator[Piece, None]:
        told: asyncio.Queue[Told] = asyncio.Queue()
        row = row_of(told.put_nowait)
        row.loop = asyncio.get_running_loop()
        self._engine.submit(row)
        try:
            while True:
                piece = await told.get()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
                if piece.finish is not None:
                    return
        finally:
            row.is_given_up = True

    def chat_prompt(self, messages: Sequence[Mapping[str, Json]], options: Mapping[str, Json]) -> Prompt:
        """Return the ids of a conversation as the tokenizer's template writes it.

        Raises:
            InputError: There is no template, or it does not take these messages.
        """
        if (self._tokenizer if self._seer is None else self._seer).chat_template is None:
            raise InputError(
                "the model has no template for conversations; ask it for completions, or serve it with --chat-template"
            )
        if self._seer is not None:
            return self._seer.prompt(messages, options)
        try:
            ids = self._tokenizer.apply_chat_template(
                list(messages), add_generation_prompt=True, tokenize=True, return_dict=False, **options
            )
        except Exception as error:
            # Templates are programs of the model's makers, and refuse what they like in their own way.
            raise InputError(f"messages: the model's template refuses them: {type(error).__name__}: {error}") from error
        return tuple(ids)

    def predict(self, request: InferRequest) -> InferResponse:
        """Continue each text; ``max_tokens``, ``temperature`` (0 if left out), ``top_p`` and ``seed`` are parameters.

        Raises:
            InputError: Not texts, too long, or a parameter is wrong.
        """
        prompts = self._prompts(request)
        sampling = sampling_of(request.parameters)
        told = [queue.SimpleQueue[Told]() for _ in prompts]
        rows = []
        for prompt, answer in zip(prompts, told, strict=True):
            ids = self._ids(prompt)
            inputs = prompt.inputs if isinstance(prompt, SeenPrompt) else {}
            most = self._most(ids, sampling)
            rows.append(self._row(ids, sampling, most, answer.put, is_streamed=False, inputs=inputs))
        for row in rows:
            self._engine.submit(row)
        written = [_whole(answer.get()).text.encode() for answer in told]
        tensor = Tensor(name=OUTPUT, data=objects(written), datatype=Datatype.BYTES)
        return InferResponse(model=request.model, outputs=(tensor,))

    def _prompts(self, request: InferRequest) -> Sequence[Prompt]:
        """Return what is to be continued: texts, or conversations of an image and a text each."""
        if self._seer is not None and any(tensor.name == IMAGE for tensor in request.inputs):
            return self._seer.asked(request)
        (texts,) = texts_of(request, language.TEXT)
        return texts

    @property
    def sees(self) -> bool:
        """Whether messages may have images."""
        return self._seer is not None

    @property
    def tool_form(self) -> ToolForm | None:
        """How it writes calls of tools."""
        return self._tool_form

    def metadata(self) -> ModelMetadata:
        """Return texts in and texts out; images too where it sees, which may be left out."""
        names = [language.TEXT] if self._seer is None else [IMAGE, language.TEXT]
        return ModelMetadata(
            name="",
            platform=f"transformers-{transformers.__version__}",
            inputs=tuple(TensorMetadata(name=name, datatype=Datatype.BYTES, shape=(-1,)) for name in names),
            outputs=(TensorMetadata(name=OUTPUT, datatype=Datatype.BYTES, shape=(-1,)),),
        )

    def close(self) -> None:
        """Fail what is being generated."""
        self._engine.close()

    def _row(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        most: int,
        tell: Callable[[Told], None],
        *,
        is_streamed: bool,
        inputs: Mapping[str, Any],
        constraint: Constraint | None = None,
    ) -> Row:
        return Row(
            prompt=ids,
            inputs=inputs,
            before=() if self._writes_apart else ids,
            draw=draw_of(sampling, self._device, constraint),
            most=most,
            ends=frozenset() if sampling.ignores_end else self._ends,
            tell=tell,
            is_streamed=is_streamed,
        )

    def _ids(self, prompt: Prompt) -> Sequence[int]:
        if isinstance(prompt, str):
            ids = self._tokenizer(prompt, add_special_tokens=self._special_tokens)["input_ids"]
        else:
            ids = prompt.ids if isinstance(prompt, SeenPrompt) else prompt
            vocabulary = self._model.config.get_text_config(decoder=True).vocab_size
            if max(ids) >= vocabulary:
                raise InputError(f"prompt: token {max(ids)} is none of the model's {vocabulary}")
        if not ids:
            raise InputError("prompt: it is empty, and the model has no token that begins a text")
        return list(ids)

    def _most(self, ids: Sequence[int], sampling: Sampling) -> int:
        """Return how many tokens there is room for."""
        if self._limit is None:
            if sampling.max_tokens is None:
                raise InputError("max_tokens: say how many; the model has no bound of its own")
            return sampling.max_tokens
        room = self._limit if self._writes_apart else self._limit - len(ids)
        if len(ids) > self._limit or room < 1:
            raise InputError(
                f"prompt: it has {len(ids)} tokens, and the model's context, the text included, has {self._limit}"
            )
        return room if sampling.max_tokens is None else min(room, sampling.max_tokens)


def _whole(told: Told) -> Piece:
    if isinstance(told, Exception):
        raise told
    return told


def _tool_form(source: Source, template: Any) -> ToolForm | None:
    """Return how the model writes calls of tools: as an option says, or as its chat template shows.

    Raises:
        LoadError: Neither does, and another option wants it.
    """
    given = source.options.tool_call_parser
    found = form_of(str(template)) if given is None else ToolForm(given)
    if found is None and source.options.enable_auto_tool_choice:
        known = ", ".join(sorted(form for form in ToolForm if form is not ToolForm.LIST))
        raise LoadError(
            f"{source.place}: --enable-auto-tool-choice: the chat template shows no form of calls that is known here; "
            f"give --tool-call-parser, one of: {known}"
        )
    return found


def _template(given: str) -> str:
    """Return a chat template that a file holds, or that was given itself.

    Raises:
        LoadError: It was a file's name, and there is none.
    """
    if "{" in given:
        return given
    try:
        return Path(given).read_text()
    except OSError as error:
        raise LoadError(f"--chat-template {given}: {error.strerror}") from error
