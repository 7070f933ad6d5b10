"""What a model remembers of the texts that it continues together: rows that join and leave between two tokens.

Rows are aligned at their ends, so the key-value cache is ``[rows, heads, longest, width]`` with nothing behind a row's
last token, and what stands before its first is masked.

Why not the library's own continuous batching: on a CPU its paged attention gave a half to four fifths of this loop's
tokens (docs/how-to/serve-a-language-model.md has the numbers), and it has neither seeds nor alternatives by request.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from servery_sdk.serving import LoadError
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

_ATTENTIONS = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


class Rows(Protocol):
    """The rows of one model."""

    most: int
    """How many there may be."""

    def join(self, prompts: Sequence[Sequence[int]], inputs: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """Read new rows' prompts, each with its ``inputs``; return the logits ``[new, vocabulary]`` of what follows them."""

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read one more token of every row; return the logits ``[rows, vocabulary]`` of what follows."""

    def keep(self, rows: Sequence[int]) -> None:
        """Forget all rows but these, which are then numbered by their order here."""


class DecoderRows:
    """Of a model that only continues."""

    def __init__(self, model: Any, *, most: int, place: str) -> None:
        text = model.config.get_text_config(decoder=True)
        layers = set(getattr(text, "layer_types", None) or ())
        if getattr(text, "cross_attention_layers", None) or model.config.is_encoder_decoder:
            raise LoadError(
                f"{place}: {type(model).__name__} looks at images beside its text; this runtime serves models that "
                "read them as a part of it"
            )
        if getattr(model, "_is_stateful", False) or layers - _ATTENTIONS:
            raise LoadError(
                f"{place}: {type(model).__name__} remembers a state of its whole text, which rows cannot join; "
                "this runtime serves models of attention only"
            )
        self.most = most
        self._model, self._device = model, model.device
        taken = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in taken
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in taken else {}
        # Models that number an image's tokens by its rows and columns go on from another number than their length.
        self._numbering = next((part for part in model.modules() if hasattr(part, "rope_deltas")), None)
        self._cache: Any = None
        self._lengths: list[int] = []
        self._positions = self._tensor([])
        self.keep(())

    def join(self, prompts: Sequence[Sequence[int]], inputs: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """Read prompts, padded before their first tokens; those with images one by one, since images are not padded."""
        plain = [number for number, given in enumerate(inputs) if not given]
        if len(plain) == len(prompts):
            return self._join(prompts)
        found = [self._join([prompt], given) for prompt, given in zip(prompts, inputs, strict=True)]
        return torch.cat(found)

    def _join(self, prompts: Sequence[Sequence[int]], given: Mapping[str, Any] | None = None) -> torch.Tensor:
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        cache: Any = DynamicCache()
        ids = self._tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = self._tensor([[0] * (width - length) + [1] * length for length in lengths])
        numbered = (mask.cumsum(-1) - 1).clamp(min=0)
        positions = self._tensor(lengths)
        if given and self._numbering is not None:
            logits = self._read(ids, mask, None, cache, given)
            positions = positions + self._numbering.rope_deltas.ravel()
        else:
            logits = self._read(ids, mask, numbered, cache, given)
        if self._lengths:
            self._merge(cache, mask)
            self._positions = torch.cat([self._positions, positions])
        else:
            self._cache, self._mask, self._positions = cache, mask, positions
        self._lengths += lengths
        return logits

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read a token of each row."""
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        logits = self._read(self._tensor(tokens)[:, None], self._mask, self._positions[:, None], self._cache)
        self._lengths = [length + 1 for length in self._lengths]
        self._positions = self._positions + 1
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Forget the others, and the columns that only they had."""
        if not rows:
            self._cache, self._mask, self._positions = DynamicCache(), self._tensor([[]]), self._tensor([])
            self._lengths = []
            return
        self._lengths = [self._lengths[row] for row in rows]
        index, unused = self._tensor(rows), self._mask.shape[1] - max(self._lengths)
        self._mask, self._positions = self._mask[index, unused:], self._positions[index]
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[index, :, unused:], layer.values[index, :, unused:]

    def _merge(self, cache: Any, mask: torch.Tensor) -> None:
        longest = max(self._mask.shape[1], mask.shape[1])
        self._mask = torch.cat([_padded(self._mask, longest, 1), _padded(mask, longest, 1)])
        for ours, new in zip(self._cache.layers, cache.layers, strict=True):
            ours.keys = torch.cat([_padded(ours.keys, longest, 2), _padded(new.keys, longest, 2)])
            ours.values = torch.cat([_padded(ours.values, longest, 2), _padded(new.values, longest, 2)])

    def _read(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor | None,
        cache: Any,
        given: Mapping[str, Any] | None = None,
    ) -> torch.Tensor:
        numbered = {} if positions is None or not self._takes_positions else {"position_ids": positions}
        found = self._model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **numbered,
            **self._extra,
            **(given or {}),
        )
        logits: torch.Tensor = found.logits[:, -1]
        return logits

    def _tensor(self, values: Any) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)


class EncoderDecoderRows:
    """Of a model that reads a text and writes another. One row: many count their positions from a row's first column."""

    most = 1

    def __init__(self, model: Any) -> None:
        self._model, self._device = model, model.device
        config = model.generation_config
        start = config.decoder_start_token_id
        # BART's and mBART's begin with a token that is not chosen: of no text, or of the language to write.
        forced = config.forced_bos_token_id
        self._start = [config.bos_token_id if start is None else start, *([] if forced is None else [forced])]
        self.keep(())

    def join(self, prompts: Sequence[Sequence[int]], inputs: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """Read the one prompt."""
        (prompt,) = prompts
        ids = torch.tensor([list(prompt)], dtype=torch.long, device=self._device)
        states = self._model.get_encoder()(input_ids=ids).last_hidden_state
        self._encoded = BaseModelOutput(last_hidden_state=states)
        return self._read(self._start)

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read the one token."""
        return self._read(tokens)

    def _read(self, tokens: Sequence[int]) -> torch.Tensor:
        found = self._model(
            encoder_outputs=self._encoded,
            decoder_input_ids=torch.tensor([list(tokens)], dtype=torch.long, device=self._device),
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: torch.Tensor = found.logits[:, -1]
        return logits

    def keep(self, rows: Sequence[int]) -> None:
        """Forget the row, if it is not kept."""
        if not rows:
            self._encoded = BaseModelOutput()
            self._cache = EncoderDecoderCache(DynamicCache(), DynamicCache())


def _padded(tensor: torch.Tensor, length: int, axis: int) -> torch.Tensor:
    """Return ``tensor`` with zeros before its first of ``axis``, so that there are ``length``."""
    behind = [0, 0] * (tensor.dim() - axis - 1)
    return torch.nn.functional.pad(tensor, [*behind, length - tensor.shape[axis], 0])
