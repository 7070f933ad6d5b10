"""Chooses the next token of every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from servery_sdk.language import Sampling

from servery_runtime_huggingface.model.constraints import Constraint


@dataclass(slots=True)
class Draw:
    """How one row's tokens are drawn, and which were.

    Attributes:
        generator: Of its seed; None draws from the process's own.
        drawn: Ids so far.
        constraint: On what may be drawn next.
    """

    sampling: Sampling
    generator: torch.Generator | None = None
    drawn: list[int] = field(default_factory=list)
    constraint: Constraint | None = None

    @property
    def is_complete(self) -> bool:
        """Whether a constraint lets nothing follow."""
        return self.constraint is not None and self.constraint.is_over


@dataclass(frozen=True, slots=True)
class Choice:
    """A token, with logarithms of probabilities where they were asked for: its own, and the likeliest ids with theirs."""

    token: int
    logprob: float = 0.0
    alternatives: tuple[tuple[int, float], ...] = ()


def draw_of(sampling: Sampling, device: torch.device, constraint: Constraint | None = None) -> Draw:
    """Return the beginning of a row's draws."""
    if sampling.seed is None:
        return Draw(sampling, constraint=constraint)
    generator = torch.Generator(device)
    # Seeds are 64 bits without a sign there.
    generator.manual_seed(sampling.seed % 2**64)
    return Draw(sampling, generator, constraint=constraint)


def choose(logits: torch.Tensor, draws: Sequence[Draw]) -> list[Choice]:
    """Return a token for each row of ``logits`` [rows, vocabulary], and note it in ``draws``."""
    told = [draw.sampling.logprobs for draw in draws]
    raw = logits
    if any(draw.sampling.frequency_penalty or draw.sampling.presence_penalty for draw in draws):
        logits = _penalized(logits.clone(), draws)
    if any(draw.constraint is not None for draw in draws):
        logits = _constrained(logits.clone(), draws)
    tokens = logits.argmax(-1)
    drawn = [row for row, draw in enumerate(draws) if draw.sampling.temperature > 0]
    if drawn:
        tokens[drawn] = _drawn(logits[drawn].float(), [draws[row] for row in drawn])
    ids: list[int] = tokens.tolist()
    for draw, token in zip(draws, ids, strict=True):
        draw.drawn.append(token)
        if draw.constraint is not None:
            draw.constraint.take(token)
    if all(count is None for count in told):
        return [Choice(token) for token in ids]
    logprobs = raw.float().log_softmax(-1)
    return [
        Choice(token) if count is None else _told(token, row, count)
        for token, row, count in zip(ids, logprobs, told, strict=True)
    ]


def _penalized(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """Source: OpenAI API reference, "Frequency and presence penalties": logit - count * frequency - (count > 0) * presence."""
    for row, draw in zip(logits, draws, strict=True):
        drawn: Any = torch.tensor(draw.drawn, dtype=torch.long, device=logits.device)
        ids, counts = drawn.unique(return_counts=True)
        row[ids] -= counts * draw.sampling.frequency_penalty + draw.sampling.presence_penalty
    return logits


def _constrained(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    for row, draw in zip(logits, draws, strict=True):
        if draw.constraint is not None:
            row.masked_fill_(~draw.constraint.allowed(row.shape[0]).to(row.device), float("-inf"))
    return logits


def _drawn(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    samplings = [draw.sampling for draw in draws]
    # A temperature near zero takes the likeliest anyway, and must not overflow on its way there.
    temperatures = torch.tensor([max(one.temperature, 1e-4) for one in samplings], device=logits.device)
    probabilities = (logits / temperatures[:, None]).softmax(-1)
    if any(one.top_p < 1 or one.top_k is not None for one in samplings):
        probabilities = _likeliest(probabilities, samplings)
    tokens = torch.multinomial(probabilities, 1)[:, 0]
    for row, draw in enumerate(draws):
        if draw.generator is not None:
            tokens[row] = torch.multinomial(probabilities[row], 1, generator=draw.generator)[0]
    return tokens


def _likeliest(probabilities: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    ordered, ids = probabilities.sort(descending=True)
    vocabulary = probabilities.shape[1]
    tops = torch.tensor([[one.top_p] for one in samplings], device=probabilities.device)
    counts = torch.tensor([[one.top_k or vocabulary] for one in samplings], device=probabilities.device)
    # A token stays if those before it do not reach top_p yet: the first always does.
    before = ordered.cumsum(-1) - ordered
    ranks = torch.arange(vocabulary, device=probabilities.device)
    kept = ordered.masked_fill((before >= tops) | (ranks >= counts), 0)
    return torch.zeros_like(probabilities).scatter(-1, ids, kept)


def _told(token: int, logprobs: torch.Tensor, count: int) -> Choice:
    best = logprobs.topk(min(count, logprobs.shape[0]))
    alternatives = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Choice(token, float(logprobs[token]), tuple(alternatives))
