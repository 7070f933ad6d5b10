"""What explainers that stand beside a predictor have in common: they explain its answers by asking it for more.

Such a model is a ``DocumentModel``: ``instances`` of a request for an explanation need not be rows of one shape.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import orjson

from servery_sdk.documents import Document, Reply
from servery_sdk.manifests import Json
from servery_sdk.model import Option, OptionKind, Protocol
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, elements, v1, v2
from servery_sdk.remote import RemotePredictor
from servery_sdk.serving import InputError, LoadError, Unimplemented

OPTIONS = (
    Option(name="predictor_host", meaning="the predictor that is asked: host or host:port"),
    Option(name="predictor_protocol", meaning="what it is asked in", choices=("v1", "v2")),
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
        self._protocol = Protocol(predictor_protocol)
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
        if document.wire not in (Protocol.V1, Protocol.V2):
            raise Unimplemented(f"an explainer speaks v1 and v2, not {document.wire}")
        headers = {name: str(value) for name, value in document.headers.items() if name in _FORWARDED}
        with RemotePredictor(
            self._host,
            document.model,
            protocol=self._protocol,
            headers=headers,
            use_ssl=self._use_ssl,
            timeout_seconds=self._timeout_seconds,
        ) as predictor:
            # Leaving the block closes the connection: the thread of one who waits no more ends at its next question.
            if not document.explain:
                return await asyncio.to_thread(_passed_on, document, predictor)
            if document.wire is Protocol.V1:
                instances = _instances(document.body)
                found = await asyncio.to_thread(self.explanation, instances, predictor)
                return Reply(body=orjson.dumps({"explanations": found}, option=orjson.OPT_SERIALIZE_NUMPY))
            length = _length(document)
            request = v2.decode_request(document.body, model=document.model, json_length=length)
            found = await asyncio.to_thread(self.explanation, self.instances(request), predictor)
        answer = InferResponse(model=document.model, id=request.id, outputs=outputs(found))
        encoded = v2.encode_response(answer, request)
        if encoded.json_length is None:
            return Reply(body=encoded.body)
        told = {"content-type": "application/octet-stream", _JSON_LENGTH: str(encoded.json_length)}
        return Reply(body=encoded.body, headers=told)

    def instances(self, request: InferRequest) -> list[Json]:
        """Return what v1 would have had as ``instances``: the rows of an only input, else one for each input.

        Raises:
            InputError: The request holds none.
        """
        found = [
            elements.to_json(tensor.data) if tensor.datatype is Datatype.BYTES else tensor.data.tolist()
            for tensor in request.inputs
        ]
        rows: Json = found[0] if len(found) == 1 else found
        if not isinstance(rows, list) or not rows:
            raise InputError(f"input {request.inputs[0].name!r} has no rows")
        return rows


def outputs(found: Json) -> tuple[Tensor, ...]:
    """Return an explanation as v2 has it: an output for each member of an object, numbers with the shape they have.

    What is no array of numbers is an element of JSON.
    """
    members = found if isinstance(found, dict) else {"explanation": found}
    return tuple(_output(name, value) for name, value in members.items())


def _output(name: str, value: Json) -> Tensor:
    try:
        data = np.atleast_1d(np.asarray(value))
    except ValueError:
        # Lists that differ in length.
        data = np.empty(0, dtype=object)
    if data.dtype.kind in "biuf":
        return Tensor(name=name, data=data, datatype=Datatype.of(data))
    document = elements.objects([orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)])
    return Tensor(name=name, data=document, datatype=Datatype.BYTES, parameters={v1.CONTENT_TYPE: v1.JSON})


_JSON_LENGTH = "inference-header-content-length"


def _length(document: Document) -> int | None:
    said = document.headers.get(_JSON_LENGTH)
    if said is None:
        return None
    if not str(said).isdecimal():
        raise InputError(f"{_JSON_LENGTH} must be a number, found {said!r}")
    return int(said)


def _passed_on(document: Document, predictor: RemotePredictor) -> Reply:
    """Return the predictor's answer to a request as it came."""
    # v1 is JSON whatever its client calls it.
    carried = ("content-type", _JSON_LENGTH) if document.wire is Protocol.V2 else ()
    sent = {name: str(document.headers[name]) for name in carried if name in document.headers}
    status, body, told = predictor.post(document.body, wire=document.wire, headers=sent)
    return Reply(body=body, status=status, headers={name: told[name] for name in carried if name in told})


def _instances(body: bytes) -> list[Json]:
    instances = v1.load(body).get("instances")
    if not isinstance(instances, list) or not instances:
        raise InputError('a request for an explanation has a list "instances" that is not empty')
    return instances
