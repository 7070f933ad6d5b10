"""Sees exchanges go by and makes records of them. What is called here is called between a read and a write."""

from __future__ import annotations

import asyncio
import json
import random
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from servery_http.gateway.heads import AnswerHead, RequestHead
from servery_http.http2.headers import Fields, first
from servery_http.messages import header
from servery_sdk.payloads import Part

from servery_agent.payloads.ledger import Count, Ledger
from servery_agent.payloads.records import MAX_ID_BYTES, head_of
from servery_agent.payloads.spool import BLOCK_BYTES, LONG_BYTES, Batch

FLUSH_SECONDS = 0.002
"""That a record waits in memory, which a killed agent loses. Few are written at once: what comes meanwhile waits for them."""
_KNOWN_HEADS = 512
_SCALE = 2**32
_JSON = b"application/json"
_BINARY = b"application/octet-stream"
_HEALTH = "/grpc.health.v1.Health/"
"""What kubelet's probes of kind ``grpc`` ask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What is logged.

    Attributes:
        share: Of the exchanges, from 0 to 1. Decided by the id: who logs the same id elsewhere decides the same.
        max_body_bytes: Of a body; the rest of it is left out.
        headers: Names in lower case, of the request's headers that go along, to how they are spelled in the log.
    """

    parts: frozenset[Part] = frozenset(Part)
    share: float = 1.0
    max_body_bytes: int = 1024 * 1024
    headers: Mapping[str, str]


class Records:
    """What waits to be handed to the spool's thread, within a bound.

    Args:
        taken_bytes: How many bytes the thread has let go of.
        put: Hands a list over.
    """

    def __init__(
        self, ledger: Ledger, max_bytes: int, put: Callable[[Batch], None], taken_bytes: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._max_bytes = max_bytes
        self._put = put
        self._taken_bytes = taken_bytes
        self._given_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._number = ledger[Count.ACCEPTED]
        self._waiting: Batch | None = None
        self._is_timed = False

    @property
    def held_bytes(self) -> int:
        """What is in memory now."""
        return self._given_bytes - self._taken_bytes()

    def append(
        self,
        part: Part,
        occurred: float,
        status: int,
        identified: bytes,
        content_type: bytes,
        subject: bytes,
        metadata: bytes,
        body: Sequence[bytes | memoryview],
        *,
        is_whole: bool,
    ) -> None:
        """Add a record, its body in pieces, or count that there was no room for it."""
        size = sum(map(len, body))
        if self._given_bytes - self._taken_bytes() + size > self._max_bytes:
            self._ledger.add(Count.DROPPED_QUEUE_FULL)
            return
        self._number = number = self._number + 1
        self._ledger[Count.ACCEPTED] = number
        batch = self._waiting
        if batch is None:
            self._waiting = batch = Batch(number)
            if not self._is_timed:
                self._is_timed = True
                self._loop.call_later(FLUSH_SECONDS, self._flush_in_time)
        head = head_of(
            number, part, occurred, status, identified, content_type, subject, metadata, size, is_whole=is_whole
        )
        batch.add(head, *body)
        self._given_bytes += len(head) + size
        if batch.size >= BLOCK_BYTES:
            # Written while the processor's cache still has it, and no more is held than need be.
            self.flush()

    def _flush_in_time(self) -> None:
        self._is_timed = False
        self.flush()

    def flush(self) -> None:
        """Hand over what waits."""
        batch, self._waiting = self._waiting, None
        if batch is not None:
            self._put(batch)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a request's head means to the log."""

    identified: bytes | None
    content_type: bytes
    subject: bytes
    metadata: bytes


class Capture:
    """Makes the watcher of each exchange."""

    def __init__(self, selection: Selection, records: Records) -> None:
        self.selection = selection
        self.records = records
        self._wants_all = selection.share >= 1
        self._heads: dict[RequestHead, _Seen | None] = {}
        self._answers: dict[AnswerHead, tuple[bytes, bool]] = {}
        self._bits = random.Random(random.SystemRandom().getrandbits(128)).getrandbits  # noqa: S311  # ids are unique, not secret

    def watch(self, head: RequestHead, _request_id: bytes) -> Exchange | None:
        """Return who watches an exchange; None of a probe, an upgrade, or one that is not in the sample."""
        try:
            seen = self._heads[head]
        except KeyError:
            seen = self._see(head)
        return None if seen is None else self._sampled(seen)

    def watch_call(self, fields: Fields) -> Exchange | None:
        """Return who watches a call by HTTP/2; likewise."""
        path = (first(fields, b":path") or b"").partition(b"?")[0].decode("latin-1")
        is_health = path.startswith(_HEALTH)
        seen = None if is_health or first(fields, b"k-network-probe") is not None else self.seen(path, list(fields))
        return None if seen is None else self._sampled(seen)

    def _sampled(self, seen: _Seen) -> Exchange | None:
        identified = seen.identified or self.new_id()
        if not (self._wants_all or self._is_in_sample(identified)):
            return None
        return Exchange(self, identified, seen, is_new=seen.identified is None)

    def _is_in_sample(self, identified: bytes) -> bool:
        return zlib.crc32(identified) < self.selection.share * _SCALE

    def new_id(self) -> bytes:
        """Return a UUID of version 4."""
        bits = self._bits(122)
        return b"%08x-%04x-4%03x-%04x-%012x" % (
            bits >> 90,
            bits >> 74 & 0xFFFF,
            bits >> 62 & 0xFFF,
            bits >> 48 & 0x3FFF | 0x8000,
            bits & 0xFFFFFFFFFFFF,
        )

    def _see(self, head: RequestHead) -> _Seen | None:
        if len(self._heads) >= _KNOWN_HEADS:
            self._heads.clear()
        self._heads[head] = seen = (
            None if head.probe is not None or head.upgrade else self.seen(head.path, head.fields())
        )
        return seen

    def seen(self, path: str, fields: list[tuple[bytes, bytes]]) -> _Seen | None:
        """Return what a request's headers mean to the log; None of a kubelet's probe."""
        if (header(fields, b"user-agent") or b"").startswith(b"kube-probe/"):
            return None
        identified = header(fields, b"ce-id")
        if identified is not None and not 0 < len(identified) <= MAX_ID_BYTES:
            identified = None
        logged: dict[str, list[str]] = {}
        for name, value in fields:
            spelled = self.selection.headers.get(name.decode("latin-1"))
            if spelled is not None:
                logged.setdefault(spelled, []).append(value.decode("latin-1"))
        return _Seen(
            identified,
            header(fields, b"content-type") or _JSON,
            path.encode("latin-1"),
            json.dumps(logged).encode() if logged else b"",
        )

    def answer(self, head: AnswerHead | None) -> tuple[bytes, bool]:
        """Return an answer's content type, and whether it has a Ce-Id of its own."""
        if head is None:
            return _JSON, False
        found = self._answers.get(head)
        if found is None:
            fields = head.fields()
            found = header(fields, b"content-type") or _BINARY, header(fields, b"ce-id") is not None
            if len(self._answers) >= _KNOWN_HEADS:
                self._answers.clear()
            self._answers[head] = found
        return found


class _Half:
    """A request's body or an answer's, as far as there is room for it."""

    __slots__ = ("_pieces", "_room", "is_whole")

    def __init__(self, room: int) -> None:
        self._pieces: list[bytes | memoryview] = []
        self._room = room
        self.is_whole = True

    def keep(self, piece: bytes | memoryview) -> None:
        """Take the next piece."""
        if len(piece) > self._room:
            self.is_whole = False
            # By itself: a view of it keeps the rest.
            piece = bytes(piece[: self._room])
        self._room -= len(piece)
        self._pieces.append(piece)

    def pieces(self) -> list[bytes | memoryview]:
        """Return the body; long pieces need not be copied into one."""
        pieces = self._pieces
        if len(pieces) > 1 and sum(map(len, pieces)) < LONG_BYTES * len(pieces):
            return [b"".join(pieces)]
        return pieces


def _pass(_piece: bytes | memoryview) -> None:
    """Keep nothing."""


class Exchange:
    """Watches one exchange, of HTTP/1.1 or HTTP/2.

    Attributes:
        on_request_piece: See a piece of the request's body.
        on_answer_piece: Likewise of the answer's.
    """

    __slots__ = (
        "_answer",
        "_answer_type",
        "_capture",
        "_identified",
        "_occurred",
        "_request",
        "_seen",
        "_status",
        "on_answer_piece",
        "on_request_piece",
        "to_client",
        "to_server",
    )

    def __init__(self, capture: Capture, identified: bytes, seen: _Seen, *, is_new: bool) -> None:
        self._capture = capture
        self._identified = identified
        self._seen = seen
        self._occurred = time.time()
        selection = capture.selection
        # Of a half that is not logged, None.
        self._request = _Half(selection.max_body_bytes) if Part.REQUEST in selection.parts else None
        self._answer = _Half(selection.max_body_bytes) if Part.RESPONSE in selection.parts else None
        self.on_request_piece = _pass if self._request is None else self._request.keep
        self.on_answer_piece = _pass if self._answer is None else self._answer.keep
        self._status = 0
        self._answer_type = b""
        self.to_client = b"ce-id: %b\r\n" % identified
        self.to_server = self.to_client if is_new else b""

    def on_answer_head(self, status: int, answer: AnswerHead | None) -> None:
        """The request is complete, or as complete as it will be."""
        answer_type, has_own_id = self._capture.answer(answer)
        self._begin_answer(status, answer_type, has_own_id=has_own_id)

    def on_call_head(self, fields: Fields) -> None:
        """See the head of an answer by HTTP/2."""
        self._begin_answer(
            int(first(fields, b":status") or 0),
            first(fields, b"content-type") or _BINARY,
            has_own_id=first(fields, b"ce-id") is not None,
        )

    @property
    def fields_to_server(self) -> Fields:
        """As ``to_server``."""
        return ((b"ce-id", self._identified),) if self.to_server else ()

    @property
    def fields_to_client(self) -> Fields:
        """As ``to_client``."""
        return ((b"ce-id", self._identified),) if self.to_client else ()

    def on_end(self, *, is_complete: bool) -> None:
        """Log what is left."""
        self._log_request(is_complete=is_complete)
        answer, self._answer = self._answer, None
        if answer is not None and self._status:
            self._log(Part.RESPONSE, time.time(), self._status, self._answer_type, answer, is_complete=is_complete)

    def _begin_answer(self, status: int, answer_type: bytes, *, has_own_id: bool) -> None:
        self._status = status
        self._answer_type = answer_type
        if has_own_id:
            self.to_client = b""
        self._log_request(is_complete=True)

    def _log_request(self, *, is_complete: bool) -> None:
        request, self._request = self._request, None
        if request is not None:
            self._log(Part.REQUEST, self._occurred, 0, self._seen.content_type, request, is_complete=is_complete)

    def _log(
        self, part: Part, occurred: float, status: int, content_type: bytes, half: _Half, *, is_complete: bool
    ) -> None:
        seen = self._seen
        self._capture.records.append(
            part,
            occurred,
            status,
            self._identified,
            content_type,
            seen.subject,
            seen.metadata,
            half.pieces(),
            is_whole=half.is_whole and is_complete,
        )
