"""The sink that most have: CloudEvents, posted one by one on connections that are kept."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from servery_http.address import Address
from servery_http.gateway.heads import AnswerHead, RequestHead
from servery_http.gateway.upstream import Pool, Upstream
from servery_http.messages import header
from servery_sdk.errors import Permanent, Transient
from servery_sdk.payloads import EventOutlet, PayloadEvent, SinkTarget

from servery_agent.payloads.cloudevents import STRUCTURED_TYPE, event_headers, origin_headers, structured

_REFUSED = frozenset({400, 406, 413, 414, 415, 422, 431})
"""Statuses that say that the event is wrong. Others, as 401 or 404, say that the sink is not as it should be: somebody may
mend that, and until then events wait."""
_CONNECT_SECONDS = 5.0
_SAID_BYTES = 200
_LONG_BYTES = 4096
"""Of a body that is sent from where it lies, without a copy."""


class HttpSink:
    """``http://`` and ``https://``."""

    name = "http"
    schemes = frozenset({"http", "https"})

    def open(self, target: SinkTarget) -> EventOutlet:
        """Return the way to the URL."""
        return HttpOutlet(target)


class HttpOutlet:
    """Posts to one URL.

    Raises:
        Permanent: The URL has no host, or the certificates cannot be read.
    """

    def __init__(self, target: SinkTarget) -> None:
        self._target = target
        parts = urlsplit(target.url)
        if not parts.hostname:
            raise Permanent(f"--log-url: {target.url!r} has no host")
        is_tls = parts.scheme == "https"
        try:
            port = parts.port or (443 if is_tls else 80)
        except ValueError as error:
            raise Permanent(f"--log-url: {target.url!r}: {error}") from error
        self._address = Address(parts.hostname, port, tls=_tls(target) if is_tls else None)
        self._pool = Pool(self._address, connect_seconds=min(_CONNECT_SECONDS, target.timeout_seconds))
        asked = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc.rpartition("@")[2]
        asks = f"POST {asked} HTTP/1.1\r\nhost: {host}\r\n".encode()
        self._begin = asks if target.is_structured else asks + origin_headers(target.origin)
        self.request = RequestHead(asks + b"\r\n")
        self._loop = asyncio.get_running_loop()
        self._sweeper = self._loop.call_later(1.0, self._sweep)

    def _sweep(self) -> None:
        self._pool.sweep(self._loop.time())
        self._sweeper = self._loop.call_later(1.0, self._sweep)

    async def send(self, event: PayloadEvent) -> None:
        """Return once the sink has answered that it has it."""
        body: bytes | memoryview
        if self._target.is_structured:
            body = structured(event, self._target.origin)
            headers = b"content-type: %b\r\n" % STRUCTURED_TYPE.encode()
        else:
            body, headers = event.body, event_headers(event)
        head = b"%b%bcontent-length: %d\r\n\r\n" % (self._begin, headers, len(body))
        data = (head, body) if len(body) >= _LONG_BYTES else (b"".join((head, body)),)
        status, fields, said = await _Post(self._pool, self.request, data).answer(self._target.timeout_seconds)
        if status // 100 == 2:
            return
        words = f"{self._target.url} answers {status}: {said[:_SAID_BYTES].decode('utf-8', 'replace')}".rstrip(": ")
        if status in _REFUSED:
            raise Permanent(words)
        raise Transient(words, retry_after_seconds=_retry_after(fields))

    async def close(self) -> None:
        """Cut every connection."""
        self._sweeper.cancel()
        self._pool.close()


def _tls(target: SinkTarget) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise Permanent(f"--logger-ca-cert-file: {target.ca_file}: {error}") from error
    if not target.verifies_tls:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _retry_after(fields: list[tuple[bytes, bytes]]) -> float | None:
    said = header(fields, b"retry-after")
    return float(said) if said is not None and said.isdigit() else None


class _Post:
    """One exchange: no task, one future. Its calls are those of ``servery_http.gateway.upstream.Caller``."""

    __slots__ = ("_answer", "_data", "_done", "_pieces", "_pool", "_upstream", "head", "is_sent")

    def __init__(self, pool: Pool, head: RequestHead, data: Sequence[bytes | memoryview]) -> None:
        self._pool = pool
        self._data = data
        self._done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._pieces: list[bytes] = []
        self._answer: AnswerHead | None = None
        self._upstream: Upstream | None = None
        self.head = head
        self.is_sent = True

    async def answer(self, seconds: float) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Return status, headers and body.

        Raises:
            Transient: There is none.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self._fail, f"no answer within {seconds:g} s")
        try:
            upstream = self._pool.take()
            if upstream is None:
                self._pool.connect(self)
            else:
                self.on_connected(upstream)
            status, body = await self._done
        finally:
            timer.cancel()
            if self._upstream is not None:
                self._upstream.abandon()
        fields = [] if status // 100 == 2 or self._answer is None else self._answer.fields()
        return status, fields, body

    def _fail(self, why: str) -> None:
        if not self._done.done():
            self._done.set_exception(Transient(f"{self._pool.address}: {why}"))

    def _finish(self, body: bytes) -> None:
        self._upstream = None
        if not self._done.done() and self._answer is not None:
            self._done.set_result((self._answer.status, body))

    def on_connected(self, upstream: Upstream) -> None:
        if self._done.done():
            self._pool.give_back(upstream)
            return
        self._upstream = upstream
        upstream.begin(self)
        upstream.transport.writelines(self._data)

    def on_unreachable(self, why: str) -> None:
        self._fail(why)

    def on_interim(self, answer: AnswerHead) -> None:
        pass

    def on_switched(self, answer: AnswerHead, data: bytes) -> None:
        raise AssertionError("unreachable: no upgrade is asked for")

    def on_answer(self, answer: AnswerHead, body: bytes | memoryview) -> None:
        self._answer = answer
        self._finish(bytes(body[:_SAID_BYTES]))

    def on_answer_head(self, answer: AnswerHead) -> None:
        self._answer = answer

    def on_answer_piece(self, piece: bytes) -> None:
        # Only the beginning is of interest: it says why.
        if len(self._pieces) < _SAID_BYTES:
            self._pieces.append(piece[:_SAID_BYTES])

    def on_answer_end(self, trailers: bytes = b"") -> None:
        self._finish(b"".join(self._pieces))

    def on_lost(self, upstream: Upstream, why: str) -> None:
        self._upstream = None
        if not upstream.is_fresh and not upstream.received and not self._done.done():
            # It closed a connection that waited. To be sent twice does an event no harm.
            self._pool.connect(self)
        else:
            self._fail(why)

    def on_full(self) -> None:
        pass

    def on_room(self) -> None:
        pass
