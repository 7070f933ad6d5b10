"""A whole request of our own to the server behind, and its whole answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from servery_http.front import error
from servery_http.gateway.gate import Gate
from servery_http.gateway.heads import AnswerHead, BadHead, Known, RequestHead
from servery_http.gateway.limits import GatewayLimits
from servery_http.gateway.upstream import Pool, Upstream
from servery_http.messages import Later, Request, Response, header

_OURS = frozenset({b"connection", b"content-length", b"expect", b"transfer-encoding", b"upgrade", b"x-request-id"})
_SHORT_BYTES = 4096
_NOT_KEPT = _OURS - {b"x-request-id"} | {b"content-type"}


class Asking(Later):
    """Answers what the server does; 429, 502, 503 or 504 where it does not."""

    __slots__ = (
        "_body",
        "_gate",
        "_head",
        "_is_inside",
        "_limits",
        "_pieces",
        "_pool",
        "_request",
        "_size",
        "_timer",
        "_upstream",
        "head",
        "is_sent",
    )

    def __init__(
        self,
        pool: Pool,
        gate: Gate,
        request: Request,
        limits: GatewayLimits,
        known: Known[RequestHead],
        body: Sequence[bytes | memoryview],
    ) -> None:
        super().__init__(self._give_up)
        self._pool, self._gate, self._limits = pool, gate, limits
        self._request = request
        self._body = body
        self._upstream: Upstream | None = None
        self._is_inside = False
        self._pieces: list[bytes] = []
        self._size = 0
        self._head: AnswerHead | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.is_sent = True
        try:
            self.head = known(_raw(request))
        except BadHead as bad:
            self.answer(error(500, f"the request cannot be passed on: {bad}"))
            return
        entered = gate.enter(self._let_in)
        if entered:
            self._let_in()
        elif entered is None:
            self.answer(error(429, f"{gate.waiting} requests wait for the predictor, which is the limit"))
        else:
            self._within(limits.queue_seconds, 503, f"the request waited {limits.queue_seconds:g} s for the predictor")

    def _within(self, seconds: float | None, status: int, message: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._on_late, status, message)

    def _on_late(self, status: int, message: str) -> None:
        self._end(error(status, message))

    def _let_in(self) -> None:
        self._is_inside = True
        seconds = self._limits.answer_seconds
        self._within(seconds, 504, f"the predictor did not answer within {seconds or 0:g} s")
        upstream = self._pool.take()
        if upstream is None:
            self._pool.connect(self)
        else:
            self.on_connected(upstream)

    def _give_up(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        is_inside, self._is_inside = self._is_inside, False
        if is_inside:
            self._gate.leave()
        else:
            self._gate.give_up(self._let_in)

    def _end(self, response: Response) -> None:
        self._let_go()
        self.answer(response)

    # What the connection says.

    def on_connected(self, upstream: Upstream) -> None:
        if not self._is_inside or self._upstream is not None:
            self._pool.give_back(upstream)
            return
        self._upstream = upstream
        upstream.begin(self)
        passed = self.head.passed
        identified = header(self._request.headers, b"x-request-id")
        tail = b"127.0.0.1\r\n" + (b"x-request-id: %b\r\n" % identified if identified else b"")
        size = sum([len(piece) for piece in self._body])
        if size or not self.head.is_repeatable:
            tail += b"content-length: %d\r\n" % size
        head = b"".join((passed, tail, b"\r\n"))
        if size < _SHORT_BYTES:
            upstream.transport.write(b"".join((head, *self._body)))
        else:
            # Long bodies are not copied once more.
            upstream.transport.writelines((head, *self._body))

    def on_unreachable(self, why: str) -> None:
        if self._is_inside and self._upstream is None:
            self._end(error(503, f"the predictor does not accept connections at {self._pool.address}: {why}"))

    def on_lost(self, upstream: Upstream, why: str) -> None:
        self._upstream = None
        if self.head.is_repeatable and not upstream.is_fresh and not upstream.received:
            self._pool.connect(self)
        else:
            self._end(error(502, f"the predictor went away before its answer was complete: {why}"))

    def on_interim(self, answer: AnswerHead) -> None:
        pass

    def on_switched(self, answer: AnswerHead, data: bytes) -> None:
        raise AssertionError("unreachable: a request of ours asks for no upgrade")

    def on_answer(self, answer: AnswerHead, body: bytes | memoryview) -> None:
        self._upstream = None
        fields = answer.fields()
        kept = tuple(field for field in fields if field[0] not in _NOT_KEPT)
        self._end(
            Response(answer.status, bytes(body), header(fields, b"content-type") or b"application/octet-stream", kept)
        )

    def on_answer_head(self, answer: AnswerHead) -> None:
        self._head = answer

    def on_answer_piece(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._limits.max_body_bytes:
            self._end(error(502, f"the predictor's answer is longer than {self._limits.max_body_bytes} bytes"))

    def on_answer_end(self, trailers: bytes = b"") -> None:
        assert self._head is not None
        self.on_answer(self._head, b"".join(self._pieces))

    def on_full(self) -> None:
        pass

    def on_room(self) -> None:
        pass


def _raw(request: Request) -> bytes:
    # Without what differs from one request to the next, so that what it means is known.
    query = b"?" + request.query if request.query else b""
    lines = [b"%b %b%b HTTP/1.1" % (request.method.encode(), request.path.encode("latin-1"), query)]
    lines += [name + b": " + value for name, value in request.headers if name not in _OURS]
    return b"\r\n".join(lines) + b"\r\n\r\n"
