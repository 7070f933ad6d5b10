"""Tells what a model of speech writes while it writes it: tokens from its thread, text to who listens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from transformers.generation.streamers import BaseStreamer

from servery_runtime_huggingface.model.texts import writer


class GivenUp(Exception):  # no error: what ends a thread that nobody listens to
    """Nobody listens any more."""


class Ear:
    """The parts of one transcript, from the thread of a model to an event loop.

    Made on the loop; ``tell``, ``fail`` and ``end`` are called in the thread.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self._is_given_up = threading.Event()

    def tell(self, text: str) -> None:
        """Tell a part.

        Raises:
            GivenUp: Nobody listens.
        """
        if self._is_given_up.is_set():
            raise GivenUp
        if text:
            self._put(text)

    def fail(self, error: Exception) -> None:
        """Tell that there will be no more."""
        self._put(error)

    def end(self) -> None:
        """Tell that this was all."""
        self._put(None)

    def _put(self, told: str | Exception | None) -> None:
        # A loop that has ended has nobody who listens.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told.put_nowait, told)

    async def parts(self) -> AsyncGenerator[str, None]:
        """Yield what is told; closing this gives it up."""
        try:
            while (told := await self._told.get()) is not None:
                if isinstance(told, Exception):
                    raise told
                yield told
        finally:
            self._is_given_up.set()


class Teller(BaseStreamer):  # type: ignore[misc]  # an extra: mypy does not read it
    """Writes the tokens of one row as ``generate`` chooses them.

    Whisper hears a sound window by window, and what it wrote behind a window's last pair of moments it hears again, unless
    it ended with a single one: so what comes behind a pair is told only with the next, or at such an end.

    Args:
        times: The first id that is a moment, which is no text; None for a model without them.
    """

    def __init__(self, tokenizer: Any, tell: Callable[[str], None], *, times: int | None) -> None:
        self._tell, self._times = tell, times
        self._special = frozenset(tokenizer.all_special_ids)
        self._writer = writer(tokenizer, ())
        self._is_prompt = True
        self._is_behind_moment = False
        self._held: list[int] | None = None

    def put(self, value: Any) -> None:
        """Take the prompt, then a token at a time.

        Raises:
            GivenUp: Nobody listens.
        """
        if self._is_prompt:
            self._is_prompt = False
            return
        for token in value.flatten().tolist():
            self._take(token)
        # Here too, where no text is complete.
        self._tell("")

    def _take(self, token: int) -> None:
        if token in self._special:
            return
        is_moment = self._is_moment(token)
        if is_moment and self._is_behind_moment:
            self._write(self._held or ())
            self._held = []
        self._is_behind_moment = is_moment
        if self._held is None:
            self._write([token])
        else:
            self._held.append(token)

    def end(self) -> None:
        """Take the end of a window."""
        if self._held is not None and [self._is_moment(token) for token in self._held[-2:]] == [False, True]:
            self._write(self._held)
        self._is_prompt, self._is_behind_moment, self._held = True, False, None

    def rest(self) -> None:
        """Tell what is left of a character that was never completed."""
        self._tell(self._writer.rest())

    def _write(self, tokens: Sequence[int]) -> None:
        self._tell(self._writer.write([token for token in tokens if not self._is_moment(token)]))

    def _is_moment(self, token: int) -> bool:
        return self._times is not None and token >= self._times


async def stripped(parts: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
    """Yield ``parts`` without the spaces before the first and behind the last."""
    held, has_begun = "", False
    try:
        async for part in parts:
            text = held + part if has_begun else (held + part).lstrip()
            told = text.rstrip()
            held, has_begun = text[len(told) :], has_begun or bool(told)
            if told:
                yield told
    finally:
        await parts.aclose()
