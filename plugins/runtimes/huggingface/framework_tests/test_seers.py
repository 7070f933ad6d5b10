"""Models that read images and write texts, against transformers' own ``generate``."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import openai
import pytest
import torch
from PIL import Image
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_runtime_huggingface.model.rows import DecoderRows
from servery_sdk import plugins
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.testing import RuntimeContract
from tiny_perceivers import encoded, picture, png
from tiny_seers import seen, seer
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

PICTURES = [picture(seed, width=20 + 4 * seed) for seed in range(3)]
TEXTS = ("the cat sat", "a dog barked at the moon", "rivers")


def column(name: str, values: Any) -> Tensor:
    data = np.empty(len(values), dtype=object)
    data[:] = values
    return Tensor(name=name, data=data, datatype=Datatype.BYTES)


def shown(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]


def expected() -> InferResponse:
    with TemporaryDirectory() as directory:
        model, processor = seer("llava", Path(directory))
        written = [
            seen(model, processor, shown(text), [Image.fromarray(pixels)], 16).encode()
            for text, pixels in zip(TEXTS, PICTURES, strict=True)
        ]
    return InferResponse(model="m", outputs=(column("output-0", written),))


class TestSeeing(RuntimeContract):
    plugin = "servery_runtime_huggingface.plugin"
    framework = ("torch", "transformers")
    good_request = InferRequest(
        model="m",
        inputs=(
            column("image", [encoded(png(one)) for one in PICTURES]),
            column("text", [text.encode() for text in TEXTS]),
        ),
    )
    good_response = expected()
    wrong_request = InferRequest(
        model="m",
        inputs=(
            Tensor(name="image", data=np.zeros((1, 5)), datatype=Datatype.FP64),
            column("text", [b"x"]),
        ),
    )

    def write_model(self, directory: Path) -> None:
        seer("llava", directory)

    def write_other_model(self, directory: Path) -> None:
        seer("llava", directory, seed=1)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    seer("llava", tmp_path)
    settings = Settings(
        runtime="huggingface", model_name="tiny", model_dir=tmp_path, host="127.0.0.1", http_port=0, enable_grpc=False
    )
    runtime = plugins.load().runtimes["servery-huggingface"]
    predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
    await predictor.start()
    async with openai.AsyncOpenAI(base_url=f"{predictor.http.url}/openai/v1", api_key="none", max_retries=0) as client:
        yield client
    await predictor.stop()


async def test_conversations_with_and_without_images_are_written_beside_one_another(
    client: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    model, processor = seer("llava", tmp_path / "again")

    async def ask(text: str, pictures: list[Any], count: int) -> str:
        urls = [f"data:image/png;base64,{base64.b64encode(png(one)).decode()}" for one in pictures]
        parts: Any = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        answer = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": [*parts, {"type": "text", "text": text}]}],
            temperature=0,
            max_tokens=count,
        )
        return answer.choices[0].message.content or ""

    asked = [("the cat", PICTURES[:1], 20), ("a dog", [], 12), ("rivers run", PICTURES[1:], 16), ("x", PICTURES[2:], 7)]
    found = await asyncio.gather(*(ask(*one) for one in asked))
    wanted = [
        seen(
            model,
            processor,
            [{"role": "user", "content": [{"type": "image"}] * len(pictures) + [{"type": "text", "text": text}]}],
            [Image.fromarray(one) for one in pictures],
            count,
        )
        for text, pictures, count in asked
    ]
    assert found == wanted
    with pytest.raises(openai.BadRequestError, match="image 0 of the messages: 6 bytes that are no image"):
        await client.chat.completions.create(
            model="tiny",
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,bm90IGl0"}}],
                }
            ],
        )


def test_images_numbered_by_rows_and_columns_go_on_as_generate_does() -> None:
    """Qwen2-VL's processor needs torchvision; its numbering of tokens does not."""
    torch.manual_seed(0)
    text: Any = {
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        "bos_token_id": None,
        "eos_token_id": 99,
        "pad_token_id": None,
    }
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4, "mlp_ratio": 2}
    ids = {"image_token_id": 97, "video_token_id": 96, "vision_start_token_id": 95, "vision_end_token_id": 94}
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **ids)).eval()
    prompt, plain = [5, 6, 95, *[97] * 8, 94, 7, 8], [9, 10, 11, 12]
    given = {
        "pixel_values": torch.randn(32, 3 * 2 * 16),
        "image_grid_thw": torch.tensor([[1, 8, 4]]),
        "mm_token_type_ids": torch.tensor([[int(token == 97) for token in prompt]]),
    }

    def alone(tokens: list[int], inputs: dict[str, Any]) -> list[int]:
        read = torch.tensor([tokens])
        asked: Any = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        written = model.generate(input_ids=read, attention_mask=torch.ones_like(read), **asked, **inputs)
        return list(written[0, len(tokens) :].tolist())

    with torch.inference_mode():
        wanted = [alone(plain, {}), alone(prompt, given)]
        rows = DecoderRows(model, most=8, place="here")
        tokens = rows.join([plain], [{}]).argmax(-1).tolist() + rows.join([prompt], [given]).argmax(-1).tolist()
        found = [[token] for token in tokens]
        for _ in range(9):
            tokens = rows.step(tokens).argmax(-1).tolist()
            for row, token in zip(found, tokens, strict=True):
                row.append(token)
    assert found == wanted
