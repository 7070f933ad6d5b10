"""Calls of tools, in every form and however the text is cut."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_sdk.toolcalls import CallArguments, CallBegins, Calls, ToolForm, form_of

PARIS = '{"city": "Paris", "units": ["a}b", {"c": "\\"]"}]}'
ROME = '{ "city" : "Rome" }'

WRITTEN = {
    "hermes": (
        ToolForm.HERMES,
        f'Let me see.\n<tool_call>\n{{"name": "weather", "arguments": {PARIS}}}\n</tool_call>\n'
        f'<tool_call>\n{{"name": "time", "arguments": {ROME}}}\n</tool_call>',
        "Let me see.",
    ),
    "hermes, arguments first": (
        ToolForm.HERMES,
        f'<tool_call>{{"arguments": {PARIS}, "name": "weather"}}</tool_call>'
        f'<tool_call>{{"id": 7, "arguments": {ROME}, "name": "time"}}</tool_call>',
        "",
    ),
    "llama": (
        ToolForm.LLAMA3_JSON,
        f'{{"name": "weather", "parameters": {PARIS}}}; {{"name": "time", "parameters": {ROME}}}',
        "",
    ),
    "llama with its mark": (
        ToolForm.LLAMA3_JSON,
        f'<|python_tag|>{{"name": "weather", "parameters": {PARIS}}};{{"name": "time", "parameters": {ROME}}}',
        "",
    ),
    "mistral": (
        ToolForm.MISTRAL,
        f'I look.[TOOL_CALLS] [{{"name": "weather", "arguments": {PARIS}}}, {{"name": "time", "arguments": {ROME}}}]',
        "I look.",
    ),
    "mistral, names apart": (ToolForm.MISTRAL, f"[TOOL_CALLS]weather{PARIS}[TOOL_CALLS]time[ARGS]{ROME}", ""),
    "list": (
        ToolForm.LIST,
        f'[{{"name": "weather", "parameters": {PARIS}}}, {{"name": "time", "parameters": {ROME}}}]',
        "",
    ),
}


def heard(form: ToolForm, pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    calls = Calls(form)
    content, named, arguments = "", [], []
    for number, piece in enumerate(pieces):
        for told in calls.tell(piece, is_last=number == len(pieces) - 1):
            match told:
                case CallBegins(index, name):
                    assert index == len(named)
                    named.append(name)
                    arguments.append("")
                case CallArguments(index, text):
                    assert index == len(named) - 1
                    arguments[index] += text
                case str():
                    content += told
    assert calls.count == len(named)
    return content, list(zip(named, arguments, strict=True))


@pytest.mark.parametrize("written", WRITTEN)
@given(cuts=st.lists(st.integers(0, 300), max_size=12))
def test_calls_are_the_same_however_the_text_is_cut(written: str, cuts: list[int]) -> None:
    form, text, content = WRITTEN[written]
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[start:end] for start, end in itertools.pairwise(ends)]
    found, calls = heard(form, pieces)
    assert found.strip() == content
    assert calls == [("weather", PARIS), ("time", ROME)]


@pytest.mark.parametrize("written", WRITTEN)
def test_a_character_at_a_time_tells_arguments_as_they_come(written: str) -> None:
    form, text, _ = WRITTEN[written]
    calls = Calls(form)
    told = [one for character in text for one in calls.tell(character)]
    parts = [one.text for one in told if isinstance(one, CallArguments) and one.index == 0]
    assert "".join(parts) == PARIS
    assert len(parts) > 10 or "first" in written


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (ToolForm.HERMES, "a < b, and <tool"),
        (ToolForm.HERMES, 'JSON is {"name": 1}'),
        (ToolForm.LLAMA3_JSON, 'They say {"name": "x"} is JSON'),
        (ToolForm.LLAMA3_JSON, '{"answer": 42}'),
        (ToolForm.MISTRAL, "[TOOL"),
        (ToolForm.HERMES, '<tool_call>{"no": "call"}</tool_call>'),
    ],
)
@given(cut=st.integers(0, 30))
def test_what_is_no_call_stays_text(form: ToolForm, text: str, cut: int) -> None:
    content, calls = heard(form, [text[:cut], text[cut:]])
    assert calls == []
    assert content == text.removeprefix("<tool_call>").removesuffix("</tool_call>")


def test_a_call_without_arguments_has_an_empty_object() -> None:
    content, calls = heard(ToolForm.HERMES, ['<tool_call>{"name": "now"}</tool_call> done'])
    assert (content.strip(), calls) == ("done", [("now", "{}")])


def test_a_call_that_was_cut_off_is_told_as_far_as_it_goes() -> None:
    content, calls = heard(ToolForm.HERMES, ['<tool_call>{"name": "weather", "arguments": {"city": "Pa'])
    assert (content, calls) == ("", [("weather", '{"city": "Pa')])
    unnamed, none = heard(ToolForm.HERMES, ['<tool_call>{"nam'])
    assert (unnamed, none) == ('{"nam', [])


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=8), max_size=3), st.text(min_size=1, max_size=8))
def test_any_name_and_arguments_come_back(arguments: dict[str, str], name: str) -> None:
    written = json.dumps({"name": name, "arguments": arguments})
    content, calls = heard(ToolForm.HERMES, [f"<tool_call>{written}</tool_call>"])
    assert content == ""
    assert [(found, json.loads(text)) for found, text in calls] == [(name, arguments)]


@given(st.sampled_from(ToolForm), st.text(alphabet='{}[]",:; \\nameTOOL_CALLS<tool_call>/x1', max_size=60))
def test_any_text_is_told_without_failing(form: ToolForm, text: str) -> None:
    heard(form, list(text) or [""])


@pytest.mark.parametrize(
    ("template", "form"),
    [
        ("… <tool_call>\n{{ call }}\n</tool_call>", ToolForm.HERMES),
        ("… <tool_call>\n<function=x>", None),
        ("… [TOOL_CALLS] …", ToolForm.MISTRAL),
        ("… <|python_tag|> …", ToolForm.LLAMA3_JSON),
        ('… {"name": …, "parameters": …} … <|eot_id|>', ToolForm.LLAMA3_JSON),
        ("{{ message.content }}", None),
    ],
)
def test_a_template_shows_its_form(template: str, form: ToolForm | None) -> None:
    assert form_of(template) is form
