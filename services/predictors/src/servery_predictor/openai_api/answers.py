"""OpenAI's answers as JSON: completions, chats, and the pieces of both.

Source: OpenAI API reference; the legacy ``logprobs`` of completions as vLLM has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
from servery_sdk.language import FinishReason, Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every answer to one request begins with; ``created`` in seconds since 1970."""

    id: str
    model: str
    created: int


class Form(Protocol):
    """How completions, or chats, write choices."""

    prefix: str
    """Of ids."""
    object: str
    piece_object: str

    def choice(self, number: int, text: str, tokens: Sequence[Token], finish: FinishReason) -> dict[str, Any]:
        """Return choice ``number``, whole."""

    def piece(
        self, number: int, text: str, tokens: Sequence[Token], finish: FinishReason | None, *, is_first: bool
    ) -> dict[str, Any] | None:
        """Return the next part of choice ``number``; None where it tells nothing yet."""


class CompletionForm:
    """Texts; ``offset`` of a piece's tokens counts from the piece."""

    prefix = "cmpl"
    object = "text_completion"
    piece_object = "text_completion"

    def choice(self, number: int, text: str, tokens: Sequence[Token], finish: FinishReason) -> dict[str, Any]:
        """Return a text."""
        return self._written(text, tokens, finish)

    def piece(
        self, number: int, text: str, tokens: Sequence[Token], finish: FinishReason | None, *, is_first: bool
    ) -> dict[str, Any] | None:
        """Return a part of a text."""
        # A part of a character, or what may yet be a stop, is nothing to tell.
        return self._written(text, tokens, finish) if is_first or text or tokens or finish else None

    @staticmethod
    def _written(text: str, tokens: Sequence[Token], finish: FinishReason | None) -> dict[str, Any]:
        return {"text": text, "logprobs": _flat_logprobs(tokens) if tokens else None, **_finished(finish)}


class ChatForm:
    """Messages."""

    prefix = "chatcmpl"
    object = "chat.completion"
    piece_object = "chat.completion.chunk"

    def choice(self, number: int, text: str, tokens: Sequence[Token], finish: FinishReason) -> dict[str, Any]:
        """Return a message."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message, "logprobs": nested_logprobs(tokens), **_finished(finish)}

    def piece(
        self, number: int, text: str, tokens: Sequence[Token], finish: FinishReason | None, *, is_first: bool
    ) -> dict[str, Any] | None:
        """Return a part of a message; the first says who speaks."""
        if not (is_first or text or tokens or finish):
            return None
        delta = {**({"role": "assistant"} if is_first else {}), "content": text}
        return {"delta": delta, "logprobs": nested_logprobs(tokens), **_finished(finish)}


def whole(
    form: Form, head: Head, choices: Sequence[tuple[str, Sequence[Token], FinishReason]], usage: dict[str, int]
) -> dict[str, Any]:
    """Return the answer of a request that is not streamed."""
    listed = [
        {"index": index, **form.choice(index, text, tokens, finish)}
        for index, (text, tokens, finish) in enumerate(choices)
    ]
    return {**_headed(head, form.object), "choices": listed, "usage": usage}


class Events:
    """Writes the pieces of one answer as events of a stream; what is the same in all of them is written once."""

    def __init__(self, form: Form, head: Head) -> None:
        self._form, self._head = form, head
        self._begin = b'data: %b,"choices":[' % orjson.dumps(_headed(head, form.piece_object))[:-1]

    def piece(
        self, number: int, text: str, tokens: Sequence[Token], finish: FinishReason | None, *, is_first: bool
    ) -> bytes | None:
        """Return one piece of choice ``number``; None where it tells nothing yet."""
        written = self._form.piece(number, text, tokens, finish, is_first=is_first)
        if written is None:
            return None
        return b"%b%b]}\n\n" % (self._begin, orjson.dumps({"index": number, **written}))

    def last(self, usage: dict[str, int]) -> bytes:
        """Return the piece behind all others, which tells the usage."""
        return event({**_headed(self._head, self._form.piece_object), "choices": [], "usage": usage})


def event(document: Mapping[str, Any]) -> bytes:
    """Return an event of a stream."""
    return b"data: %b\n\n" % orjson.dumps(document)


def usage(prompt_tokens: int, completion_tokens: int = 0) -> dict[str, int]:
    """Return what a request took."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _headed(head: Head, kind: str) -> dict[str, Any]:
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model}


def _finished(finish: FinishReason | None) -> dict[str, Any]:
    return {"finish_reason": None if finish is None else str(finish)}


def _flat_logprobs(tokens: Sequence[Token]) -> dict[str, Any]:
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{one.text: one.logprob for one in token.alternatives} for token in tokens],
        "text_offset": offsets,
    }


def nested_logprobs(tokens: Sequence[Token]) -> dict[str, Any] | None:
    if not tokens:
        return None
    content = [
        {
            **_entry(token.text, token.logprob),
            "top_logprobs": [_entry(one.text, one.logprob) for one in token.alternatives],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _entry(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
