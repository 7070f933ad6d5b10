"""REST: requests of v1 and v2 that a batch takes, and how a batch of them is asked."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias
from urllib.parse import unquote

from servery_http.front import error
from servery_http.gateway.routes import Answer, Route
from servery_http.messages import Headers, Later, Request, Response, header
from servery_http.rpc.calls import Failure, Outcome, Status, message_of
from servery_http.rpc.client import Unsent, block_of
from servery_sdk.protocol import v2
from servery_sdk.protocol.batch import Merged

from servery_agent.batcher import instances, tensors
from servery_agent.batcher.fields import JSON_LENGTH, Manners
from servery_agent.batcher.gated import GatedChannel
from servery_agent.batcher.lanes import FAILED, WHOLE, WRONG, Apart, Asked, GiveUp, Lanes

logger = logging.getLogger(__name__)

INFER = b"/inference.GRPCInferenceService/ModelInfer"
_INFER_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
_PREDICT = ":predict"
_JSON = b"application/json"
_BINARY = b"application/octet-stream"
_WRONG = frozenset({400, 413, 422})
"""What a predictor says of input that is wrong, 422 where it is FastAPI's to say; 413 may be so of the batch alone."""
_FAILED = 500
"""What a model that raises is, and so may be of one request; what else is 5xx is of a server that is not well."""
_OF_ONE_ANSWER = frozenset(
    {b"x-request-id", b"ce-id", b"etag", b"content-md5", b"digest", b"content-digest", JSON_LENGTH}
)

_HTTP = {
    Status.CANCELLED: 499,
    Status.INVALID_ARGUMENT: 400,
    Status.DEADLINE_EXCEEDED: 504,
    Status.NOT_FOUND: 404,
    Status.ALREADY_EXISTS: 409,
    Status.PERMISSION_DENIED: 403,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.FAILED_PRECONDITION: 400,
    Status.ABORTED: 409,
    Status.OUT_OF_RANGE: 400,
    Status.UNIMPLEMENTED: 501,
    Status.UNAVAILABLE: 503,
    Status.UNAUTHENTICATED: 401,
}
"""Source: google.rpc.Code; what is not here is 500."""

Pieces: TypeAlias = Sequence[bytes | memoryview]


class Ask(Protocol):
    """Asks the server behind."""

    def __call__(self, request: Request, body: Pieces = ()) -> Later:
        """Return its answer to come; ``body`` is instead of the request's own."""


class RestAsked(Asked):
    """A request and who waits for its answer."""

    __slots__ = ("kept", "later", "request")

    def __init__(self, key: Hashable, rows: int, request: Request, kept: Headers) -> None:
        super().__init__(key, rows)
        self.request = request
        self.kept = kept
        self.later = Later(self.give_up)


class _V1Asked(RestAsked):
    __slots__ = ("part",)
    part: instances.Part


class _V2Asked(RestAsked):
    __slots__ = ("part",)
    part: tensors.Part


class _Rest:
    """What v1 and v2 share."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def answer(self, asked: RestAsked, outcome: Response) -> None:
        asked.later.answer(outcome)

    def is_failure(self, outcome: Response) -> bool:
        return outcome.status >= 500

    def late(self, seconds: float) -> Response:
        return error(504, f"the predictor did not answer the batch within {seconds:g} s")

    def full(self, most: int) -> Response:
        full = error(429, f"{most} requests wait for the predictor, which is the limit; ask again later")
        full.headers = ((b"retry-after", b"1"),)
        return full

    def _send(self, request: Request, done: Callable[[Response], None], body: Pieces = ()) -> GiveUp:
        later = self._ask(request, body)
        # Cancelled by us alone, who then say why; nobody hears it from here.
        later.then(lambda response: None if response is None else done(response))
        return later.cancel

    def _together(
        self,
        asked: Sequence[RestAsked],
        body: Pieces,
        more: Headers,
        split: Callable[[Response], Sequence[Response] | None],
        done: Callable[[Sequence[Response] | Apart], None],
    ) -> GiveUp:
        first = asked[0].request
        host = header(first.headers, b"host") or b"localhost"
        headers = [(b"host", host), (b"accept", b"*/*"), *asked[0].kept, *more]

        def on_answer(response: Response) -> None:
            if response.status in _WRONG:
                done(Apart(WRONG))
            elif response.status == _FAILED:
                done(Apart(FAILED))
            elif response.status != 200:
                done([_copy(response) for _ in asked])
            else:
                parts = split(response)
                done(Apart(WHOLE) if parts is None else parts)

        return self._send(Request(first.method, first.path, first.query, headers, b""), on_answer, body)


def _copy(response: Response) -> Response:
    # Each caller's own: the front adds its request id. What identifies the batch's is nobody's.
    headers = tuple(one for one in response.headers if one[0] not in {b"x-request-id", b"ce-id"})
    return Response(response.status, response.body, response.content_type, headers)


def _kept(response: Response) -> Headers:
    return tuple(one for one in response.headers if one[0] not in _OF_ONE_ANSWER)


class V1(_Rest):
    """``:predict`` of any model."""

    def alone(self, asked: _V1Asked, done: Callable[[Response], None]) -> GiveUp:
        """Send it as it came; the answer has what KServe's batcher adds."""

        def on_answer(response: Response) -> None:
            if response.status == 200 and header(response.headers, b"content-encoding") is None:
                response.body = instances.alone(response.body)
            done(response)

        return self._send(asked.request, on_answer)

    def together(self, asked: Sequence[_V1Asked], done: Callable[[Sequence[Response] | Apart], None]) -> GiveUp:
        """Send all instances as those of one request."""
        parts = [one.part for one in asked]

        def split(response: Response) -> Sequence[Response] | None:
            bodies = instances.split(response.body, [part.rows for part in parts])
            if bodies is None:
                return None
            headers = _kept(response)
            return [Response(200, body, response.content_type, headers) for body in bodies]

        return self._together(asked, instances.merged(parts), ((b"content-type", _JSON),), split, done)


@dataclass(frozen=True, slots=True)
class _V2Batch:
    """Requests that go as one, by whichever wire."""

    asked: Sequence[_V2Asked]
    parts: Sequence[tensors.Part]
    merged: Merged
    done: Callable[[Sequence[Response] | Apart], None]


class V2(_Rest):
    """``infer`` of any model: by gRPC where the predictor speaks that."""

    def __init__(self, ask: Ask, channel: GatedChannel) -> None:
        super().__init__(ask)
        self._channel = channel

    def alone(self, asked: _V2Asked, done: Callable[[Response], None]) -> GiveUp:
        """Send it as it came."""
        return self._send(asked.request, done)

    def together(self, asked: Sequence[_V2Asked], done: Callable[[Sequence[Response] | Apart], None]) -> GiveUp:
        """Send all tensors as those of one request."""
        parts = [one.part for one in asked]
        batch = _V2Batch(asked, parts, tensors.merged(parts), done)
        if all(part.to_grpc for part in parts) and self._channel.is_spoken:
            return self._by_grpc(batch)
        return self._by_rest(batch)

    def _by_rest(self, batch: _V2Batch) -> GiveUp:
        parts, offsets = batch.parts, batch.merged.offsets
        encoded = tensors.rest_body(batch.merged.request, parts)

        def split(response: Response) -> Sequence[Response] | None:
            said = header(response.headers, JSON_LENGTH)
            length = int(said) if said is not None and said.isdigit() else None
            return _answers(tensors.rest_from_rest(response.body, length, offsets, parts), _kept(response))

        return self._together(batch.asked, (encoded.body,), _typed(encoded), split, batch.done)

    def _by_grpc(self, batch: _V2Batch) -> GiveUp:
        asked, done = batch.asked, batch.done
        give_up: GiveUp

        def on_done(outcome: Outcome) -> None:
            nonlocal give_up
            if not isinstance(outcome, Failure):
                answers = _answers(tensors.rest_from_grpc(message_of(outcome), batch.merged.offsets, batch.parts), ())
                done(Apart(WHOLE) if answers is None else answers)
            elif outcome.status is Status.INVALID_ARGUMENT:
                done(Apart(WRONG))
            elif isinstance(outcome, Unsent) or outcome.status is Status.UNIMPLEMENTED:
                give_up = self._by_rest(batch)
            elif (status := _HTTP.get(outcome.status, _FAILED)) == _FAILED:
                done(Apart(FAILED))
            else:
                done([error(status, str(outcome)) for _ in asked])

        metadata = tuple(one for one in asked[0].kept if one[0] not in _NOT_METADATA)
        message = tensors.grpc_message(batch.merged.request, raw=True)
        give_up = self._channel.ask(block_of(INFER, metadata), message, on_done)
        return lambda: give_up()


_NOT_METADATA = frozenset({b"proxy-connection", b"upgrade", b"content-encoding"})


def _typed(encoded: v2.Encoded) -> Headers:
    if encoded.json_length is None:
        return ((b"content-type", _JSON),)
    return ((b"content-type", _BINARY), (JSON_LENGTH, b"%d" % encoded.json_length))


def _answers(encoded: Sequence[v2.Encoded] | None, kept: Headers) -> list[Response] | None:
    if encoded is None:
        return None
    return [
        Response(200, one.body, _JSON, kept)
        if one.json_length is None
        else Response(200, one.body, _BINARY, (*kept, (JSON_LENGTH, b"%d" % one.json_length)))
        for one in encoded
    ]


class RestRoutes:
    """Finds what a batch may take."""

    def __init__(self, v1: Lanes[_V1Asked, Response], v2: Lanes[_V2Asked, Response]) -> None:
        self._v1 = v1
        self._v2 = v2
        self._manners = Manners()

    def __call__(self, method: str, path: str) -> Route | None:
        """Return the route of a request for inference; None for all others, which pass by."""
        if method != "POST":
            return None
        answer: Answer
        if path.endswith(_PREDICT):
            answer = self._predict
        elif found := _INFER_PATH.fullmatch(path):
            answer = partial(self._infer, unquote(found[1]), found[2] and unquote(found[2]))
        else:
            return None
        return Route(answer=answer)

    def _predict(self, request: Request) -> Later:
        manner = self._manners(request.headers)
        part = None
        if manner.key is not None and manner.json_length is None:
            part = instances.part(request.body)
        if part is None:
            asked = _V1Asked(None, 1, request, manner.kept)
        else:
            asked = _V1Asked((part.key, manner.key, request.query), part.rows, request, manner.kept)
            asked.part = part
        self._v1.submit(request.path, asked)
        return asked.later

    def _infer(self, model: str, version: str | None, request: Request) -> Later:
        manner = self._manners(request.headers)
        part = None
        if manner.key is not None:
            part = tensors.of_rest(request.body, model=model, version=version, json_length=manner.json_length)
        if part is None:
            asked = _V2Asked(None, 1, request, manner.kept)
        else:
            asked = _V2Asked((part.key, manner.key, request.query), part.rows, request, manner.kept)
            asked.part = part
        self._v2.submit(request.path, asked)
        return asked.later
