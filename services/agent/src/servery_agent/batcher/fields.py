"""What the headers of a request, or the metadata of a call, mean for a batch. Remembered, as clients repeat them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

from servery_http.messages import Headers, header

JSON_LENGTH = b"inference-header-content-length"
_MOST_KNOWN = 512

_OF_ONE = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"b3",
        b"baggage",
        b"ce-id",
        b"connection",
        b"content-length",
        b"content-type",
        b"dnt",
        b"expect",
        b"forwarded",
        b"grpc-accept-encoding",
        b"grpc-encoding",
        b"grpc-timeout",
        b"host",
        b"keep-alive",
        b"priority",
        b"referer",
        b"te",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
        b"user-agent",
        b"via",
        JSON_LENGTH,
    }
)
_OF_ONE_BEGIN = (b":", b"x-b3-", b"x-envoy-", b"x-forwarded-", b"x-real-ip", b"x-request-id", b"sec-")
"""Headers that tell of one client, connection, message or trace, and change no model's answer: those of requests that
go together may differ, and do not go with them."""

_PLAIN = frozenset({b"", b"application/json", b"application/octet-stream", b"text/json"})
"""Content types that go together; others may be envelopes, such as CloudEvents, and go alone. No type at all, and what
``curl -d`` says, are taken for JSON, as predictors take them."""
_CURLS = b"application/x-www-form-urlencoded"
_EVENT = b"ce-specversion"
"""Of a CloudEvent whose attributes are headers: its answer may be one as well, and goes alone."""
_MADE = frozenset({b"x-request-id", b"ce-id"})


@dataclass(frozen=True, slots=True)
class Manner:
    """How a request is asked.

    Attributes:
        key: What requests that go together have equal; None for one that goes alone.
        kept: Headers that go with a batch.
        json_length: Of a v2 body with binary tensors.
    """

    key: Hashable
    kept: Headers
    json_length: int | None = None


class Manners:
    """What headers mean, by themselves."""

    def __init__(self) -> None:
        self._known: dict[Headers, Manner] = {}

    def __call__(self, headers: Iterable[tuple[bytes, bytes]]) -> Manner:
        """Return the manner that ``headers`` tell."""
        asked = tuple(headers)
        # Where the client brought no id, one has been made for it, and stands last; so does the payload log's.
        while asked and asked[-1][0] in _MADE:
            asked = asked[:-1]
        manner = self._known.get(asked)
        if manner is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            manner = self._known[asked] = _manner(asked)
        return manner


def _manner(headers: Headers) -> Manner:
    kept = that_matter(headers)
    length = header(headers, JSON_LENGTH)
    kind = (header(headers, b"content-type") or b"").partition(b";")[0].strip().lower()
    is_plain = (kind in _PLAIN or kind == _CURLS) and header(headers, b"content-encoding") in {None, b"identity"}
    is_plain = is_plain and header(headers, _EVENT) is None
    if not is_plain or (length is not None and not length.isdigit()):
        return Manner(None, kept)
    return Manner(kept, kept, None if length is None else int(length))


def that_matter(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers that requests must have equal to go together, in a settled order."""
    return tuple(sorted(one for one in headers if one[0] not in _OF_ONE and not one[0].startswith(_OF_ONE_BEGIN)))
