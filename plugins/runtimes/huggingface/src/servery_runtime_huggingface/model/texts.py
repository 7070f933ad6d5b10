"""Texts of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream

_CONTEXT = 6
"""Tokens before a text that decide how it begins: with a space, within a character."""


class FastWriter:
    """Turns tokens into text as they come, with a tokenizer in Rust: about two microseconds a token."""

    def __init__(self, tokenizer: Any, before: Sequence[int], *, skips: bool) -> None:
        self._tokenizer, self._skips = tokenizer.backend_tokenizer, skips
        self._stream = DecodeStream(ids=list(before[-_CONTEXT:]), skip_special_tokens=skips)
        self._pending: list[int] = []

    def write(self, ids: Sequence[int]) -> str:
        """Return the text that ``ids`` complete."""
        text = ""
        for token in ids:
            step = self._stream.step(self._tokenizer, token)
            self._pending = [] if step else [*self._pending, token]
            text += step or ""
        return text

    def rest(self) -> str:
        """Return what is left of a character that was never completed."""
        return str(self._tokenizer.decode(self._pending, skip_special_tokens=self._skips)) if self._pending else ""


class PlainWriter:
    """The same for a tokenizer in Python: decodes a window of tokens again and again."""

    def __init__(self, tokenizer: Any, before: Sequence[int], *, skips: bool) -> None:
        self._tokenizer, self._skips = tokenizer, skips
        self._window = list(before[-_CONTEXT:])
        self._written = self._decoded()

    def write(self, ids: Sequence[int]) -> str:
        """Return the text that ``ids`` complete."""
        self._window += ids
        text = self._decoded()
        if text.endswith("�"):
            return ""
        new, self._window = text[len(self._written) :], self._window[-_CONTEXT:]
        self._written = self._decoded()
        return new

    def rest(self) -> str:
        """Return what is left of a character that was never completed."""
        return self._decoded()[len(self._written) :]

    def _decoded(self) -> str:
        return str(self._tokenizer.decode(self._window, skip_special_tokens=self._skips))


def writer(tokenizer: Any, before: Sequence[int], *, skips: bool = True) -> FastWriter | PlainWriter:
    """Return what writes the text that comes behind the tokens ``before``; it ``skips`` special tokens, or writes them."""
    return (FastWriter if tokenizer.is_fast else PlainWriter)(tokenizer, before, skips=skips)
