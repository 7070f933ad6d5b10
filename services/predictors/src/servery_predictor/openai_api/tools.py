"""Calls of tools in chats: what a model is held to write, and what its text tells.

Source: OpenAI API reference, "Chat", ``tools`` and ``tool_choice``; vLLM, "Tool calling": the schema of required calls.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from servery_sdk.language import FinishReason, Token
from servery_sdk.manifests import Json
from servery_sdk.toolcalls import CallArguments, CallBegins, Told, ToolForm

from servery_predictor.openai_api.answers import ChatForm, nested_logprobs
from servery_predictor.openai_api.errors import Refused
from servery_predictor.openai_api.requests import Tool

_LETTERS = string.ascii_letters + string.digits
_MISTRAL_LENGTH = 9
"""Its templates refuse other ids."""


class Teller(Protocol):
    """Finds calls in one text."""

    count: int

    def tell(self, text: str, *, is_last: bool = False) -> list[Told]:
        """Return what the next part of the text tells."""


class CallingForm(ChatForm):
    """Messages that may call tools.

    Args:
        teller: Makes what finds the calls of one choice.
        form: Of the calls.
        is_parallel: False tells the first call alone.
        is_named: The client named the tool: the text ends as a text does.
    """

    def __init__(
        self, teller: Callable[[], Teller], form: ToolForm | None, *, is_parallel: bool, is_named: bool
    ) -> None:
        self._teller, self._form = teller, form
        self._is_parallel, self._is_named = is_parallel, is_named
        self._tellers: dict[int, Teller] = {}

    def choice(self, number: int, text: str, tokens: Sequence[Token], finish: FinishReason) -> dict[str, Any]:
        """Return a message, its calls apart from its content."""
        content, calls = self._told(number, text, is_last=True)
        message = {
            "role": "assistant",
            "content": content if content or not calls else None,
            "refusal": None,
            **({"tool_calls": [_without_number(call) for call in calls]} if calls else {}),
        }
        return {"message": message, "logprobs": nested_logprobs(tokens), "finish_reason": self._reason(number, finish)}

    def piece(
        self, number: int, text: str, tokens: Sequence[Token], finish: FinishReason | None, *, is_first: bool
    ) -> dict[str, Any] | None:
        """Return a part of a message: content, and parts of calls by their numbers."""
        content, calls = self._told(number, text, is_last=finish is not None)
        if not (is_first or content or calls or tokens or finish):
            return None
        delta = {
            **({"role": "assistant"} if is_first else {}),
            **({"content": content} if content or not calls else {}),
            **({"tool_calls": calls} if calls else {}),
        }
        reason = None if finish is None else self._reason(number, finish)
        return {"delta": delta, "logprobs": nested_logprobs(tokens), "finish_reason": reason}

    def _told(self, number: int, text: str, *, is_last: bool) -> tuple[str, list[dict[str, Any]]]:
        if number not in self._tellers:
            self._tellers[number] = self._teller()
        teller = self._tellers[number]
        content, calls = "", dict[int, dict[str, Any]]()
        for told in teller.tell(text, is_last=is_last):
            if isinstance(told, str):
                content += told
            elif told.index == 0 or self._is_parallel:
                _add(calls, told, self._id)
        return content, list(calls.values())

    def _id(self) -> str:
        if self._form is ToolForm.MISTRAL:
            return "".join(secrets.choice(_LETTERS) for _ in range(_MISTRAL_LENGTH))
        return f"call_{secrets.token_hex(12)}"

    def _reason(self, number: int, finish: FinishReason) -> str:
        calls = self._tellers[number].count and not self._is_named and finish is FinishReason.STOP
        return "tool_calls" if calls else str(finish)


def _without_number(call: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in call.items() if key != "index"}


def _add(calls: dict[int, dict[str, Any]], told: CallBegins | CallArguments, new_id: Callable[[], str]) -> None:
    match told:
        case CallBegins(index, name):
            function = {"name": name, "arguments": ""}
            calls[index] = {"index": index, "id": new_id(), "type": "function", "function": function}
        case CallArguments(index, text):
            call = calls.setdefault(index, {"index": index, "function": {"arguments": ""}})
            call["function"]["arguments"] += text


def schema_of_calls(tools: Sequence[Tool], *, is_parallel: bool) -> Mapping[str, Json]:
    """Return the schema of a list of calls of ``tools``, one at least.

    Raises:
        Refused: Two tools mean different things by one name of ``$defs``.
    """
    definitions: dict[str, Json] = {}
    calls = []
    for tool in tools:
        parameters = dict(tool.arguments)
        for name, definition in parameters.pop("$defs", {}).items():
            if definitions.setdefault(name, definition) != definition:
                raise Refused(f"tools: two of them define $defs/{name}, each in its own way", param="tools")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.function.name}, "parameters": parameters},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    most = {} if is_parallel else {"maxItems": 1}
    return {"type": "array", "minItems": 1, **most, "items": {"anyOf": calls}, "$defs": definitions}
