"""Continues many texts at once, in a thread: each turn new rows join, every row gets a token, and finished rows leave."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.language import Alternative, FinishReason, Piece, Token

from servery_runtime_huggingface.model.rows import Rows
from servery_runtime_huggingface.model.sampling import Choice, Draw, choose
from servery_runtime_huggingface.model.texts import writer

logger = logging.getLogger(__name__)

_PROMPT_TOKENS = 8192
"""Of prompts that are read in one turn, padding included; a single prompt may be longer. Bounds how long others wait."""

_IDLE_SECONDS = 10.0
"""A thread that has had nothing to do for so long ends; the next text starts another."""

Told: TypeAlias = Piece | Exception


class EngineClosed(ServeryError):
    """The model was given back while it wrote."""

    code = ErrorCode.UNAVAILABLE


@dataclass(slots=True, eq=False)
class Row:
    """A text.

    Attributes:
        inputs: What the model reads with the prompt: images.
        before: The tokens that the text goes on from; none where it is a text of its own.
        most: Tokens to generate at most, one or more.
        ends: Ids that end it.
        tell: Gets its pieces, in the thread of ``loop``, or in the engine's where there is none.
        is_given_up: Set by whoever wants no more of it.
    """

    prompt: Sequence[int]
    inputs: Mapping[str, Any]
    before: Sequence[int]
    draw: Draw
    most: int
    ends: frozenset[int]
    tell: Callable[[Told], None]
    is_streamed: bool
    loop: asyncio.AbstractEventLoop | None = None
    is_given_up: bool = False
    tokens: list[Token] = field(default_factory=list)
    writer: Any = None


class Engine:
    """The texts of one model.

    Args:
        rows: The model's memory.
        tokenizer: Turns ids to text.
    """

    def __init__(self, rows: Rows, tokenizer: Any) -> None:
        self._rows, self._tokenizer = rows, tokenizer
        self._waiting: deque[Row] = deque()
        self._active: list[Row] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._news: list[tuple[Row, Told]] = []

    def submit(self, row: Row) -> None:
        """Let a row join as soon as there is room.

        Raises:
            EngineClosed: There will never be.
        """
        with self._changed:
            if self._is_closed:
                raise EngineClosed("the model has been unloaded")
            self._waiting.append(row)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="generate", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Fail what is not finished, and end the thread."""
        with self._changed:
            self._is_closed = True
            thread = self._thread
            self._changed.notify()
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        with torch.inference_mode():
            while (joining := self._next()) is not None:
                try:
                    self._turn(joining)
                except Exception as error:
                    # A model of anybody, an accelerator out of memory: these texts are lost, the next ones may work.
                    logger.exception("generation failed", extra={"texts": len(self._active) + len(joining)})
                    self._fail(dict.fromkeys([*self._active, *joining]), error)
                self._deliver()

    def _next(self) -> list[Row] | None:
        """Return the rows that join now, once there is anything to do; None when it is time to end."""
        with self._changed:
            while True:
                if self._is_closed:
                    self._fail([*self._active, *self._waiting], EngineClosed("the model has been unloaded"))
                    self._waiting.clear()
                elif joining := self._joining():
                    return joining
                elif self._active:
                    return []
                elif self._changed.wait(_IDLE_SECONDS):
                    continue
                self._thread = None
                break
        self._deliver()
        return None

    def _joining(self) -> list[Row]:
        joining: list[Row] = []
        width = 0
        while self._waiting and len(self._active) + len(joining) < self._rows.most:
            row = self._waiting[0]
            width = max(width, len(row.prompt))
            if joining and width * (len(joining) + 1) > _PROMPT_TOKENS:
                break
            self._waiting.popleft()
            if not row.is_given_up:
                joining.append(row)
        return joining

    def _turn(self, joining: list[Row]) -> None:
        if joining:
            logits = self._rows.join([row.prompt for row in joining], [row.inputs for row in joining])
            self._active += joining
            chosen = choose(logits, [row.draw for row in joining])
            self._leave([*self._active[: -len(joining)], *self._told(joining, chosen)])
        if self._active:
            logits = self._rows.step([row.draw.drawn[-1] for row in self._active])
            chosen = choose(logits, [row.draw for row in self._active])
            self._leave(self._told(self._active, chosen))

    def _told(self, rows: Sequence[Row], chosen: Sequence[Choice]) -> list[Row]:
        """Tell each row's new token; return the rows that go on."""
        return [row for row, choice in zip(rows, chosen, strict=True) if self._goes_on(row, choice)]

    def _goes_on(self, row: Row, choice: Choice) -> bool:
        if row.is_given_up:
            return False
        finish = None
        ends = choice.token in row.ends
        if ends or row.draw.is_complete:
            finish = FinishReason.STOP
        elif len(row.draw.drawn) >= row.most:
            finish = FinishReason.LENGTH
        if row.draw.sampling.logprobs is not None and not ends:
            row.tokens.append(self._token(choice))
        if row.is_streamed or finish is not None:
            self._news.append((row, self._piece(row, finish, ends=ends)))
        return finish is None

    def _piece(self, row: Row, finish: FinishReason | None, *, ends: bool) -> Piece:
        new = row.draw.drawn[-1:] if row.is_streamed else row.draw.drawn
        if row.writer is None:
            skips = not row.draw.sampling.shows_special_tokens
            row.writer = writer(self._tokenizer, row.before, skips=skips)
        # The end is no text, even where the tokenizer has one for it.
        text = row.writer.write(new[:-1] if ends else new)
        if finish is not None:
            text += row.writer.rest()
        tokens, row.tokens = tuple(row.tokens), []
        return Piece(text=text, count=len(new), tokens=tokens, finish=finish)

    def _token(self, choice: Choice) -> Token:
        alternatives = tuple(
            Alternative(self._tokenizer.decode([token]), value) for token, value in choice.alternatives
        )
        return Token(text=self._tokenizer.decode([choice.token]), logprob=choice.logprob, alternatives=alternatives)

    def _leave(self, staying: list[Row]) -> None:
        if len(staying) < len(self._active):
            kept = set(staying)
            self._rows.keep([number for number, row in enumerate(self._active) if row in kept])
            self._active = staying

    def _fail(self, rows: Sequence[Row] | dict[Row, None], error: Exception) -> None:
        self._news += [(row, error) for row in rows]
        self._active = []
        self._rows.keep(())

    def _deliver(self) -> None:
        """Tell the news, with one hand-over for each event loop."""
        news, self._news = self._news, []
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Row, Told]]] = {}
        for row, told in news:
            if row.loop is None:
                row.tell(told)
            else:
                by_loop.setdefault(row.loop, []).append((row, told))
        for loop, of_loop in by_loop.items():
            # A loop that has ended has nobody who listens.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_tell_all, of_loop)


def _tell_all(news: Sequence[tuple[Row, Told]]) -> None:
    for row, told in news:
        row.tell(told)
