"""Runs the generations of one request: several prompts, several choices each, stops, and what it all took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from servery_sdk.language import FinishReason, GenerativeModel, Piece, Prompt, Sampling, Token

from servery_predictor.errors import TooLate
from servery_predictor.metrics import Metrics
from servery_predictor.openai_api.stops import Stops
from servery_predictor.repository import Entry

_Part = TypeVar("_Part")


class Patience:
    """Ends a wait for the next part of what a model tells that takes too long.

    One timer, which looks now and then since when the wait has been: ``asyncio.timeout`` around each piece makes a timer
    and takes it back, four microseconds for every token.

    Args:
        seconds: Of one wait; None for any time.
    """

    __slots__ = ("_entry", "_is_over", "_loop", "_seconds", "_since", "_task", "_timer")

    def __init__(self, entry: Entry, seconds: float | None) -> None:
        self._entry, self._seconds = entry, seconds
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._task: asyncio.Task[Any] | None = None
        self._is_over = False

    def __enter__(self) -> None:
        self._timer = None if self._seconds is None else self._loop.call_later(self._seconds, self._look)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def next(self, parts: AsyncGenerator[_Part, None]) -> _Part | None:
        """Return the next of ``parts``, None behind the last; how long a client takes to read it is its own affair.

        Raises:
            TooLate: It takes too long.
        """
        # A stream's first piece and the others may be waited for in two tasks.
        self._since, self._task = self._loop.time(), asyncio.current_task()
        try:
            return await anext(parts)
        except StopAsyncIteration:
            return None
        except asyncio.CancelledError as error:
            # Whether the timer ended the wait, or somebody else.
            if self._is_over and self._task is not None and not self._task.uncancel():
                raise TooLate(f"model {self._entry.name!r} generated nothing in {self._seconds:g} s") from error
            raise
        finally:
            self._since = None

    def _look(self) -> None:
        assert self._seconds is not None
        left = self._seconds if self._since is None else self._since + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif self._task is not None and not self._task.cancelling():
            self._is_over = True
            self._task.cancel()


async def in_time(
    parts: AsyncGenerator[_Part, None], entry: Entry, seconds: float | None
) -> AsyncGenerator[_Part, None]:
    """Yield ``parts`` while ``entry`` is not given back.

    Raises:
        TooLate: One takes longer than ``seconds``.
    """
    with entry.users:
        async with aclosing(parts):
            with (patience := Patience(entry, seconds)):
                while (part := await patience.next(parts)) is not None:
                    yield part


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
        self._is_told = False
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

    def pieces(self) -> AsyncGenerator[tuple[int, Piece], None]:
        """Yield the pieces of all choices, each with its choice's number, as they come.

        Raises:
            ServeryError: The model failed, or was too slow.
        """
        return self._of(0) if len(self._generations) == 1 else self._merged()

    async def _of(self, number: int) -> AsyncGenerator[tuple[int, Piece], None]:
        # One generator for all that is done to a piece: each one more around it costs every token of every text.
        stops = Stops(self._stops)
        generated = self._metrics.generated_tokens.labels(self._entry.name)
        pieces, patience = self._generations[number].pieces, Patience(self._entry, self._timeout_seconds)
        with self._entry.users:
            async with aclosing(pieces):
                with patience:
                    while (whole := await patience.next(pieces)) is not None:
                        piece = stops.pass_on(whole)
                        if not self._is_told:
                            self._is_told = True
                            waited = time.perf_counter() - self._started
                            self._metrics.first_token_seconds.labels(self._entry.name).observe(waited)
                        self.completion_tokens += piece.count
                        generated.inc(piece.count)
                        yield number, piece
                        if piece.finish is not None:
                            return

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
