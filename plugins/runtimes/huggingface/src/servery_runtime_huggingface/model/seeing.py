"""Conversations with images, as the model's own processor writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from servery_sdk import language
from servery_sdk.language import SeenPrompt
from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest
from servery_sdk.serving import InputError
from servery_sdk.texts import text_column

from servery_runtime_huggingface.model.artifact import Source
from servery_runtime_huggingface.model.files import input_of

IMAGE = "image"
_TEXTUAL = frozenset({"input_ids", "attention_mask"})


class Seer:
    """Turns messages with images into ids and pixels."""

    def __init__(self, source: Source) -> None:
        # Pillow is slow to import, and models of texts do without.
        from servery_runtime_huggingface.model import images

        self._images = images
        self._processor, self._device, self._dtype = source.processor, source.device, source.model.dtype

    @property
    def chat_template(self) -> Any:
        """How conversations are written; None where nothing says."""
        return self._processor.chat_template or self._processor.tokenizer.chat_template

    def prompt(self, messages: Sequence[Mapping[str, Json]], options: Mapping[str, Json]) -> SeenPrompt:
        """Return a conversation whose ``content`` may be parts, texts and images.

        Raises:
            InputError: An image cannot be read, or the template refuses the messages.
        """
        seen: list[Any] = []
        written = [{**message, "content": self._parts(message["content"], seen)} for message in messages]
        return self._read(written, seen, options)

    def asked(self, request: InferRequest) -> list[SeenPrompt]:
        """Return a conversation of one message for each row's image and text.

        Raises:
            InputError: They are none, or not as many.
        """
        found = input_of(request, IMAGE, language.TEXT)
        seen, texts = self._images.images_of(found[IMAGE]), text_column(found[language.TEXT])
        if len(seen) != len(texts):
            shapes = ", ".join(f"{name!r} {list(tensor.data.shape)}" for name, tensor in found.items())
            raise InputError(f"inputs differ in rows: {shapes}")
        return [
            self._read([{"role": "user", "content": [{"type": "image"}, _text(text)]}], [image], {})
            for image, text in zip(seen, texts, strict=True)
        ]

    def _parts(self, content: Any, seen: list[Any]) -> list[dict[str, Json]]:
        if isinstance(content, str):
            return [_text(content)]
        parts: list[dict[str, Json]] = []
        for part in content:
            if part["type"] == "image":
                seen.append(self._images.decoded(part["image"], f"image {len(seen)} of the messages"))
                parts.append({"type": "image"})
            else:
                parts.append(_text(part["text"]))
        return parts

    def _read(self, messages: list[Any], seen: Sequence[Any], options: Mapping[str, Json]) -> SeenPrompt:
        try:
            text = self._processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)
            images = {"images": list(seen)} if seen else {}
            prepared = self._processor(text=[text], return_tensors="pt", add_special_tokens=False, **images)
        except Exception as error:
            # Templates and processors are programs of the model's makers, and refuse what they like in their own way.
            raise InputError(f"messages: the model's template refuses them: {type(error).__name__}: {error}") from error
        inputs = {name: self._placed(value) for name, value in prepared.items() if name not in _TEXTUAL}
        return SeenPrompt(ids=tuple(prepared["input_ids"][0].tolist()), inputs=inputs if seen else {})

    def _placed(self, value: torch.Tensor) -> torch.Tensor:
        return value.to(self._device, self._dtype) if value.is_floating_point() else value.to(self._device)


def _text(text: str) -> dict[str, Json]:
    return {"type": "text", "text": text}
