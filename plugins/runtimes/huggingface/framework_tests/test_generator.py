"""Models that write, against transformers' own ``generate``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
import torch
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_runtime_huggingface.model import HuggingFaceModel
from servery_runtime_huggingface.model.engine import EngineClosed
from servery_runtime_huggingface.model.generator import Generator
from servery_runtime_huggingface.model.rows import DecoderRows
from servery_runtime_huggingface.model.texts import writer as text_writer
from servery_sdk import plugins
from servery_sdk.language import FinishReason, Piece, Sampling
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract
from tiny_transformers import CONTEXT, bytes_tokenizer, continued, pieces, write_writer, writer

PROMPTS = ("the cat", "a dog barked at the moon and", "rivers run to", "größe 日本", "x")
GREEDY = Sampling(temperature=0, max_tokens=12, ignores_end=True)


def texts(*values: str, **parameters: Any) -> InferRequest:
    data = np.array([text.encode() for text in values], dtype=object)
    return InferRequest(
        model="m", inputs=(Tensor(name="text", data=data, datatype=Datatype.BYTES),), parameters=parameters
    )


def expected(kind: str, count: int) -> InferResponse:
    model, tokenizer = writer(kind)
    written = [continued(model, tokenizer, prompt, count).encode() for prompt in PROMPTS]
    tensor = Tensor(name="output-0", data=np.array(written, dtype=object), datatype=Datatype.BYTES)
    return InferResponse(model="m", outputs=(tensor,))


class TestGeneration(RuntimeContract):
    """v1, v2 and gRPC continue texts, too."""

    plugin = "servery_runtime_huggingface.plugin"
    framework = ("torch", "transformers")
    good_request = texts(*PROMPTS)
    good_response = expected("llama", 16)
    wrong_request = InferRequest(
        model="m", inputs=(Tensor(name="text", data=np.array([[1.0, 2.0]]), datatype=Datatype.FP64),)
    )

    def write_model(self, directory: Path) -> None:
        write_writer("llama", directory)

    def write_other_model(self, directory: Path) -> None:
        write_writer("llama", directory, seed=1)


def loaded(kind: str, directory: Path, *, tokenizer: Any = None, **options: Any) -> Generator:
    write_writer(kind, directory, tokenizer=tokenizer)
    model = HuggingFaceModel(**options)
    model.load(directory)
    assert isinstance(model.held, Generator)
    return model.held


async def told(generator: Generator, prompt: Any, sampling: Sampling, *, is_streamed: bool = False) -> list[Piece]:
    generation = generator.generate(prompt, sampling, is_streamed=is_streamed)
    return [piece async for piece in generation.pieces]


def text_of(found: list[Piece]) -> str:
    return "".join(piece.text for piece in found)


@pytest.mark.parametrize("kind", ["llama", "mistral", "gpt2", "t5"])
async def test_texts_that_join_and_leave_are_what_generate_writes_for_each_alone(tmp_path: Path, kind: str) -> None:
    model, tokenizer = writer(kind)
    generator = loaded(kind, tmp_path, max_num_seqs=3)
    lengths = [5, 30, 11, 2, 20]

    async def ask(prompt: str, count: int) -> str:
        sampling = Sampling(temperature=0, max_tokens=count, ignores_end=True)
        return text_of(await told(generator, prompt, sampling, is_streamed=count % 2 == 0))

    found = await asyncio.gather(*map(ask, PROMPTS, lengths))
    wanted = [
        continued(model, tokenizer, prompt, count, stops=False) for prompt, count in zip(PROMPTS, lengths, strict=True)
    ]
    assert found == wanted
    generator.close()


async def test_a_tokenizer_in_python_writes_the_same_streamed_and_whole(tmp_path: Path) -> None:
    tokenizer = bytes_tokenizer()
    generator = loaded("gpt2", tmp_path, tokenizer=tokenizer, add_special_tokens=False)
    ids = tuple(tokenizer("größe 日本語 😀", add_special_tokens=False)["input_ids"])
    streamed = await told(generator, ids, GREEDY, is_streamed=True)
    assert sum(piece.count for piece in streamed) == 12
    assert text_of(streamed) == text_of(await told(generator, ids, GREEDY))
    generator.close()


@pytest.mark.parametrize("make", [pieces, bytes_tokenizer], ids=["in-rust", "in-python"])
def test_characters_of_several_tokens_come_whole(make: Any) -> None:
    tokenizer = make()
    text = "größe 日本語 €"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = text_writer(tokenizer, ())
    parts = [whole.write([token]) for token in ids]
    assert "".join(parts) + whole.rest() == text
    assert not any("�" in part for part in parts)
    cut = text_writer(tokenizer, ())
    assert ("".join(cut.write([token]) for token in ids[:-1]) + cut.rest()).rstrip("�") == text[:-1]


async def test_the_end_is_no_text(tmp_path: Path) -> None:
    model, tokenizer = writer("llama")
    ids = tokenizer("the cat", return_tensors="pt", return_token_type_ids=False)
    written = model.generate(**ids, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    generated = written[0, ids["input_ids"].shape[1] :].tolist()
    end = next(number for number, token in enumerate(generated) if number > 1 and token not in generated[:number])
    model.generation_config.eos_token_id = generated[end]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    held = HuggingFaceModel()
    held.load(tmp_path)
    generator = held.held
    assert isinstance(generator, Generator)
    for is_streamed in (True, False):
        found = await told(generator, "the cat", Sampling(temperature=0, max_tokens=12), is_streamed=is_streamed)
        assert text_of(found) == tokenizer.decode(generated[:end])
        assert (sum(piece.count for piece in found), found[-1].finish) == (end + 1, FinishReason.STOP)
    held.close()


async def test_a_seed_draws_the_same_beside_others_and_alone(tmp_path: Path) -> None:
    generator = loaded("llama", tmp_path)
    sampling = Sampling(temperature=1.5, top_p=0.9, top_k=50, max_tokens=10, seed=3, ignores_end=True)
    alone = text_of(await told(generator, "the cat", sampling))
    others = [told(generator, prompt, Sampling(max_tokens=20, ignores_end=True)) for prompt in PROMPTS]
    beside, *_ = await asyncio.gather(told(generator, "the cat", sampling), *others)
    assert text_of(beside) == alone
    seeds = [Sampling(temperature=1.5, max_tokens=10, seed=seed, ignores_end=True) for seed in range(4)]
    assert len({text_of(await told(generator, "the cat", one)) for one in seeds}) == 4
    generator.close()


async def test_logprobs_are_the_models_own(tmp_path: Path) -> None:
    model, tokenizer = writer("llama")
    generator = loaded("llama", tmp_path)
    sampling = Sampling(temperature=0, max_tokens=1, logprobs=3, ignores_end=True)
    (piece,) = await told(generator, "the cat", sampling)
    with torch.inference_mode():
        wanted = model(**tokenizer("the cat", return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
    best = wanted.log_softmax(-1).topk(3)
    (token,) = piece.tokens
    assert token.logprob == pytest.approx(float(best.values[0]), abs=1e-4)
    assert [one.text for one in token.alternatives] == [tokenizer.decode([int(index)]) for index in best.indices]
    generator.close()


async def test_a_frequency_penalty_keeps_tokens_from_coming_again(tmp_path: Path) -> None:
    generator = loaded("llama", tmp_path)
    sampling = Sampling(temperature=0, max_tokens=40, logprobs=0, presence_penalty=1e4, ignores_end=True)
    tokens = [token.text for piece in await told(generator, "the cat", sampling) for token in piece.tokens]
    assert len(tokens) == 40
    legible = [token for token in tokens if "�" not in token]
    assert len(set(legible)) == len(legible)
    generator.close()


async def test_a_text_ends_where_the_context_does(tmp_path: Path) -> None:
    generator = loaded("llama", tmp_path)
    generation = generator.generate("the cat", Sampling(temperature=0, ignores_end=True), is_streamed=False)
    (piece,) = [piece async for piece in generation.pieces]
    assert (generation.prompt_tokens + piece.count, piece.finish) == (CONTEXT, FinishReason.LENGTH)
    with pytest.raises(InputError, match=f"prompt: it has {CONTEXT} tokens, and the model's context.* has {CONTEXT}"):
        generator.generate((1,) * CONTEXT, GREEDY, is_streamed=False)
    with pytest.raises(InputError, match="prompt: token 999 is none of the model's"):
        generator.generate((999,), GREEDY, is_streamed=False)
    with pytest.raises(InputError, match="prompt: it is empty"):
        generator.generate("", GREEDY, is_streamed=False)
    generator.close()


async def test_giving_up_a_text_makes_room(tmp_path: Path) -> None:
    generator = loaded("llama", tmp_path, max_num_seqs=1)
    long = generator.generate("the cat", Sampling(ignores_end=True), is_streamed=True)
    assert (await anext(long.pieces)).count == 1
    await long.pieces.aclose()
    assert (await told(generator, "x", GREEDY))[-1].finish is FinishReason.LENGTH
    generator.close()


async def test_texts_of_a_model_that_is_given_back_fail(tmp_path: Path) -> None:
    generator = loaded("t5", tmp_path)
    endless = Sampling(max_tokens=10**6, ignores_end=True)
    long = generator.generate("the cat", endless, is_streamed=True)
    await anext(long.pieces)
    waits = asyncio.create_task(told(generator, "x", GREEDY))
    await asyncio.sleep(0)
    generator.close()
    with pytest.raises(EngineClosed):
        [piece async for piece in long.pieces if piece.finish is not None]
    with pytest.raises(EngineClosed):
        await waits
    with pytest.raises(EngineClosed):
        await told(generator, "the cat", GREEDY)


async def test_a_model_that_fails_fails_its_texts_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = loaded("llama", tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(DecoderRows, "step", lambda rows, tokens: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await told(generator, "the cat", GREEDY)
    assert len(await told(generator, "the cat", GREEDY)) == 1
    generator.close()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"max_tokens": 0}, "parameter 'max_tokens': must be a number from 1 to inf, found 0"),
        ({"temperature": "hot"}, "parameter 'temperature': must be a number from 0 to 2, found 'hot'"),
        ({"seed": True}, "parameter 'seed'"),
    ],
)
def test_a_wrong_parameter_is_refused(tmp_path: Path, parameters: dict[str, Any], words: str) -> None:
    generator = loaded("llama", tmp_path)
    with pytest.raises(InputError) as refused:
        generator.predict(texts("the cat", **parameters))
    assert words in str(refused.value)


def test_parameters_of_a_prediction_count(tmp_path: Path) -> None:
    model, tokenizer = writer("llama")
    generator = loaded("llama", tmp_path)
    (output,) = generator.predict(texts(*PROMPTS, max_tokens=5)).outputs
    assert [text.decode() for text in output.data] == [continued(model, tokenizer, text, 5) for text in PROMPTS]
    generator.close()


def test_a_model_with_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="MambaForCausalLM remembers a state of its whole text"):
        loaded("mamba", tmp_path)


async def test_a_model_without_a_bound_needs_max_tokens(tmp_path: Path) -> None:
    generator = loaded("t5", tmp_path)
    with pytest.raises(InputError, match="max_tokens: say how many"):
        generator.generate("the cat", Sampling(), is_streamed=False)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    write_writer("llama", tmp_path)
    settings = Settings(
        runtime="huggingface", model_name="tiny", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    runtime = plugins.load().runtimes["servery-huggingface"]
    predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
    await predictor.start()
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/openai/v1", api_key="none", max_retries=0) as client:
        yield client
    await predictor.stop()


async def test_a_conversation_follows_the_models_template(client: openai.AsyncOpenAI) -> None:
    model, tokenizer = writer("llama")
    prompt = "<|system|>be kind<|user|>the cat<|assistant|>"
    messages: Any = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "the cat"}]
    asked: Any = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 10}
    answer = await client.chat.completions.create(**asked)
    assert answer.choices[0].message.content == continued(model, tokenizer, prompt, 10)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(tokenizer(prompt)["input_ids"])
    stream = await client.chat.completions.create(**asked, stream=True)
    parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(parts) == answer.choices[0].message.content


async def test_a_template_that_refuses_is_the_callers_fault(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"the model's template refuses them: .*no tools"):
        await client.chat.completions.create(
            model="tiny", messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}]
        )


async def test_a_stop_ends_a_text_of_tokens(client: openai.AsyncOpenAI) -> None:
    whole = (await client.completions.create(model="tiny", prompt="the cat", temperature=0, max_tokens=12)).choices[0]
    stop = whole.text[4:6]
    answer = await client.completions.create(model="tiny", prompt="the cat", temperature=0, max_tokens=12, stop=stop)
    assert answer.choices[0].text == whole.text.partition(stop)[0]
    assert answer.choices[0].finish_reason == "stop"


async def test_many_at_once_are_answered_as_each_alone(client: openai.AsyncOpenAI) -> None:
    model, tokenizer = writer("llama")

    async def ask(prompt: str) -> str:
        answer = await client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=9)
        return answer.choices[0].text

    found = await asyncio.gather(*(ask(prompt) for prompt in PROMPTS * 8))
    assert found == [continued(model, tokenizer, prompt, 9) for prompt in PROMPTS] * 8
