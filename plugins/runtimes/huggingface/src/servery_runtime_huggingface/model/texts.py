"""Texts in requests, and texts of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servery_sdk.protocol import Datatype, InferRequest, Tensor
from servery_sdk.serving import InputError
from tokenizers.decoders import DecodeStream

_CONTEXT = 6
"""Tokens before a text that decide how it begins: with a space, within a character."""


def texts_of(request: InferRequest, *names: str) -> list[list[str]]:
    """Return the texts of a request's inputs, by ``names`` where there are several.

    Raises:
        InputError: Others, or not texts, a row each.
    """
    found = {tensor.name: tensor for tensor in request.inputs}
    if len(names) == 1 and len(found) == 1:
        # One text is one text, whatever its name.
        return [text_column(request.inputs[0])]
    if set(found) != set(names):
        described = ", ".join(f"{name!r} {list(tensor.data.shape)}" for name, tensor in found.items())
        raise InputError(f"the model takes {' and '.join(map(repr, names))}, texts, a row each; found {described}")
    return [text_column(found[name]) for name in names]


def text_column(tensor: Tensor) -> list[str]:
    shape = list(tensor.data.shape)
    if tensor.datatype is not Datatype.BYTES or len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
        raise InputError(f"input {tensor.name!r} is {tensor.datatype} {shape}; the model takes texts, BYTES [rows]")
    try:
        return [element.decode() if isinstance(element, bytes) else str(element) for element in tensor.data.ravel()]
    except UnicodeDecodeError as error:
        raise InputError(f"input {tensor.name!r} {shape}: not UTF-8: {error}") from error


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
