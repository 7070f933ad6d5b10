"""What the puller needs of others: a store on disk, and a server of models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from servery_sdk.errors import ErrorCode, ServeryError

from servery_agent.puller.decider import Served


class Unreachable(ServeryError):
    """Nobody answers there."""

    code = ErrorCode.UNAVAILABLE


class Refused(ServeryError):
    """It answers, and says why it cannot."""


class ModelStorage(Protocol):
    """Brings models to the folder that the server reads."""

    async def stored(self) -> Mapping[str, str]:
        """Return the URIs of what is there whole, by name; wait for the daemon if it is not there yet."""

    async def fetch(self, name: str, uri: str) -> None:
        """Bring a model; raises ``ServeryError`` when that does not work."""

    async def release(self, name: str) -> None:
        """Remove a model; one that is not there is removed already."""


class ModelServer(Protocol):
    """Loads what lies there."""

    def watch(self) -> AsyncIterator[Mapping[str, Served]]:
        """Yield the state of every model, at once and whenever one has changed.

        Raises:
            Unreachable: The server is not there, or has gone.
        """

    async def load(self, name: str, tag: str) -> None:
        """Load a model, or load it again; raises ``ServeryError`` when that does not work."""

    async def unload(self, name: str) -> None:
        """Unload a model; one that is not there is unloaded already."""
