"""What the handlers of texts share: words, and the archive's vocabulary of them."""

from __future__ import annotations

import re
import string
import unicodedata
from pathlib import Path
from typing import Any

import torch

from ..context import Context
from .base_handler import BaseHandler

_MARKUP = re.compile(r"<.*?>|&(?:[a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")
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
