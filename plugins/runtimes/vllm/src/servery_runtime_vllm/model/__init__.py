"""A language model in vLLM's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from servery_sdk import language
from servery_sdk.applications import Application
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.language import Generation, Piece, Prompt, Sampling, SeenPrompt
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.protocol.elements import objects
from servery_sdk.serving import InputError, LoadError, Scheduling, Unimplemented
from servery_sdk.texts import sampling_of, texts_of

from servery_runtime_vllm.flags import command_line
from servery_runtime_vllm.model.engine import VERSION, Engine, check, parsed

__all__ = ["VLLMModel"]

OUTPUT = "output-0"
_CALLS = 16
"""Calls of ``predict`` at one time: their texts meet in the engine, so one need not wait for another's end."""


class VLLMModel:
    """An ``ApplicationModel``: OpenAI's paths are vLLM's own; v1, v2 and gRPC continue texts.

    Args:
        options: By the names of ``flags.command_line``.
    """

    batchable = True
    gathers = True
    served_name = "model"

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._held: Engine | None = None
        self._writing: dict[int, asyncio.Task[InferResponse]] = {}

    def load(self, artifact: Path) -> None:
        """Start the engine.

        Raises:
            LoadError: vLLM cannot serve it, or a flag is wrong.
        """
        arguments = parsed(command_line(artifact, self.served_name, **self._options))
        if arguments.model == str(artifact):
            check(artifact)
        self._held = Engine.start(arguments)

    async def begin(self) -> None:
        """Make vLLM's application.

        Raises:
            LoadError: A template, an adapter or a parser is wrong.
        """
        self._loop = asyncio.get_running_loop()
        await self._engine.begin()

    def application(self) -> Application:
        """Return vLLM's."""
        return self._engine.application

    async def cards(self) -> Sequence[Mapping[str, Json]]:
        """Return its names, and its adapters."""
        return await self._engine.cards()

    def failure(self) -> str | None:
        """Return that the engine died, if it did."""
        return "vLLM's engine died; its last words are in the log" if self._engine.is_dead else None

    def scheduling(self) -> Scheduling:
        """Return that calls wait for the engine, several at one time."""
        return Scheduling(max_rows=self._engine.most_texts, parallel_calls=_CALLS, together=True, waits=True)

    def predict(self, request: InferRequest) -> InferResponse:
        """Continue each text; ``max_tokens``, ``temperature`` (0 if left out), ``top_p`` and ``seed`` are parameters.

        Raises:
            InputError: Not texts, too long, or a parameter is wrong.
            Unimplemented: The model generates nothing, or is for those with a key.
        """
        (answer,) = self.predict_many([request])
        if isinstance(answer, ServeryError):
            raise answer
        return answer

    def predict_many(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ServeryError]:
        """Do so for each request; its texts meet those of the others in the engine."""
        self._check()
        return asyncio.run_coroutine_threadsafe(self._answers(requests), self._loop).result()

    def recall(self, request: InferRequest) -> None:
        """Stop a request's texts."""
        if (task := self._writing.get(id(request))) is not None:
            task.cancel()

    def generate(self, prompt: Prompt, sampling: Sampling, *, is_streamed: bool) -> Generation:
        """Return the text that follows ``prompt``.

        Raises:
            InputError: ``sampling`` asks for logprobs, which vLLM's own application tells.
            Unimplemented: The model generates nothing, or is for those with a key.
        """
        self._check()
        if sampling.logprobs is not None:
            raise InputError("logprobs: ask OpenAI's completions for them")
        if isinstance(prompt, SeenPrompt):
            raise InputError("images: ask vLLM's own chat completions about them")
        ids = self._engine.tokens(prompt) if isinstance(prompt, str) else prompt
        pieces = self._engine.pieces(ids, sampling, is_streamed=is_streamed)
        return Generation(prompt_tokens=len(ids), pieces=pieces)

    def metadata(self) -> ModelMetadata:
        """Return texts in and texts out."""
        return ModelMetadata(
            name="",
            platform=f"vllm-{VERSION}",
            inputs=(TensorMetadata(name=language.TEXT, datatype=Datatype.BYTES, shape=(-1,)),),
            outputs=(TensorMetadata(name=OUTPUT, datatype=Datatype.BYTES, shape=(-1,)),),
        )

    def close(self) -> None:
        """End the engine."""
        self._engine.stop()

    async def _answers(self, requests: Sequence[InferRequest]) -> list[InferResponse | ServeryError]:
        tasks = [asyncio.create_task(self._answer(request), name="vllm-request") for request in requests]
        self._writing.update({id(request): task for request, task in zip(requests, tasks, strict=True)})
        try:
            await asyncio.wait(tasks)
        finally:
            for request in requests:
                del self._writing[id(request)]
        return [_outcome(task) for task in tasks]

    async def _answer(self, request: InferRequest) -> InferResponse:
        (texts,) = texts_of(request, language.TEXT)
        written = await self._continued(texts, sampling_of(request.parameters))
        tensor = Tensor(name=OUTPUT, data=objects([text.encode() for text in written]), datatype=Datatype.BYTES)
        return InferResponse(model=request.model, outputs=(tensor,))

    async def _continued(self, texts: Sequence[str], sampling: Sampling) -> list[str]:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._whole(text, sampling), name="vllm-text") for text in texts]
        except ExceptionGroup as failures:
            # The others were stopped; one is enough to tell.
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def _whole(self, text: str, sampling: Sampling) -> str:
        found: list[Piece] = [
            piece async for piece in self._engine.pieces(self._engine.tokens(text), sampling, is_streamed=False)
        ]
        return "".join(piece.text for piece in found)

    def _check(self) -> None:
        if "generate" not in self._engine.tasks:
            raise Unimplemented(f"the model does {', '.join(self._engine.tasks)}; ask it over OpenAI's paths")
        if self._engine.is_guarded:
            # vLLM's key guards its own paths only; what is behind it must not be reached around it.
            raise Unimplemented("the model is served with --api-key; ask it over OpenAI's paths")

    @property
    def _engine(self) -> Engine:
        if self._held is None:
            raise LoadError("the model has not been loaded")
        return self._held


def _outcome(task: asyncio.Task[InferResponse]) -> InferResponse | ServeryError:
    """Return what came of a request; of one whose texts were stopped, what nobody reads."""
    if task.cancelled():
        return ServeryError("nobody waits for it any more", code=ErrorCode.UNAVAILABLE)
    failure = task.exception()
    if failure is None or isinstance(failure, ServeryError):
        return failure or task.result()
    # vLLM's own, which it has logged.
    return ServeryError(f"{type(failure).__name__}: {failure}", code=ErrorCode.INTERNAL)
