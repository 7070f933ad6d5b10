"""Texts that are held to JSON, and calls of tools, from a model with random weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_runtime_huggingface.model import HuggingFaceModel
from servery_sdk import plugins
from servery_sdk.language import Sampling
from servery_sdk.serving import InputError, LoadError
from servery_sdk.toolcalls import ToolForm
from tiny_transformers import bytes_tokenizer, continued, pieces, write_writer, writer

SCHEMA: Any = {
    "type": "object",
    "properties": {"size": {"type": "integer", "minimum": 0, "maximum": 99}, "colour": {"enum": ["red", "größe"]}},
    "required": ["size", "colour"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {"type": "function", "function": {"name": "paint", "parameters": SCHEMA}},
    {
        "type": "function",
        "function": {
            "name": "stop",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    },
]
ASK: Any = {"model": "tiny", "messages": [{"role": "user", "content": "the cat"}], "max_tokens": 50}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    write_writer("llama", tmp_path)
    settings = Settings(
        runtime="huggingface", model_name="tiny", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    runtime = plugins.load().runtimes["servery-huggingface"]
    predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
    await predictor.start()
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/v1", api_key="none", max_retries=0) as client:
        yield client
    await predictor.stop()


def fits(text: str | None) -> bool:
    found = json.loads(text or "")
    return found.keys() == {"size", "colour"} and 0 <= found["size"] <= 99 and found["colour"] in ("red", "größe")


async def test_every_text_is_json_of_its_schema_beside_texts_that_are_free(client: openai.AsyncOpenAI) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}
    held = [
        client.chat.completions.create(**ASK, response_format=shape, seed=seed, temperature=1.5) for seed in range(4)
    ]
    free = client.chat.completions.create(**ASK, temperature=0)
    *answers, plain = await asyncio.gather(*held, free)
    assert all(fits(answer.choices[0].message.content) for answer in answers)
    assert {answer.choices[0].finish_reason for answer in answers} == {"stop"}
    model, tokenizer = writer("llama")
    prompt = "<|user|>the cat<|assistant|>"
    count = 64 - len(tokenizer(prompt)["input_ids"])
    assert plain.choices[0].message.content == continued(model, tokenizer, prompt, min(50, count))


async def test_an_object_begins_as_one(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(**ASK, response_format={"type": "json_object"}, temperature=0)
    assert (answer.choices[0].message.content or "").startswith("{")


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
async def test_a_required_call_is_one_of_the_tools(client: openai.AsyncOpenAI, is_streamed: bool) -> None:
    asked: Any = {**ASK, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0}
    if is_streamed:
        async with client.chat.completions.stream(**asked) as stream:
            answer: Any = await stream.get_final_completion()
    else:
        answer = await client.chat.completions.create(**asked)
    (call,) = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name in {"paint", "stop"}
    assert fits(call.function.arguments) if call.function.name == "paint" else call.function.arguments == "{}"


async def test_a_named_call_has_arguments_of_its_schema(client: openai.AsyncOpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "paint"}}
    answer: Any = await client.chat.completions.create(**ASK, tools=TOOLS, tool_choice=named)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "paint"
    assert fits(call.function.arguments)


async def test_a_schema_that_is_none_is_refused_in_the_librarys_words(client: openai.AsyncOpenAI) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "poem"}}}
    with pytest.raises(openai.BadRequestError, match=r"response_format: the schema cannot be held to: .*poem"):
        await client.chat.completions.create(**ASK, response_format=shape)


def loaded(directory: Path, tokenizer: Any = None, kind: str = "llama", **options: Any) -> Any:
    write_writer(kind, directory, tokenizer=tokenizer)
    model = HuggingFaceModel(**options)
    model.load(directory)
    return model.held


def test_a_tokenizer_in_python_holds_nothing(tmp_path: Path) -> None:
    generator = loaded(tmp_path, bytes_tokenizer(), "gpt2")
    with pytest.raises(InputError, match="ByT5Tokenizer is in Python; JSON needs one in Rust"):
        generator.generate("x", Sampling(max_tokens=5, json_schema=SCHEMA), is_streamed=False)


def test_the_form_of_calls_is_the_templates_or_the_flags(tmp_path: Path) -> None:
    hermes = pieces(template="{% for m in messages %}{{ m.content }}{% endfor %}<tool_call>")
    assert loaded(tmp_path / "template", hermes).tool_form is ToolForm.HERMES
    assert loaded(tmp_path / "flag", hermes, tool_call_parser="mistral").tool_form is ToolForm.MISTRAL
    assert loaded(tmp_path / "none").tool_form is None
    with pytest.raises(LoadError, match="give --tool-call-parser, one of: hermes, llama3_json, mistral"):
        loaded(tmp_path / "wanted", enable_auto_tool_choice=True)
