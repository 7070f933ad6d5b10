"""Models that take a request as it came: whatever its client wrote reaches them, and its headers with it.

The predictor looks for ``DocumentModel`` by ``isinstance``, once, when a model was loaded.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

from servery_sdk.model import Protocol as Wire
from servery_sdk.serving import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A request that nobody has decoded.

    Attributes:
        model: The name that was asked for.
        wire: ``V1``, ``V2`` or ``GRPC_V2``.
        body: Of REST the body, JSON or what else its ``content-type`` says; of gRPC a ``ModelInferRequest``.
        headers: By name in lower case; of gRPC the metadata.
        explain: Not the answer is asked for, but what it comes from.
    """

    model: str
    wire: Wire
    body: bytes
    headers: Mapping[str, str | bytes]
    explain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back.

    Attributes:
        body: Of REST the body, or its pieces as they come; of gRPC a ``ModelInferResponse``.
        status: Of REST.
        headers: Of REST, by name in lower case, ``content-type`` among them; JSON where it is missing.
    """

    body: bytes | AsyncGenerator[bytes, None]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class DocumentModel(Protocol):
    """A model that decodes requests itself. They are not merged and do not wait for one another.

    All but ``load`` is called on the event loop: what computes is this model's to hand to a thread.
    """

    def load(self, artifact: Path) -> None:
        """Read the model from the directory ``artifact``; called in a thread.

        Raises:
            LoadError: It cannot be served.
        """

    async def begin(self) -> None:
        """Make what belongs to the event loop; called once, after ``load``.

        Raises:
            LoadError: It cannot be served.
        """

    async def is_ready(self) -> bool:
        """Return whether it would answer now."""

    async def reply(self, document: Document) -> Reply:
        """Answer one request; others are answered meanwhile. Cancelled where nobody waits any more.

        Raises:
            ServeryError: It cannot be answered; its code decides the status.
        """


AnyModel: TypeAlias = Model | DocumentModel
