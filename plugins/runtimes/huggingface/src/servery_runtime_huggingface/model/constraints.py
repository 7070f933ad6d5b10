"""Holds texts to a JSON schema: which tokens may come next, by the library llguidance.

Source: llguidance, "Python API": ``LLMatcher``; its masks take some 50 microseconds a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import llguidance.hf
import numpy as np
import torch
from llguidance import LLMatcher
from servery_sdk.manifests import Json
from servery_sdk.serving import InputError

_FORM: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Of white space as Python writes it: a model that may write any writes some for ever."""


class Constraint:
    """What one text may become.

    Args:
        begin: Makes the matcher, in the thread that generates: the first of a model reads its vocabulary for a second.
    """

    def __init__(self, begin: Callable[[], Any]) -> None:
        self._begin = begin
        self._matcher: Any = None

    @property
    def is_over(self) -> bool:
        """Whether the text is whole and nothing may follow."""
        return self._matcher is not None and bool(self._matcher.is_stopped())

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """Return for each id of ``vocabulary`` whether it may come next."""
        if self._matcher is None:
            self._matcher = self._begin()
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        known = np.unpackbits(bits, bitorder="little")[:vocabulary].astype(bool)
        return torch.from_numpy(np.pad(known, (0, vocabulary - len(known))))

    def take(self, token: int) -> None:
        """Note what came."""
        self._matcher.consume_token(token)


class Constrainer:
    """Makes constraints for one model.

    Args:
        tokenizer: The model's; one in Python has no vocabulary of bytes.
        ends: Ids that end a text.
    """

    def __init__(self, tokenizer: Any, ends: Iterable[int]) -> None:
        self._tokenizer, self._ends = tokenizer, sorted(ends)
        self._read: Any = None

    def constraint(self, schema: Mapping[str, Json]) -> Constraint:
        """Return what holds a text to ``schema``.

        Raises:
            InputError: It is no schema, or says what cannot be held to; in the library's words.
        """
        if not self._tokenizer.is_fast:
            raise InputError(f"response_format: {type(self._tokenizer).__name__} is in Python; JSON needs one in Rust")
        try:
            grammar = LLMatcher.grammar_from_json_schema(dict(schema), defaults=_FORM)
        except ValueError as error:
            raise InputError(f"response_format: {error}") from error
        if complaint := LLMatcher.validate_grammar(grammar):
            raise InputError(f"response_format: the schema cannot be held to: {complaint}")
        return Constraint(lambda: LLMatcher(self._vocabulary(), grammar))

    def _vocabulary(self) -> Any:
        if self._read is None:
            self._read = llguidance.hf.from_tokenizer(self._tokenizer, eos_token=self._ends or None)
        return self._read
