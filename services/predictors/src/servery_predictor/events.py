"""CloudEvents in place of bare v1 requests, and events as their answers.

Source: CloudEvents 1.0, HTTP protocol binding (binary and structured mode); KServe's model server, ``dataplane.py``
and ``create_response_cloudevent``, whose ``CE_*`` variables the settings are.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import unquote

import orjson
from servery_http.front import error
from servery_http.manners import Answering, Manner, changed
from servery_http.messages import Handler, Request, Response, header
from servery_sdk.manifests import Json

STRUCTURED = b"application/cloudevents+json"
_PREFIX = b"ce-"
_VERSION = b"ce-specversion"
_REQUIRED = (_VERSION, b"ce-id", b"ce-source", b"ce-type")
_VERSIONS = frozenset({"0.3", "1.0"})
_MEMBERS = frozenset({"specversion", "id", "source", "type", "data"})
_ITS_OWN = frozenset({"id", "time", "data", "datacontenttype"})
"""Of an event, and not of one that answers it."""
_PATH = "/v1/models/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """How events are answered.

    Attributes:
        type: Of answers.
        source: Of answers; empty for ``io.kserve.inference.<model>``.
        is_merged: Answers have the other attributes of their requests, extensions among them.
    """

    type: str = "io.kserve.inference.response"
    source: str = ""
    is_merged: bool = False

    def manner(self) -> Manner:
        """Return that of binary mode: attributes are headers, the body is the data."""
        return Manner(frozenset({_VERSION}), self._wrap)

    def _wrap(self, handler: Handler) -> Handler:
        def answer(request: Request) -> Answering:
            sent = dict(request.headers)
            if not request.path.startswith(_PATH) or any(name not in sent for name in _REQUIRED):
                return handler(request)
            version = sent[_VERSION].decode("latin-1")
            if version not in _VERSIONS:
                return error(400, f"ce-specversion: {version!r} is none of: {', '.join(sorted(_VERSIONS))}")
            came = {
                name[len(_PREFIX) :].decode("latin-1"): value.decode("latin-1")
                for name, value in request.headers
                if name.startswith(_PREFIX)
            }
            return changed(handler(request), lambda response: self._binary(response, request, came))

        return answer

    def structured(self, request: Request, handler: Handler) -> Answering | None:
        """Return the answer to an event whose body is all of it; None where ``request`` is none.

        For requests that ``handler`` could not read: an event has no ``instances`` of its own.
        """
        kind = (header(request.headers, b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind not in {STRUCTURED, b"application/json"}:
            return None
        try:
            event = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return None
        # "time" may be left out of an event; what only looks like one must have it for KServe.
        if not isinstance(event, dict) or not event.keys() >= (_MEMBERS if kind == STRUCTURED else _MEMBERS | {"time"}):
            return None
        # Without headers it is no event again, however deep it holds others.
        answering = handler(replace(request, body=orjson.dumps(event["data"]), headers=[]))
        if kind != STRUCTURED:
            return answering
        return changed(answering, lambda response: self._structured(response, request, event))

    def _binary(self, response: Response, request: Request, came: Mapping[str, Json]) -> Response:
        # A model that reads events by itself, as KServe's do, has answered with one.
        if response.status != 200 or header(response.headers, _VERSION) is not None:
            return response
        told = tuple(
            (_PREFIX + name.encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in self._attributes(request, came).items()
        )
        return replace(response, headers=(*response.headers, *told))

    def _structured(self, response: Response, request: Request, came: Mapping[str, Json]) -> Response:
        if response.status != 200:
            return response
        event = {**self._attributes(request, came), "data": orjson.Fragment(response.body)}
        return replace(response, body=orjson.dumps(event), content_type=STRUCTURED)

    def _attributes(self, request: Request, came: Mapping[str, Json]) -> dict[str, Json]:
        kept = {name: value for name, value in came.items() if name not in _ITS_OWN} if self.is_merged else {}
        model = unquote(request.path.removeprefix(_PATH).rpartition(":")[0])
        return {
            "specversion": "1.0",
            **kept,
            "id": str(uuid.uuid4()),
            "source": self.source or f"io.kserve.inference.{model}",
            "type": self.type,
            "time": datetime.now(UTC).isoformat(),
        }
