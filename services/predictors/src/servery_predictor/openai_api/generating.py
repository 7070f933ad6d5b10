"""Runs the generations of one request: several prompts, several choices each, stops, and what it all took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from servery_sdk.language import FinishReason, GenerativeModel, Piece, Prompt, Sampling, Token

from servery_predictor.errors import TooLate
from servery_predictor.metrics import Metrics
from servery_predictor.openai_api.stops import Stops
from servery_predictor.repository import Entry


@dataclass(slots=True)
class Choice:
    """One answer, as far as it is known."""

    text: str = ""
    count: int = 0
    tokens: list[Token] = field(default_factory=list)
    finish: FinishReason = FinishReason.LENGTH


class Run:
    """The generations of one request; choice i of prompt k is number ``k * choices + i``.

    Args:
        entry: The model's, which is not given back while the texts come.
        prompts: One answer, or ``choices`` of them, for each.
        timeout_seconds: Between two pieces.

    Raises:
        InputError: A prompt does not fit.
    """

    def __init__(
        self,
        model: GenerativeModel,
        entry: Entry,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        choices: int,
        stops: Sequence[str],
        is_streamed: bool,
        metrics: Metrics,
        timeout_seconds: float | None,
    ) -> None:
        self._entry, self._metrics, self._timeout_seconds = entry, metrics, timeout_seconds
        self._stops = stops
        self._started = time.perf_counter()
        self._generations = []
        self.prompt_tokens = 0
        self.completion_tokens = 0
        for prompt in prompts:
            for number in range(choices):
                # Choices of one seed would all be the same.
                seed = None if sampling.seed is None else sampling.seed + number
                # Stops end a generation early only if its pieces come one by one.
                generation = model.generate(
                    prompt, replace(sampling, seed=seed), is_streamed=is_streamed or bool(stops)
                )
                self._generations.append(generation)
            self.prompt_tokens += self._generations[-1].prompt_tokens
        metrics.prompt_tokens.labels(entry.name).inc(self.prompt_tokens)

    async def answers(self) -> list[Choice]:
        """Return every choice, whole.

        Raises:
            ServeryError: The model failed, or was too slow.
        """
        choices = [Choice() for _ in self._generations]
        async with aclosing(self.pieces()) as pieces:
            async for number, piece in pieces:
                choice = choices[number]
                choice.text += piece.text
                choice.count += piece.count
                choice.tokens += piece.tokens
                choice.finish = piece.finish or choice.finish
        return choices

    async def pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """Yield the pieces of all choices, each with its choice's number, as they come.

        Raises:
            ServeryError: The model failed, or was too slow.
        """
        with self._entry.users:
            generated = self._metrics.generated_tokens.labels(self._entry.name)
            alone = len(self._generations) == 1
            async with aclosing(self._of(0) if alone else self._merged()) as merged:
                first = True
                async for number, piece in merged:
                    if first:
                        self._metrics.first_token_seconds.labels(self._entry.name).observe(
                            time.perf_counter() - self._started
                        )
                        first = False
                    self.completion_tokens += piece.count
                    generated.inc(piece.count)
                    yield number, piece

    async def _of(self, number: int) -> AsyncGenerator[tuple[int, Piece], None]:
        stops = Stops(self._stops)
        async with aclosing(self._generations[number].pieces) as pieces:
            async for piece in self._in_time(pieces):
                told = stops.pass_on(piece)
                yield number, told
                if told.finish is not None:
                    return

    async def _in_time(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
        while True:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise TooLate(f"model {self._entry.name!r} generated nothing in {self._timeout_seconds:g} s") from error
            yield piece

    async def _merged(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """Yield from all generations at once; the queue is bounded by what the model may be ahead of a slow client."""
        queue: asyncio.Queue[tuple[int, Piece] | BaseException | None] = asyncio.Queue(4 * len(self._generations))

        async def drain(number: int) -> None:
            try:
                async with aclosing(self._of(number)) as pieces:
                    async for numbered in pieces:
                        await queue.put(numbered)
                await queue.put(None)
            except Exception as failure:
                await queue.put(failure)

        tasks = [
            asyncio.create_task(drain(number), name=f"choice-{number}") for number in range(len(self._generations))
        ]
        try:
            left = len(tasks)
            while left:
                got = await queue.get()
                if got is None:
                    left -= 1
                elif isinstance(got, BaseException):
                    raise got
                else:
                    yield got
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
