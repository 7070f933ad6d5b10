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
from PIL import Image
from prometheus_client import CollectorRegistry
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.testing import RuntimeContract
from tiny_perceivers import encoded, picture, png
from tiny_seers import seen, seer

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
