"""The default handler ``text_classifier``: the probability of each class of a text."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from ..utils.util import map_class_to_label
from .text_handler import TextHandler

_UNKNOWN = 0


class TextClassifier(TextHandler):
    """Answers ``{label: probability}``; the model takes word numbers and the offset of each text, as EmbeddingBag does."""

    ngrams = 2

    def preprocess(self, data: Any) -> Any:
        """Return the numbers of each text's words and pairs of words."""
        texts = [item.get("data") or item.get("body") if isinstance(item, dict) else item for item in data]
        decoded = [text.decode() if isinstance(text, bytes | bytearray) else str(text) for text in texts]
        return [torch.tensor(self._numbers(text), dtype=torch.long, device=self.device) for text in decoded]

    def _numbers(self, text: str) -> list[int]:
        words = self.words(text)
        grams = words + ([" ".join(pair) for pair in pairwise(words)] if self.ngrams > 1 else [])
        return [int(self.source_vocab.get(gram, self.source_vocab.get("<unk>", _UNKNOWN))) for gram in grams]

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the classes' scores ``[rows, classes]``, of all texts in one call."""
        lengths = torch.tensor([0, *(len(numbers) for numbers in data[:-1])], device=self.device)
        with torch.inference_mode():
            return self.model(torch.cat(data), lengths.cumsum(0), *args, **kwargs)

    def postprocess(self, data: Any) -> Any:
        """Return the probabilities by label."""
        return map_class_to_label(torch.softmax(data, dim=1).tolist(), self.mapping)
