"""OpenAI's routes over a small model of a plugin, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openai
import orjson
import pytest
from prometheus_client import CollectorRegistry
from servery_http.client import Client
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk.language import Alternative, FinishReason, Generation, Piece, Prompt, Sampling, Token
from servery_sdk.model import Option, OptionKind, Runtime
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError

CONTEXT = 64


class CountingModel:
    """Continues a row of numbers: "7" becomes " 8 9 10". At 20 it ends; a temperature makes it leave numbers out."""

    embeds = True
    ranks = True

    def __init__(self, *, step: int = 1) -> None:
        self._step = step
        self.running = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def load(self, artifact: Path) -> None:
        """Nothing lies there."""

    def generate(self, prompt: Prompt, sampling: Sampling, *, is_streamed: bool) -> Generation:
        words = prompt.split() if isinstance(prompt, str) else list(map(str, prompt))
        if len(words) > CONTEXT:
            raise InputError(f"the prompt has {len(words)} tokens, the model takes {CONTEXT}")
        start = int(words[-1])
        return Generation(prompt_tokens=len(words), pieces=self._count(start, sampling))

    async def _count(self, number: int, sampling: Sampling) -> AsyncGenerator[Piece, None]:
        drawn = random.Random(sampling.seed)
        self.running += 1
        try:
            for count in itertools.count(1):
                await self.gate.wait()
                number += self._step if not sampling.temperature else drawn.randint(1, 9)
                if number == 13:
                    raise RuntimeError("thirteen")
                ends = number >= 20 and not sampling.ignores_end
                text = "" if ends else f" {number}"
                finish = FinishReason.STOP if ends else FinishReason.LENGTH if count == sampling.max_tokens else None
                yield Piece(text=text, count=1, tokens=self._told(text, sampling), finish=finish)
                if finish is not None:
                    return
        finally:
            self.running -= 1

    @staticmethod
    def _told(text: str, sampling: Sampling) -> tuple[Token, ...]:
        if sampling.logprobs is None:
            return ()
        alternatives = tuple(Alternative(text * (rank + 1), -1.0 - rank) for rank in range(sampling.logprobs))
        return (Token(text=text, logprob=-1.0, alternatives=alternatives),)

    def chat_prompt(self, messages: Sequence[Mapping[str, Any]], options: Mapping[str, Any]) -> Prompt:
        return " ".join(str(message["content"]) for message in messages) + options.get("suffix", "")

    def predict(self, request: InferRequest) -> InferResponse:
        texts = [tensor.data for tensor in request.inputs]
        lengths = np.array([len(words) for words in zip(*texts, strict=True)], dtype=np.int64)
        sizes = np.array([[float(len(text)), 0.0] for text in texts[-1]], dtype=np.float32)
        unit = sizes / np.linalg.norm(sizes, axis=1, keepdims=True)
        outputs = {
            "embedding": Tensor(name="embedding", data=unit, datatype=Datatype.FP32),
            "score": Tensor(name="score", data=sizes[:, 0], datatype=Datatype.FP32),
            "tokens": Tensor(name="tokens", data=lengths, datatype=Datatype.INT64),
        }
        return InferResponse(model=request.model, outputs=tuple(outputs.values()))


COUNTING = Runtime(
    name="counting",
    model_class=f"{__name__}:CountingModel",
    options=(Option(name="step", meaning="From number to number.", kind=OptionKind.INTEGER),),
)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Predictor]:
    settings = Settings(
        runtime="counting", model_name="count", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    predictor = Predictor(settings, COUNTING, Metrics(CollectorRegistry()))
    await predictor.start()
    yield predictor
    await predictor.stop()


@pytest.fixture(params=["/openai/v1", "/v1"])
async def client(served: Predictor, request: pytest.FixtureRequest) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=served.http.url + request.param, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def model(served: Predictor) -> CountingModel:
    found = served.repository.entry("count").model
    assert isinstance(found, CountingModel)
    return found


async def test_a_completion_says_text_reason_and_usage(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="count", prompt="5 6 7", temperature=0, max_tokens=3)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (" 8 9 10", "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)


async def test_prompts_of_ids_and_several_prompts_are_answered_in_order(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="count", prompt=[[1, 2], [5]], temperature=0, max_tokens=2)
    assert [choice.text for choice in answer.choices] == [" 3 4", " 6 7"]
    alone = await client.completions.create(model="count", prompt=[1, 2], temperature=0, max_tokens=2)
    assert [choice.text for choice in alone.choices] == [" 3 4"]


async def test_an_echo_begins_with_the_prompt(client: openai.AsyncOpenAI) -> None:
    answer = await client.completions.create(model="count", prompt="1", temperature=0, max_tokens=1, echo=True)
    assert answer.choices[0].text == "1 2"


async def test_a_chat_ends_when_the_model_ends_it(client: openai.AsyncOpenAI) -> None:
    messages: Any = [
        {"role": "system", "content": "count"},
        {"role": "user", "content": [{"type": "text", "text": "17"}]},
    ]
    answer = await client.chat.completions.create(model="count", messages=messages, temperature=0)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (" 18 19", "stop")


async def test_options_of_a_template_reach_it(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="count",
        messages=[{"role": "user", "content": "1"}],
        temperature=0,
        max_completion_tokens=1,
        extra_body={"chat_template_kwargs": {"suffix": " 40"}, "ignore_eos": True},
    )
    assert answer.choices[0].message.content == " 41"


async def test_a_stream_is_the_answer_in_pieces_with_usage_behind_it(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="count",
        messages=[{"role": "user", "content": "1"}],
        temperature=0,
        max_tokens=3,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert [delta.role for delta in deltas] == ["assistant", None, None]
    assert [delta.content for delta in deltas] == [" 2", " 3", " 4"]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None, None, "length"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


async def test_a_stream_ends_with_done(served: Predictor) -> None:
    body = {"model": "count", "prompt": "1", "temperature": 0, "max_tokens": 1, "stream": True}
    async with Client() as http:
        answer = await http.request("POST", f"{served.http.url}/v1/completions", body=orjson.dumps(body))
    events = answer.body.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert dict(answer.headers)[b"content-type"] == b"text/event-stream; charset=utf-8"


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize(
    ("stop", "text", "reason"),
    [
        pytest.param(" 5", " 3 4", "stop", id="a word"),
        pytest.param(["9", "4 5"], " 3 ", "stop", id="across pieces, the first that comes"),
        pytest.param("6 x", " 3 4 5 6", "length", id="the beginning of one only"),
    ],
)
async def test_a_stop_ends_the_text_before_it(
    client: openai.AsyncOpenAI, model: CountingModel, stop: Any, text: str, reason: str, is_streamed: bool
) -> None:
    if is_streamed:
        stream = await client.completions.create(
            model="count", prompt="2", temperature=0, max_tokens=4, stop=stop, stream=True
        )
        choices = [chunk.choices[0] async for chunk in stream]
        assert ("".join(choice.text for choice in choices), choices[-1].finish_reason) == (text, reason)
    else:
        answer = await client.completions.create(model="count", prompt="2", temperature=0, max_tokens=4, stop=stop)
        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (text, reason)
    assert model.running == 0


@pytest.mark.parametrize("is_streamed", [True, False], ids=["streamed", "whole"])
async def test_choices_differ_and_a_seed_draws_them_again(client: openai.AsyncOpenAI, is_streamed: bool) -> None:
    async def ask() -> list[str]:
        asked: Any = {"model": "count", "prompt": "20", "max_tokens": 6, "n": 3, "seed": 5}
        extra = {"ignore_eos": True}
        if not is_streamed:
            answer = await client.completions.create(**asked, extra_body=extra)
            return [choice.text for choice in answer.choices]
        texts = [""] * 3
        async for chunk in await client.completions.create(**asked, extra_body=extra, stream=True):
            texts[chunk.choices[0].index] += chunk.choices[0].text
        return texts

    first = await ask()
    assert len(set(first)) == 3
    assert await ask() == first


async def test_logprobs_name_the_alternatives(client: openai.AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="count",
        messages=[{"role": "user", "content": "1"}],
        temperature=0,
        max_tokens=2,
        logprobs=True,
        top_logprobs=2,
    )
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert [(token.token, token.logprob, token.bytes) for token in content] == [
        (" 2", -1.0, [32, 50]),
        (" 3", -1.0, [32, 51]),
    ]
    assert [(one.token, one.logprob) for one in content[0].top_logprobs] == [(" 2", -1.0), (" 2 2", -2.0)]
    flat = await client.completions.create(model="count", prompt="1", temperature=0, max_tokens=2, logprobs=1)
    assert flat.choices[0].logprobs is not None
    assert flat.choices[0].logprobs.tokens == [" 2", " 3"]
    assert flat.choices[0].logprobs.text_offset == [0, 2]


async def test_embeddings_keep_the_order_and_say_the_tokens(client: openai.AsyncOpenAI) -> None:
    # The client asks for base64 by itself.
    answer = await client.embeddings.create(model="count", input=["a", "abc"])
    assert [(one.index, one.embedding) for one in answer.data] == [(0, [1.0, 0.0]), (1, [1.0, 0.0])]
    assert answer.usage.prompt_tokens == 2
    floats = await client.embeddings.create(model="count", input="a", encoding_format="float", dimensions=1)
    assert floats.data[0].embedding == [1.0]


async def test_rerank_puts_the_best_first(served: Predictor) -> None:
    body = {"model": "count", "query": "q", "documents": ["bb", {"text": "cccc"}, "a"], "top_n": 2}
    async with Client() as http:
        answer = orjson.loads(
            (await http.request("POST", f"{served.http.url}/v1/rerank", body=orjson.dumps(body))).body
        )
    assert [(one["index"], one["document"]["text"], one["relevance_score"]) for one in answer["results"]] == [
        (1, "cccc", 4.0),
        (0, "bb", 2.0),
    ]
    assert answer["usage"]["total_tokens"] == 6


async def test_models_are_listed(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["count"]
    assert (await client.models.retrieve("count")).object == "model"


@pytest.mark.parametrize(
    ("asked", "words", "param"),
    [
        ({"model": "count", "prompt": "1", "temperature": 3}, "less than or equal to 2", "temperature"),
        ({"model": "count", "prompt": "1", "max_tokens": 0}, "greater than or equal to 1", "max_tokens"),
        ({"model": "count", "prompt": "1", "best_of": 4}, "Input should be 1", "best_of"),
        ({"model": "count", "prompt": []}, "prompt", "prompt"),
        ({"model": "count", "prompt": "1", "stop": [""]}, "at least 1 character", "stop"),
        ({"model": "count", "prompt": "1", "logit_bias": {"5": 1}}, "at most 0 items", "logit_bias"),
        ({"model": "count", "prompt": "1 " * 65}, "the prompt has 65 tokens, the model takes 64", None),
    ],
)
async def test_what_is_wrong_is_refused_by_its_field(
    client: openai.AsyncOpenAI, asked: Any, words: str, param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(**asked)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert words in refused.value.message


async def test_an_unknown_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await client.embeddings.create(model="other", input="a")
    assert refused.value.code == "model_not_found"
    assert "this server has: count" in refused.value.message
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")


async def test_a_model_that_fails_is_a_server_error_and_the_next_request_is_answered(
    client: openai.AsyncOpenAI, model: CountingModel
) -> None:
    with pytest.raises(openai.InternalServerError, match="RuntimeError: thirteen"):
        await client.completions.create(model="count", prompt="12", temperature=0)
    answer = await client.completions.create(model="count", prompt="1", temperature=0, max_tokens=1)
    assert answer.choices[0].text == " 2"
    assert model.running == 0


@pytest.mark.parametrize("n", [1, 2])
async def test_a_failure_in_the_middle_of_a_stream_is_raised_by_the_client(client: openai.AsyncOpenAI, n: int) -> None:
    stream = await client.completions.create(model="count", prompt="11", temperature=0, stream=True, n=n)
    pieces = aiter(stream)
    assert (await anext(pieces)).choices[0].text == " 12"
    with pytest.raises(openai.APIError, match="RuntimeError: thirteen"):
        [chunk async for chunk in pieces]


@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_that_hangs_up_stops_the_model(
    client: openai.AsyncOpenAI,
    model: CountingModel,
    eventually: Callable[[Callable[[], bool]], Awaitable[None]],
    n: int,
) -> None:
    stream = await client.completions.create(
        model="count", prompt="20", max_tokens=10**6, n=n, stream=True, extra_body={"ignore_eos": True}
    )
    async for _ in stream:
        break
    model.gate.clear()
    assert model.running == n
    await stream.close()
    model.gate.set()
    await eventually(lambda: model.running == 0)


async def test_a_model_is_loaded_again_beside_a_text_that_is_being_generated(
    served: Predictor,
    client: openai.AsyncOpenAI,
    model: CountingModel,
    eventually: Callable[[Callable[[], bool]], Awaitable[None]],
) -> None:
    model.gate.clear()
    stream = await client.completions.create(model="count", prompt="1", temperature=0, max_tokens=4, stream=True)
    await eventually(lambda: model.running == 1)
    loading = asyncio.create_task(served.repository.load("count"))
    await eventually(lambda: served.repository.entry("count").model is not model)
    again = await client.completions.create(model="count", prompt="5", temperature=0, max_tokens=1)
    assert again.choices[0].text == " 6"
    assert not loading.done()
    model.gate.set()
    assert [chunk.choices[0].text async for chunk in stream] == [" 2", " 3", " 4", " 5"]
    await loading


async def test_tokens_are_counted(served: Predictor, client: openai.AsyncOpenAI) -> None:
    await client.completions.create(model="count", prompt="1 2", temperature=0, max_tokens=3)
    await client.embeddings.create(model="count", input=["a", "b"])
    value = served.plane.metrics.registry.get_sample_value
    assert value("servery_predictor_prompt_tokens_total", {"model": "count"}) == 4
    assert value("servery_predictor_generated_tokens_total", {"model": "count"}) == 3
    labels = {"model": "count", "protocol": "openai", "code": "OK"}
    assert value("servery_predictor_requests_total", labels) == 2


async def test_a_model_of_numbers_says_what_it_does_not(start: Callable[..., Awaitable[Predictor]], iris: Path) -> None:
    predictor = await start(iris)
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="model 'iris' generates no text"):
            await client.completions.create(model="iris", prompt="1")
        with pytest.raises(openai.BadRequestError, match="model 'iris' embeds nothing"):
            await client.embeddings.create(model="iris", input="a")
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/openai/v1", api_key="none") as client:
        assert [model.id async for model in client.models.list()] == []


async def test_a_runtimes_own_options_reach_its_model(tmp_path: Path) -> None:
    settings = Settings(
        runtime="counting", model_name="count", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    predictor = Predictor(settings, COUNTING, Metrics(CollectorRegistry()), options={"step": 3})
    await predictor.start()
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/v1", api_key="none") as client:
        answer = await client.completions.create(model="count", prompt="1", temperature=0, max_tokens=2)
    assert answer.choices[0].text == " 4 7"
    await predictor.stop()


async def test_generate_continues_a_text_and_streams_its_pieces(served: Predictor, rest_of: Any) -> None:
    async with Client() as client:
        ask = rest_of(client, served.http.url)
        sent = {"text_input": "7", "parameters": {"temperature": 0, "max_tokens": 3, "stream": True}}
        named = {"model_name": "count", "model_version": "1"}
        assert await ask("/v2/models/count/generate", sent) == (200, {**named, "text_output": " 8 9 10"})
        assert await ask("/v2/models/count/generate", {"text_input": "7", "temperature": 0, "stop": " 10"}) == (
            200,
            {**named, "text_output": " 8 9"},
        )
        status, headers, body = await ask.raw("/v2/models/count/generate_stream", sent)
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        events = [orjson.loads(line[6:]) for line in body.split(b"\n\n")[:-1]]
        assert events == [{**named, "text_output": text} for text in (" 8", " 9", " 10")]


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        ({"text_input": 7}, 400, "text_input: send the text"),
        ({"text_input": "7", "temperature": 9}, 400, "temperature"),
        ({"text_input": "1 " * 65}, 400, "the prompt has 65 tokens"),
        ({"text_input": "12", "temperature": 0}, 500, "model 'count' failed: RuntimeError: thirteen"),
    ],
)
@pytest.mark.parametrize("path", ["generate", "generate_stream"])
async def test_what_generate_cannot_continue_is_told(
    served: Predictor, rest_of: Any, path: str, sent: Any, status: int, words: str
) -> None:
    async with Client() as client:
        found, answer = await rest_of(client, served.http.url)(f"/v2/models/count/{path}", sent)
    assert found == status
    assert words in answer["error"]


async def test_an_error_among_the_pieces_of_generate_is_the_last_event(served: Predictor, rest_of: Any) -> None:
    async with Client() as client:
        ask = rest_of(client, served.http.url)
        _, _, body = await ask.raw("/v2/models/count/generate_stream", {"text_input": "11", "temperature": 0})
    events = [orjson.loads(line[6:]) for line in body.split(b"\n\n")[:-1]]
    assert events[0]["text_output"] == " 12"
    assert events[1:] == [{"error": "model 'count' failed: RuntimeError: thirteen"}]
