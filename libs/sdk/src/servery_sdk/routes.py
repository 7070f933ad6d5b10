"""Paths of a runtime's own, for the clients of the server that its format comes from.

v1, v2 and OpenAI are the predictor's. A model class that is a ``RoutedModel`` adds what its users' tools ask beside
them: values here, answered over what the predictor lends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from google.protobuf.message import Message

from servery_sdk.model import ModelState
from servery_sdk.protocol import InferRequest, InferResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request.

    Attributes:
        path: What stands in the path for the route's names, without percent-encoding.
        query: Parameters behind ``?``; of one that is given twice, the last.
        headers: Names in lower case.
    """

    path: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Its answer."""

    status: int = 200
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Handle: TypeAlias = Callable[[Asked], Awaitable[Answer]]
"""Raises ``ServeryError`` for what the predictor shall refuse in its own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path and who answers it.

    Attributes:
        path: ``/predictions/{model}``; a name in braces stands for anything but ``/``.
        summary: What it does, for whoever reads the API's description; and so are the others.
        takes: Media types of bodies that it reads.
        query: What parameters behind ``?`` mean, by name.
        failures: What statuses mean.
    """

    method: str
    path: str
    handle: Handle
    summary: str = ""
    takes: tuple[str, ...] = ()
    query: Mapping[str, str] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A method of a gRPC service and who answers it.

    Attributes:
        name: ``Predictions``.
        request: The kind of message that comes.
        handle: Takes a message and returns one; raises ``ServeryError`` for what shall be refused. Where messages are
            streamed, it takes them as they come, or yields them.
    """

    name: str
    request: type[Message]
    handle: Callable[[Any], Any]
    takes_stream: bool = False
    gives_stream: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcService:
    """A gRPC service, by its full name."""

    name: str
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossOrigin:
    """Pages of which origins may ask, by which methods, with which headers; ``*`` is any."""

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]

    @staticmethod
    def listed(text: str) -> tuple[str, ...]:
        """Return what stands between commas."""
        return tuple(part for item in text.split(",") if (part := item.strip()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where routes are answered, or services: a listener has one or the other.

    Attributes:
        services: gRPC's.
        port: None for the predictor's own, as also where that port is this one.
        is_local: Only programs on the same machine may connect; means nothing without a port.
        tells_metrics: ``/metrics`` is answered here, too.
        cross_origin: None for the predictor's.
    """

    routes: tuple[Route, ...] = ()
    services: tuple[RpcService, ...] = ()
    port: int | None = None
    is_local: bool = False
    tells_metrics: bool = False
    cross_origin: CrossOrigin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that the predictor knows.

    Attributes:
        reason: Why it failed to load, in the failure's own words.
        loaded: The object of the runtime's model class; None where it is not loaded.
    """

    name: str
    state: ModelState
    reason: str
    loaded: object | None


class Host(Protocol):
    """What the predictor lends to routes."""

    @property
    def is_alone(self) -> bool:
        """Whether this process's models are the only ones: others would not see what changes in an object here."""

    @property
    def is_ready(self) -> bool:
        """Whether every model that was not unloaded answers, one at least."""

    def models(self) -> tuple[ServedModel, ...]:
        """Return every known model, by name."""

    def model(self, name: str, version: str | None = None) -> ServedModel:
        """Return one model.

        Raises:
            ServeryError: NOT_FOUND; says what is here.
        """

    async def infer(self, request: InferRequest, *, protocol: str, explain: bool = False) -> InferResponse:
        """Return a model's answer, computed together with everybody else's.

        Args:
            protocol: Under which it is counted.
            explain: Ask for what the answer comes from.

        Raises:
            ServeryError: As every protocol tells it.
        """

    async def load(self, name: str) -> None:
        """Load a model in every process, or load it again; of a ``ModelStore`` also one that it holds back.

        Raises:
            ServeryError: NOT_FOUND, or it cannot be served.
        """

    async def unload(self, name: str) -> None:
        """Finish what is in flight and give the model back, in every process.

        Raises:
            ServeryError: NOT_FOUND.
        """
