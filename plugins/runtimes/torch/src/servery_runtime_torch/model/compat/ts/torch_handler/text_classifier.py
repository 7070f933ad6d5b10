"""The default handler ``text_classifier``: the probability of each class of a text."""

from __future__ import annotations

import re
import string
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from ..context import Context
from ..utils.util import map_class_to_label
from .base_handler import BaseHandler

_MARKUP = re.compile(r"<.*?>|&(?:[a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")
_UNKNOWN = 0
_IRREGULAR = {"can't": "cannot", "won't": "will not", "shan't": "shall not", "ain't": "is not", "let's": "let us"}
_SHORT = re.compile(
    r"\b(?:(?P<irregular>" + "|".join(_IRREGULAR) + r")|(?P<negated>\w+)n't"
    r"|(?P<whose>he|she|it|that|there|here|what|who|where|when|how|why)'s|(?P<word>\w+)'(?P<rest>re|ll|ve|d|m))\b"
)
_LONG = {"re": "are", "ll": "will", "ve": "have", "d": "would", "m": "am"}


def _in_full(short: re.Match[str]) -> str:
    if short["irregular"]:
        return _IRREGULAR[short["irregular"]]
    if short["negated"]:
        return f"{short['negated']} not"
    return f"{short['whose']} is" if short["whose"] else f"{short['word']} {_LONG[short['rest']]}"


class TextHandler(BaseHandler):
    """Cleans texts and looks their words up in the archive's vocabulary, ``{word: number}``."""

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: Any = None

    def initialize(self, context: Context) -> None:
        """Load the model and the vocabulary.

        Raises:
            RuntimeError: The archive has no vocabulary.
        """
        super().initialize(context)
        name = self.manifest["model"].get("sourceVocab") or "source_vocab.pt"
        file = Path(str(context.system_properties["model_dir"])) / name
        if not file.is_file():
            raise RuntimeError(f"Missing the vocabulary {name}: archive it with --extra-files")
        self.source_vocab = torch.load(file, weights_only=True)

    def words(self, text: str) -> list[str]:
        """Return the words of ``text`` without markup, accents and punctuation, in lower case, "don't" as "do not"."""
        full = _SHORT.sub(_in_full, _MARKUP.sub("", text).lower().replace("\u2019", "'"))
        plain = unicodedata.normalize("NFKD", full).encode("ascii", "ignore").decode()
        return plain.translate(str.maketrans("", "", string.punctuation)).split()


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
