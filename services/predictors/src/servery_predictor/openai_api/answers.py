"""OpenAI's answers as JSON: completions, chats, and the pieces of both.

Source: OpenAI API reference; the legacy ``logprobs`` of completions as vLLM has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

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

    def choice(self, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return a whole choice."""

    def piece(self, text: str, tokens: Sequence[Token], *, is_first: bool) -> dict[str, Any]:
        """Return a part of a choice."""


class CompletionForm:
    """Texts; ``offset`` of a piece's tokens counts from the piece."""

    prefix = "cmpl"
    object = "text_completion"
    piece_object = "text_completion"

    def choice(self, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return a text."""
        return {"text": text, "logprobs": _flat_logprobs(tokens) if tokens else None}

    def piece(self, text: str, tokens: Sequence[Token], *, is_first: bool) -> dict[str, Any]:
        """Return a part of a text."""
        return self.choice(text, tokens)


class ChatForm:
    """Messages."""

    prefix = "chatcmpl"
    object = "chat.completion"
    piece_object = "chat.completion.chunk"

    def choice(self, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """Return a message."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"message": message, "logprobs": _nested_logprobs(tokens)}

    def piece(self, text: str, tokens: Sequence[Token], *, is_first: bool) -> dict[str, Any]:
        """Return a part of a message; the first says who speaks."""
        delta = {**({"role": "assistant"} if is_first else {}), "content": text}
        return {"delta": delta, "logprobs": _nested_logprobs(tokens)}


def whole(
    form: Form, head: Head, choices: Sequence[tuple[str, Sequence[Token], FinishReason]], usage: dict[str, int]
) -> dict[str, Any]:
    """Return the answer of a request that is not streamed."""
    listed = [
        {"index": index, **form.choice(text, tokens), "finish_reason": str(finish)}
        for index, (text, tokens, finish) in enumerate(choices)
    ]
    return {**_headed(head, form.object), "choices": listed, "usage": usage}


def part(
    form: Form,
    head: Head,
    index: int,
    text: str,
    tokens: Sequence[Token],
    finish: FinishReason | None,
    *,
    is_first: bool,
) -> dict[str, Any]:
    """Return one piece of one choice."""
    written = form.piece(text, tokens, is_first=is_first)
    choice = {"index": index, **written, "finish_reason": None if finish is None else str(finish)}
    return {**_headed(head, form.piece_object), "choices": [choice]}


def last(form: Form, head: Head, usage: dict[str, int]) -> dict[str, Any]:
    """Return the piece behind all others, which tells the usage."""
    return {**_headed(head, form.piece_object), "choices": [], "usage": usage}


def usage(prompt_tokens: int, completion_tokens: int = 0) -> dict[str, int]:
    """Return what a request took."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _headed(head: Head, kind: str) -> dict[str, Any]:
    return {"id": head.id, "object": kind, "created": head.created, "model": head.model}


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


def _nested_logprobs(tokens: Sequence[Token]) -> dict[str, Any] | None:
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
