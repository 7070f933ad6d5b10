"""Finds the calls of tools in what a model writes, piece by piece. Pure.

Models write calls as JSON objects in the text, each family between marks of its own. ``Calls`` takes the text as it comes and
tells apart what is content and what is a call's name and its arguments, which are passed on as the model writes them.

Source: vLLM, ``vllm/entrypoints/openai/tool_parsers`` (names and marks of the forms); the chat templates of the models.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

_NAME = "name"
_ARGUMENTS = ("arguments", "parameters")


class ToolForm(enum.StrEnum):
    """How a model writes calls: what ``--tool-call-parser`` takes, in vLLM's words."""

    HERMES = "hermes"
    """``<tool_call>{"name": …, "arguments": {…}}</tool_call>``, several in a row; Qwen's, too."""
    LLAMA3_JSON = "llama3_json"
    """``{"name": …, "parameters": {…}}`` and nothing before it but perhaps ``<|python_tag|>``; several with ``;`` between."""
    MISTRAL = "mistral"
    """``[TOOL_CALLS] [{"name": …, "arguments": {…}}, …]``, or ``[TOOL_CALLS]name{…}`` of newer models."""
    LIST = "list"
    """``[{"name": …, "parameters": {…}}, …]`` alone: what a model writes that is held to write calls."""


@dataclass(frozen=True, slots=True)
class _Marks:
    """Of a form: what opens calls, what may lie between and behind them, and whether they may begin a text without it."""

    opening: str
    between: tuple[str, ...]
    is_bare: bool = False
    is_special: bool = False
    has_names: bool = False


_MARKS = {
    ToolForm.HERMES: _Marks("<tool_call>", ("</tool_call>",)),
    ToolForm.LLAMA3_JSON: _Marks("<|python_tag|>", (";",), is_bare=True, is_special=True),
    ToolForm.MISTRAL: _Marks("[TOOL_CALLS]", ("[ARGS]", "[", "]", ","), is_special=True, has_names=True),
    ToolForm.LIST: _Marks("[", ("[", "]", ","), is_bare=True),
}


@dataclass(frozen=True, slots=True)
class CallBegins:
    """Call number ``index`` is of the tool ``name``."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """The next part of the arguments of call number ``index``: JSON, as the model wrote it."""

    index: int
    text: str


Told: TypeAlias = str | CallBegins | CallArguments
"""Content, or a part of a call."""


def form_of(template: str) -> ToolForm | None:
    """Return the form that a chat template shows its model, None where it shows none that is known here."""
    if "<tool_call>" in template:
        # Qwen's models for code write XML between the same marks.
        return None if "<function=" in template else ToolForm.HERMES
    if "[TOOL_CALLS]" in template:
        return ToolForm.MISTRAL
    is_llamas = "<|python_tag|>" in template or ("<|eot_id|>" in template and '"parameters"' in template)
    return ToolForm.LLAMA3_JSON if is_llamas else None


def marks_are_special(form: ToolForm) -> bool:
    """Return whether the opening mark is a special token, which texts are written without unless somebody asks."""
    return _MARKS[form].is_special


class Calls:
    """What one text tells.

    Attributes:
        count: Calls so far.
    """

    def __init__(self, form: ToolForm) -> None:
        self._marks = _MARKS[form]
        self.count = 0
        self._held = ""
        self._is_among_calls = False
        self._has_begun = False
        self._call: _Call | None = None

    def tell(self, text: str, *, is_last: bool = False) -> list[Told]:
        """Return what ``text``, the next of the model's, tells with what was held back before it.

        Args:
            is_last: Nothing comes behind it: what was held back is content after all.
        """
        self._held += text
        told: list[Told] = []
        while self._held and self._step(told, is_last=is_last):
            pass
        if is_last:
            told += self._rest()
        return _joined(told)

    def _step(self, told: list[Told], *, is_last: bool) -> bool:
        """Take something off what is held; return whether anything was."""
        if self._call is not None:
            self._feed(self._call, told)
            return self._call is None
        return self._between(told, is_last=is_last) if self._is_among_calls else self._content(told)

    def _content(self, told: list[Told]) -> bool:
        opening = self._marks.opening
        if not self._has_begun:
            stripped = self._held.lstrip()
            if not stripped:
                return False
            if self._marks.is_bare and stripped[0] in "{[":
                self._is_among_calls = self._has_begun = True
                self._held = stripped
                return True
        before, mark, behind = self._held.partition(opening)
        if mark:
            self._held, self._is_among_calls = behind, True
        else:
            # White space between content and calls is nobody's, so it waits for what comes behind it.
            told_length = len(self._held[: len(self._held) - _overlap(self._held, opening)].rstrip())
            before, self._held = self._held[:told_length], self._held[told_length:]
        self._has_begun = self._has_begun or bool(before.strip()) or bool(mark)
        if before.strip():
            told.append(before.rstrip())
        return bool(mark)

    def _between(self, told: list[Told], *, is_last: bool) -> bool:
        self._held = self._held.lstrip()
        if not self._held:
            return False
        if self._held[0] == "{":
            self._call = _Call(self.count)
            return True
        # The longest first: one mark may begin another.
        for mark in sorted({*self._marks.between, self._marks.opening}, key=len, reverse=True):
            if self._held.startswith(mark):
                self._held = self._held[len(mark) :]
                return True
            if not is_last and mark.startswith(self._held):
                return False
        if self._marks.has_names:
            return self._named(told)
        self._is_among_calls = False
        self._has_begun = True
        return True

    def _named(self, told: list[Told]) -> bool:
        """Begin a call whose name stands before its arguments."""
        at = min((found for mark in ("{", "[ARGS]") if (found := self._held.find(mark)) >= 0), default=-1)
        if at < 0:
            return False
        name = self._held[:at].strip()
        self._held = self._held[at:].removeprefix("[ARGS]")
        self._call = _Call(self.count, name=name)
        told.append(CallBegins(self.count, name))
        self.count += 1
        return True

    def _feed(self, call: _Call, told: list[Told]) -> None:
        taken = call.take(self._held, told)
        self._held = self._held[taken:]
        if call.is_told and call.is_new:
            call.is_new = False
            self.count += 1
        if call.is_over:
            if not call.is_told:
                # An object, but no call: the model writes of something else.
                told.append(call.text)
            self._call = None

    def _rest(self) -> list[Told]:
        call, self._call = self._call, None
        rest, self._held = self._held, ""
        if call is not None and not call.is_told:
            return [call.text + rest]
        return [rest] if call is None and (rest.strip() or not self.count) else []


class OneCall:
    """A text that is the arguments of one call, of a model that is held to write them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.count = 0

    def tell(self, text: str, *, is_last: bool = False) -> list[Told]:
        """Return the call's beginning, once, and ``text`` as its arguments."""
        told: list[Told] = [] if self.count else [CallBegins(0, self._name)]
        self.count = 1
        return [*told, CallArguments(0, text)] if text else told


class _Call:
    """One JSON object, character by character: its member ``name``, and ``arguments`` or ``parameters`` as they stand."""

    def __init__(self, index: int, *, name: str | None = None) -> None:
        self._index = index
        self._name = name
        self._is_apart = name is not None
        self.text = ""
        self.is_over = False
        self.is_told = self._is_apart
        self.is_new = not self._is_apart
        self._depth = 0
        self._is_in_string = self._is_escaped = False
        self._key = ""
        self._string = ""
        self._is_value = False
        self._waiting = ""

    def take(self, text: str, told: list[Told]) -> int:
        """Read on; return how many characters were of this call."""
        arguments: list[str] = []
        for at, character in enumerate(text):
            self.text += character
            if self._is_arguments(character):
                arguments.append(character)
            if self.is_over:
                self._tell("".join(arguments), told)
                return at + 1
        self._tell("".join(arguments), told)
        return len(text)

    def _tell(self, arguments: str, told: list[Told]) -> None:
        self._waiting += arguments
        if not self.is_told and self._name is not None and (self._waiting or self.is_over):
            # Only now it is certain that there are arguments; a call of none has an empty object.
            self.is_told = True
            told.append(CallBegins(self._index, self._name))
            self._waiting = self._waiting or "{}"
        if self.is_told and self._waiting:
            told.append(CallArguments(self._index, self._waiting))
            self._waiting = ""

    def _is_arguments(self, character: str) -> bool:
        """Read ``character``; return whether it is one of the arguments'."""
        base = 0 if self._is_apart else 1
        was_inside = self._depth > base or (self._depth == base and self._is_in_string)
        if self._is_in_string:
            self._in_string(character)
        elif character == '"':
            self._is_in_string, self._string = True, ""
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            self.is_over = self._depth <= 0
        elif self._depth == 1 and character in ":,":
            self._is_value = character == ":"
            self._key = self._key if self._is_value else ""
            return self._is_apart
        if self._is_apart:
            return True
        inside = was_inside or self._depth > 1 or self._is_in_string
        return self._is_value and self._key in _ARGUMENTS and (inside or not character.isspace()) and not self.is_over

    def _in_string(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._is_in_string = False
            if self._depth == 1 and not self._is_apart:
                self._member()
            return
        self._string += character

    def _member(self) -> None:
        """A string of the object itself has ended: a key, or a member's value."""
        try:
            text = str(json.loads(f'"{self._string}"', strict=False))
        except ValueError:
            return
        if not self._is_value:
            self._key = text
        elif self._key == _NAME:
            self._name = text


def _joined(told: Sequence[Told]) -> list[Told]:
    """Return the same with neighbours of one kind as one."""
    joined: list[Told] = []
    for one in told:
        last = joined[-1] if joined else None
        if isinstance(one, str) and isinstance(last, str):
            joined[-1] = last + one
        elif isinstance(one, CallArguments) and isinstance(last, CallArguments) and one.index == last.index:
            joined[-1] = CallArguments(one.index, last.text + one.text)
        elif one:
            joined.append(one)
    return joined


def _overlap(text: str, mark: str) -> int:
    """Return how many characters at the end of ``text`` may begin ``mark``."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-length:]):
            return length
    return 0
