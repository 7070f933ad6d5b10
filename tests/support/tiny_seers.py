"""Tiny models with random weights that read images as parts of a text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_perceivers import SIDE
from tiny_transformers import pieces
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

IMAGE_TOKEN = "<image>"  # no password
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{% for c in m.content %}"
    "{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}\n{% endfor %}assistant:"
)
_TEXT: Any = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.5,
    "bos_token_id": None,
    "pad_token_id": None,
}


def _tokenizer() -> Any:
    tokenizer = pieces(template=None)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN, "<|vision_start|>", "<|vision_end|>"]})
    return tokenizer


def _llava() -> tuple[Any, Any]:
    tokenizer = _tokenizer()
    text = LlamaConfig(**_TEXT, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    vision = CLIPVisionConfig(
        image_size=SIDE,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.6,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    )
    seen = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    processor = LlavaProcessor(
        image_processor=seen,
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return LlavaForConditionalGeneration(config), processor


def seer(kind: str, directory: Path, *, seed: int = 0) -> tuple[Any, Any]:
    """Write a model of ``kind`` and its processor to ``directory``, and return them."""
    torch.manual_seed(seed)
    model, processor = {"llava": _llava}[kind]()
    for part in (model, processor):
        part.save_pretrained(directory)
    return model.eval(), processor


def seen(model: Any, processor: Any, messages: Any, images: Any, count: int) -> str:
    """Return what transformers' own ``generate`` writes behind a conversation, the likeliest token each time."""
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    given = processor(text=[text], images=images or None, return_tensors="pt", add_special_tokens=False)
    (written,) = model.generate(**given, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return str(processor.tokenizer.decode(written[given["input_ids"].shape[1] :], skip_special_tokens=True))
