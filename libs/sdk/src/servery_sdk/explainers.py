"""What explainers that stand beside a predictor have in common: they explain its answers by asking it for more.

Such a model is a ``DocumentModel``: ``instances`` of a request for an explanation need not be rows of one shape.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from pathlib import Path

import orjson

from servery_sdk.documents import Document, Reply
from servery_sdk.manifests import Json
from servery_sdk.model import Option, OptionKind, Protocol
from servery_sdk.protocol import v1
from servery_sdk.remote import RemotePredictor
from servery_sdk.serving import InputError, LoadError, Unimplemented

OPTIONS = (
    Option(name="predictor_host", meaning="the predictor that is asked: host or host:port"),
    Option(name="predictor_protocol", meaning="what it is asked in", choices=("v1",)),
    Option(name="predictor_use_ssl", meaning="it speaks TLS", kind=OptionKind.SWITCH),
    Option(name="predictor_request_timeout_seconds", meaning="how long it may take to answer", kind=OptionKind.INTEGER),
)
"""KServe's flags; ``RemoteExplainer`` takes them as keywords."""

_FORWARDED = frozenset({"authorization", "x-request-id", "x-b3-traceid"})
"""Headers of a client that its predictor is to see (KServe's list)."""


class RemoteExplainer(ABC):
    """Answers ``:explain`` by asking a predictor; ``:predict`` is passed on to it as it is."""

    def __init__(
        self,
        *,
        predictor_host: str = "",
        predictor_protocol: str = "v1",
        predictor_use_ssl: bool = False,
        predictor_request_timeout_seconds: int = 600,
    ) -> None:
        del predictor_protocol  # There is one.
        self._host = predictor_host
        self._use_ssl = predictor_use_ssl
        self._timeout_seconds = predictor_request_timeout_seconds

    @abstractmethod
    def explanation(self, instances: list[Json], predictor: RemotePredictor) -> Json:
        """Return where the predictor's answers to ``instances`` come from; called in a thread, beside others.

        Raises:
            ServeryError: It cannot be said.
        """

    def load(self, artifact: Path) -> None:
        """Read what the explainer needs from ``artifact``; there may be no such directory.

        Raises:
            LoadError: It cannot explain.
        """
        if not self._host:
            raise LoadError("--predictor_host is missing: an explainer asks a predictor")

    async def begin(self) -> None:
        """Do nothing: nothing here belongs to the event loop."""
        return

    async def is_ready(self) -> bool:
        """Return True: whether the predictor answers is its own to say."""
        return True

    async def reply(self, document: Document) -> Reply:
        """Return the explanation, or the predictor's own answer.

        Raises:
            ServeryError: There is none; says whether the request or the predictor is to blame.
        """
        if document.wire is not Protocol.V1:
            raise Unimplemented(f"an explainer speaks v1, not {document.wire}")
        headers = {name: str(value) for name, value in document.headers.items() if name in _FORWARDED}
        with RemotePredictor(
            self._host, document.model, headers=headers, use_ssl=self._use_ssl, timeout_seconds=self._timeout_seconds
        ) as predictor:
            # Leaving the block closes the connection: the thread of one who waits no more ends at its next question.
            if not document.explain:
                status, body = await asyncio.to_thread(predictor.post, document.body)
                return Reply(body=body, status=status)
            instances = _instances(document.body)
            found = await asyncio.to_thread(self.explanation, instances, predictor)
        return Reply(body=orjson.dumps({"explanations": found}, option=orjson.OPT_SERIALIZE_NUMPY))


def _instances(body: bytes) -> list[Json]:
    instances = v1.load(body).get("instances")
    if not isinstance(instances, list) or not instances:
        raise InputError('a request for an explanation has a list "instances" that is not empty')
    return instances
