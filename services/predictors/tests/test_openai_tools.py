"""OpenAI's tools and forms of answers over a model that says what it is told to, asked by OpenAI's own client."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk.language import FinishReason, Generation, Piece, Prompt, Sampling
from servery_sdk.model import Option, Runtime
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.toolcalls import ToolForm

PARIS, ROME = '{"city": "Paris"}', '{"city": "Rome"}'
CALLS = (
    f'Let me see.\n<tool_call>\n{{"name": "weather", "arguments": {PARIS}}}\n</tool_call>\n'
    f'<tool_call>\n{{"name": "weather", "arguments": {ROME}}}\n</tool_call>'
)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": SCHEMA}}]
ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "weather?"}]}


class Actor:
    """Says its line, some characters at a time, and keeps what it was told."""

    constrains = True

    def __init__(self, *, form: str = "hermes") -> None:
        self.tool_form = None if form == "none" else ToolForm(form)
        self.sees = form != "none"
        self.line = CALLS
        self.sampling = Sampling()
        self.messages: list[Mapping[str, Any]] = []
        self.options: Mapping[str, Any] = {}

    def load(self, artifact: Path) -> None:
        """Nothing lies there."""

    def predict(self, request: InferRequest) -> InferResponse:
        raise NotImplementedError

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Prompt:
        self.messages, self.options = list(messages), options
        return "x"

    def generate(self, prompt: Prompt, sampling: Sampling, *, is_streamed: bool) -> Generation:
        self.sampling = sampling
        return Generation(prompt_tokens=1, pieces=self._pieces())

    async def _pieces(self) -> AsyncGenerator[Piece, None]:
        for at in range(0, len(self.line), 5):
            last = at + 5 >= len(self.line)
            yield Piece(text=self.line[at : at + 5], count=1, finish=FinishReason.STOP if last else None)


ACTOR = Runtime(
    name="actor", model_class=f"{__name__}:Actor", options=(Option(name="form", meaning="How it writes calls."),)
)


@pytest.fixture(params=["hermes"])
async def served(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Predictor]:
    settings = Settings(
        runtime="actor", model_name="m", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    predictor = Predictor(settings, ACTOR, Metrics(CollectorRegistry()), options={"form": request.param})
    await predictor.start()
    yield predictor
    await predictor.stop()


with_form = pytest.mark.parametrize("served", ["none"], indirect=True)


@pytest.fixture
async def client(served: Predictor) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{served.http.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def actor(served: Predictor) -> Actor:
    found = served.repository.entry("m").model
    assert isinstance(found, Actor)
    return found


async def test_parallel_calls_are_told_apart_from_the_content(client: openai.AsyncOpenAI, actor: Actor) -> None:
    answer = await client.chat.completions.create(**ASK, tools=TOOLS, n=2)
    for choice in answer.choices:
        assert (choice.message.content, choice.finish_reason) == ("Let me see.", "tool_calls")
        calls: Any = choice.message.tool_calls
        assert [(call.function.name, call.function.arguments) for call in calls] == [
            ("weather", PARIS),
            ("weather", ROME),
        ]
        assert len({call.id for call in calls}) == 2
    assert actor.options["tools"] == TOOLS
    one = await client.chat.completions.create(**ASK, tools=TOOLS, parallel_tool_calls=False)
    assert len(one.choices[0].message.tool_calls or ()) == 1


async def test_a_stream_tells_calls_in_parts(client: openai.AsyncOpenAI) -> None:
    content, calls, reasons = "", dict[int, dict[str, str]](), []
    parts = 0
    stream = await client.chat.completions.create(**ASK, tools=TOOLS, stream=True)
    async for chunk in stream:
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        for part in choice.delta.tool_calls or ():
            parts += 1
            assert part.function is not None
            call = calls.setdefault(part.index, {"id": part.id or "", "name": part.function.name or "", "text": ""})
            call["text"] += part.function.arguments or ""
        reasons.append(choice.finish_reason)
    assert content == "Let me see."
    assert [(calls[number]["name"], calls[number]["text"]) for number in (0, 1)] == [
        ("weather", PARIS),
        ("weather", ROME),
    ]
    assert all(call["id"].startswith("call_") for call in calls.values())
    assert parts > 4
    assert (reasons[-1], set(reasons[:-1])) == ("tool_calls", {None})


async def test_the_clients_own_accumulator_takes_the_stream(client: openai.AsyncOpenAI) -> None:
    async with client.chat.completions.stream(**ASK, tools=TOOLS) as stream:
        final = await stream.get_final_completion()
    message = final.choices[0].message
    assert message.content == "Let me see."
    assert [call.function.arguments for call in message.tool_calls or ()] == [PARIS, ROME]


async def test_text_without_calls_stays_text(client: openai.AsyncOpenAI, actor: Actor) -> None:
    actor.line = "Sunny, 20 < t < 25."
    answer = await client.chat.completions.create(**ASK, tools=TOOLS)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (actor.line, "stop")
    assert answer.choices[0].message.tool_calls is None


@pytest.mark.parametrize("more", [{}, {"tools": TOOLS, "tool_choice": "none"}], ids=["no-tools", "none"])
async def test_without_tools_nothing_is_looked_for(client: openai.AsyncOpenAI, more: dict[str, Any]) -> None:
    answer = await client.chat.completions.create(**ASK, **more)
    assert answer.choices[0].message.content == CALLS


async def test_a_named_tool_is_called_and_its_arguments_held_to(client: openai.AsyncOpenAI, actor: Actor) -> None:
    actor.line = PARIS
    named: Any = {"type": "function", "function": {"name": "weather"}}
    answer = await client.chat.completions.create(**ASK, tools=TOOLS, tool_choice=named)
    (call,) = answer.choices[0].message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("weather", PARIS)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (None, "stop")
    assert actor.sampling.json_schema == SCHEMA
    unknown: Any = {"type": "function", "function": {"name": "time"}}
    with pytest.raises(openai.BadRequestError, match="tool_choice: 'time' is none of the tools: weather"):
        await client.chat.completions.create(**ASK, tools=TOOLS, tool_choice=unknown)


async def test_required_calls_are_a_list_of_a_schema(client: openai.AsyncOpenAI, actor: Actor) -> None:
    actor.line = f'[{{"name": "weather", "parameters": {PARIS}}}, {{"name": "weather", "parameters": {ROME}}}]'
    answer = await client.chat.completions.create(**ASK, tools=TOOLS, tool_choice="required")
    calls = answer.choices[0].message.tool_calls or ()
    assert [call.function.arguments for call in calls] == [PARIS, ROME]
    assert answer.choices[0].finish_reason == "tool_calls"
    schema: Any = actor.sampling.json_schema
    assert schema["items"]["anyOf"][0]["properties"] == {"name": {"const": "weather"}, "parameters": SCHEMA}
    with pytest.raises(openai.BadRequestError, match="tool_choice: 'required' without tools"):
        await client.chat.completions.create(**ASK, tool_choice="required")


async def test_tools_that_define_one_name_in_two_ways_are_refused(client: openai.AsyncOpenAI) -> None:
    tools: Any = [
        {
            "type": "function",
            "function": {"name": name, "parameters": {"type": "object", "$defs": {"a": {"type": kind}}}},
        }
        for name, kind in (("one", "string"), ("two", "number"))
    ]
    with pytest.raises(openai.BadRequestError, match="tools: two of them define \\$defs/a"):
        await client.chat.completions.create(**ASK, tools=tools, tool_choice="required")


@pytest.mark.parametrize("served", ["mistral"], indirect=True)
async def test_mistrals_marks_are_shown_and_its_ids_are_short(client: openai.AsyncOpenAI, actor: Actor) -> None:
    actor.line = f'[TOOL_CALLS] [{{"name": "weather", "arguments": {PARIS}}}]'
    answer = await client.chat.completions.create(**ASK, tools=TOOLS)
    (call,) = answer.choices[0].message.tool_calls or ()
    assert (call.function.arguments, len(call.id), call.id.isalnum()) == (PARIS, 9, True)
    assert actor.sampling.shows_special_tokens


async def test_earlier_calls_reach_the_template_as_objects(client: openai.AsyncOpenAI, actor: Actor) -> None:
    called = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": PARIS}}
    broken = {"id": "2", "type": "function", "function": {"name": "weather", "arguments": "{"}}
    messages: Any = [
        {"role": "assistant", "content": None, "tool_calls": [called, broken]},
        {"role": "tool", "tool_call_id": "1", "content": "sun"},
    ]
    await client.chat.completions.create(model="m", messages=messages, tools=TOOLS)
    assert [call["function"]["arguments"] for call in actor.messages[0]["tool_calls"]] == [json.loads(PARIS), "{"]
    assert actor.messages[1] == {"role": "tool", "tool_call_id": "1", "content": "sun"}


async def test_json_is_held_to_a_schema(client: openai.AsyncOpenAI, actor: Actor) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
    await client.chat.completions.create(**ASK, response_format=shape)
    assert actor.sampling.json_schema == SCHEMA
    await client.chat.completions.create(**ASK, response_format={"type": "json_object"})
    assert actor.sampling.json_schema == {"type": "object"}
    await client.chat.completions.create(**ASK, response_format={"type": "text"})
    assert actor.sampling.json_schema is None
    with pytest.raises(openai.BadRequestError, match="response_format: JSON goes without tools here"):
        await client.chat.completions.create(**ASK, response_format=shape, tools=TOOLS)
    with pytest.raises(openai.BadRequestError, match="ignore_eos: JSON has an end"):
        await client.chat.completions.create(**ASK, response_format=shape, extra_body={"ignore_eos": True})


def picture(url: str) -> Any:
    content = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "user", "content": content}]


async def test_images_come_in_their_urls(client: openai.AsyncOpenAI, actor: Actor) -> None:
    url = f"data:image/png;base64,{base64.b64encode(b'pixels').decode()}"
    await client.chat.completions.create(model="m", messages=picture(url))
    (message,) = actor.messages
    assert message["content"] == [{"type": "text", "text": "what is it?"}, {"type": "image", "image": b"pixels"}]
    with pytest.raises(
        openai.BadRequestError, match="messages: image_url: addresses are not fetched; send the image itself"
    ):
        await client.chat.completions.create(model="m", messages=picture("http://example.com/a.png"))
    with pytest.raises(openai.BadRequestError, match="messages: image_url: no base64 behind the comma"):
        await client.chat.completions.create(model="m", messages=picture("data:image/png;base64,!"))


@with_form
async def test_a_model_of_no_known_form_leaves_calls_in_the_text(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**ASK, tools=TOOLS)
    assert answer.choices[0].message.content == CALLS
    with pytest.raises(openai.BadRequestError, match="messages: model 'm' sees no images"):
        await client.chat.completions.create(model="m", messages=picture("data:image/png;base64,AAAA"))
