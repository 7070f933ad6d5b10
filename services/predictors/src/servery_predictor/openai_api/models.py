"""OpenAI's list of models. Under ``/v1/models`` it shares its answer with KServe's v1: each client reads its own keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servery_sdk.language import EmbeddingModel, GenerativeModel, RankingModel, SpeakingModel, TranscribingModel
from servery_sdk.serving import held

from servery_predictor.repository import Entry, Repository


def speaks_openai(entry: Entry) -> bool:
    """Return whether any of OpenAI's routes has an answer from this model; one that is not loaded has none."""
    abilities = GenerativeModel | EmbeddingModel | RankingModel | SpeakingModel | TranscribingModel
    return isinstance(held(entry.model), abilities)


def card(entry: Entry) -> dict[str, Any]:
    """Return what OpenAI says of one model."""
    return {"id": entry.name, "object": "model", "created": 0, "owned_by": "servery"}


async def listed(repository: Repository) -> dict[str, Any]:
    """Return OpenAI's list; empty where no model speaks it."""
    if repository.brings_application:
        cards = [found for _, model in repository.applications() for found in await model.cards()]
    else:
        cards = [card(entry) for entry in repository.entries() if speaks_openai(entry)]
    return {"object": "list", "data": cards}


async def found(repository: Repository, name: str) -> Mapping[str, Any]:
    """Return what OpenAI says of ``name``, which may be an adapter's.

    Raises:
        UnknownModel: Nobody's; says which models there are.
    """
    told = (await listed(repository))["data"] if repository.brings_application else ()
    return next((each for each in told if each["id"] == name), None) or card(repository.entry(name))
