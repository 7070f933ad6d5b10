"""Models that bring a web application: that of the engine which runs them, mounted in the predictor.

OpenAI's paths, and those that nobody else answers, are then the application's. The predictor looks at the runtime's class
before anything is loaded: whether it is an ``ApplicationModel`` is known from the start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias, runtime_checkable

from servery_sdk.manifests import Json

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
"""Source: ASGI 3.0, "Applications"."""


@runtime_checkable
class ApplicationModel(Protocol):
    """A model with an application of its own. All of this is called on the event loop."""

    async def begin(self) -> None:
        """Make what belongs to the event loop; called once, after ``load``.

        Raises:
            LoadError: It cannot be served.
        """

    def application(self) -> Application:
        """Return what answers; paths come without the ``/openai`` of KServe's routes."""

    async def cards(self) -> Sequence[Mapping[str, Json]]:
        """Return what OpenAI's list of models says: its names, and those of its adapters."""

    def failure(self) -> str | None:
        """Return why it will never answer again, such as that its engine's process died; None while all is well."""
