"""OpenAI's list of models. Under ``/v1/models`` it shares its answer with KServe's v1: each client reads its own keys."""

from __future__ import annotations

from typing import Any

from servery_sdk.language import EmbeddingModel, GenerativeModel, RankingModel, TranscribingModel
from servery_sdk.serving import held

from servery_predictor.repository import Entry, Repository


def speaks_openai(entry: Entry) -> bool:
    """Return whether any of OpenAI's routes has an answer from this model; one that is not loaded has none."""
    return isinstance(held(entry.model), GenerativeModel | EmbeddingModel | RankingModel | TranscribingModel)


def card(entry: Entry) -> dict[str, Any]:
    """Return what OpenAI says of one model."""
    return {"id": entry.name, "object": "model", "created": 0, "owned_by": "servery"}


def listed(repository: Repository) -> dict[str, Any]:
    """Return OpenAI's list; empty where no model speaks it."""
    return {"object": "list", "data": [card(entry) for entry in repository.entries() if speaks_openai(entry)]}
