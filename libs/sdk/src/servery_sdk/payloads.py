"""Where payload logs go: what is logged, and what a sink of it does. An agent finds sinks by their URL's scheme."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


class Part(enum.StrEnum):
    """Which half of an exchange."""

    REQUEST = "request"
    RESPONSE = "response"

    @property
    def event_type(self) -> str:
        """Return the CloudEvents type. Source: KServe pkg/logger/worker.go."""
        return f"org.kubeflow.serving.inference.{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What all events of one agent say of where they come from; empty where nobody said.

    Attributes:
        source: CloudEvents' ``source``, a URI reference.
        endpoint: KServe's word for ``default`` or ``canary``.
        annotations: Of the pod, as a manifest asks for them.
    """

    source: str
    inference_service: str = ""
    namespace: str = ""
    component: str = ""
    endpoint: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class PayloadEvent:
    """A request or a response. Not frozen: thousands are made each second, and a frozen one costs a microsecond more.

    Attributes:
        id: Of the exchange, so request and response share it.
        occurred: Seconds since 1970.
        body: A long one may be a view, which nobody has once ``send`` has returned: copy what is to be kept.
        recorded: Likewise: when it was taken from the spool to be sent.
        subject: Path that was asked.
        status: Of the answer; 0 with a request. Of gRPC, what HTTP/2 says, which is 200.
        metadata: Headers of the request that are logged, each with its values.
        is_whole: False where the body was cut at the size bound, or broke off.
        is_withheld: The body is left out, for what should be redacted in it could not be found.
    """

    id: str
    part: Part
    occurred: float
    content_type: str
    body: bytes | memoryview
    recorded: float = 0.0
    subject: str = ""
    status: int = 0
    metadata: Mapping[str, list[str]] | None = None
    is_whole: bool = True
    is_withheld: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkTarget:
    """What a sink is opened with.

    Attributes:
        url: The whole URL, whose scheme is one of the sink's.
        timeout_seconds: For one event or object.
        workers: Events that may be on their way at once.
        is_structured: CloudEvents in structured mode, instead of binary.
        ca_file: Certificates to trust, instead of the system's.
    """

    url: str
    origin: Origin
    timeout_seconds: float = 30.0
    workers: int = 5
    is_structured: bool = False
    ca_file: Path | None = None
    verifies_tls: bool = True


@runtime_checkable
class EventOutlet(Protocol):
    """Takes event by event, ``SinkTarget.workers`` at once."""

    async def send(self, event: PayloadEvent) -> None:
        """Return once the other side has it; it may be sent again with the same id.

        Raises:
            Transient: It may take it later.
            Permanent: It never will: the event is put aside, and the next is sent.
        """

    async def close(self) -> None:
        """Let go of connections."""


@runtime_checkable
class ObjectOutlet(Protocol):
    """Takes objects with many events each; what they are called and how they are written is the agent's to say."""

    async def put(self, key: str, content: bytes, content_type: str) -> None:
        """Store an object under ``key``, below what the target's URL names; one that is there is replaced.

        Raises:
            Transient: It may take it later; so is what somebody may mend, as credentials.
            Permanent: It never will.
        """

    async def close(self) -> None:
        """Let go of connections."""


class PayloadSink(Protocol):
    """A kind of place for payload logs.

    Attributes:
        schemes: Of URLs that are its own.
    """

    name: str
    schemes: frozenset[str]

    def open(self, target: SinkTarget) -> EventOutlet | ObjectOutlet:
        """Return the way there; nothing is sent yet. Called inside a running loop.

        Raises:
            Permanent: The URL cannot be one.
        """
