"""One HTTP/1.1 connection that reads bodies straight into a caller's buffer.

``http.client`` connects for TLS (and a proxy's tunnel); it does not read, because parsing a head as an e-mail costs three times
what all the rest of a small object's request does: ADR 25.
"""

from __future__ import annotations

import functools
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httptools
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Tls

from servery_storage.splicing import Pipe

if TYPE_CHECKING:
    import ssl

HEAD_BYTES = 64 * 1024
FIRST_BYTES = 128 * 1024
"""Read at once: of most small objects head and body."""
_NO_BODY = frozenset({204, 304})
_URL = re.compile(r"([^/?#]*//[^/?#]*)([^?#]*)(\?[^#]*)?")
_NO_URL = "not an http:// or https:// URL"


class WireBroken(Transient):
    """The connection could not be made, or ended before its time."""


class WireStale(WireBroken):
    """The server had closed a kept connection before it saw the request: a new one will do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom one connection speaks to."""

    scheme: str
    host: str
    port: int
    tls: Tls

    @staticmethod
    def of(url: str, tls: Tls) -> tuple[Origin, str]:
        """Return the origin of ``url``, and what is asked of it: path and query.

        Raises:
            Permanent: It is no HTTP URL.
        """
        parts = _URL.match(url)
        if parts is None:
            raise Permanent(f"{url}: {_NO_URL}")
        authority, path, query = parts.groups("")
        try:
            origin = _origin(authority, tls)
        except ValueError as error:
            raise Permanent(f"{url}: {error}") from error
        return origin, (path or "/") + (query if len(query) > 1 else "")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port != {"http": 80, "https": 443}[self.scheme] else host


@functools.lru_cache
def _origin(authority: str, tls: Tls) -> Origin:
    """Return the origin that a model's objects, each with a URL of its own, have in common."""
    parts = urlsplit(authority)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError) as error:
        raise ValueError(_NO_URL) from error
    if not parts.hostname:
        raise ValueError("the URL names no host")
    return Origin(parts.scheme, parts.hostname, port, tls if parts.scheme == "https" else Tls())


class Answer:
    """An answer whose body is still to be read. Header names are lower-case."""

    def __init__(self, wire: Wire, first: memoryview) -> None:
        self._wire = wire
        self._first = first
        self.status = 0
        self.reason = ""
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self._chunked: httptools.HttpResponseParser | None = None
        self._ended = False

    # What httptools calls.

    def on_status(self, reason: bytes) -> None:
        self.reason = reason.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._first = memoryview(bytes(self._first) + body if self._first else body)

    def on_message_complete(self) -> None:
        self._ended = True

    def begun(self, parser: httptools.HttpResponseParser) -> None:
        """The head is whole."""
        self.status = parser.get_status_code()
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            raw, self._first = self._first, memoryview(b"")
            self._chunked, self._ended = parser, False
            parser.feed_data(raw)
        elif self.status in _NO_BODY:
            self.length = 0
        elif (said := self.headers.get("content-length")) is not None:
            self.length = int(said)
        self._left = self.length

    def readinto(self, view: memoryview) -> int:
        """Read up to ``len(view)`` bytes; 0 at the body's end.

        Raises:
            WireBroken: The connection ended first.
        """
        if self._chunked is not None:
            while not self._first and not self._ended:
                self._chunked.feed_data(self._wire.more())
        elif self._left is not None:
            view = view[: self._left]
        if self._first:
            count = min(len(self._first), len(view))
            view[:count] = self._first[:count]
            self._first = self._first[count:]
        elif self._chunked is not None or self._left == 0:
            return 0
        else:
            count = self._wire.receive(view, may_end=self._left is None)
        if self._left is not None:
            self._left -= count
        return count

    @property
    def is_spliced(self) -> bool:
        """Whether what comes next is the body's own bytes, as they are on the wire."""
        return self._chunked is None and not self._first and bool(self._left) and self._wire.is_plain

    def splice(self, pipe: Pipe, size_bytes: int) -> int:
        """Take up to ``size_bytes`` into ``pipe`` where ``is_spliced``.

        Raises:
            WireBroken: The connection ended first.
            Unspliceable: Nothing was taken.
        """
        assert self._left is not None
        count = self._wire.splice(pipe, min(size_bytes, self._left))
        self._left -= count
        return count

    @property
    def is_read(self) -> bool:
        """Whether the connection is free for the next request."""
        kept = self.headers.get("connection", "").lower() != "close"
        return kept and ((self._chunked is not None and self._ended and not self._first) or self._left == 0)


class Wire:
    """A connection to an origin, kept alive between requests. Not for several threads."""

    def __init__(self, origin: Origin, *, timeout_seconds: float) -> None:
        self._origin = origin
        self._prefix = ""
        self._used = False
        self._buffer = bytearray(FIRST_BYTES)
        self._view = memoryview(self._buffer)
        try:
            self._socket = self._connected(timeout_seconds)
        except OSError as error:
            if (refused := getattr(error, "verify_message", None)) is not None:  # an ssl.SSLCertVerificationError
                advice = "give the CA that signed it (CA bundle), or turn the check off for this source"
                raise Permanent(f"{origin}: its certificate was refused: {refused}; {advice}") from error
            raise WireBroken(f"cannot reach {origin}: {_words(error)}") from error

    def _connected(self, timeout_seconds: float) -> socket.socket:
        origin, proxy = self._origin, _proxy_of(self._origin)
        host, port = proxy or (origin.host, origin.port)
        if origin.scheme == "https":
            return _secured(origin, host, port, timeout_seconds, is_proxy=proxy is not None)
        if proxy:
            self._prefix = f"http://{origin}"
        connected = socket.create_connection((host, port), timeout_seconds)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def get(self, target: str, headers: Mapping[str, str]) -> Answer:
        """Ask for ``target`` and return the answer, its body unread.

        Raises:
            WireStale: The kept connection was closed meanwhile.
            WireBroken: It ended in the middle of the head, or what came is not HTTP.
        """
        self.ask(target, headers)
        return self.answered()

    def ask(self, target: str, headers: Mapping[str, str]) -> None:
        """Ask for ``target``; raises as ``get`` does."""
        lines = [f"GET {self._prefix}{target} HTTP/1.1", f"host: {self._origin}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if name != "host"]
        try:
            self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        except OSError as error:
            raise self._lost(error) from error

    def answered(self) -> Answer:
        """Return the answer to what was asked, its body unread; raises as ``get`` does."""
        try:
            answer = self._answered()
        except WireBroken:
            raise
        except OSError as error:
            raise self._lost(error) from error
        self._used = True
        return answer

    def _lost(self, error: OSError) -> WireBroken:
        kind = WireStale if self._used else WireBroken
        return kind(f"{self._origin}: {_words(error)}")

    def _answered(self) -> Answer:
        got, end = 0, -1
        while end < 0:
            if got >= HEAD_BYTES:
                raise WireBroken(f"{self._origin}: the answer's head is longer than {HEAD_BYTES} bytes")
            count = self._socket.recv_into(self._view[got:])
            if not count:
                kind = WireStale if self._used and not got else WireBroken
                raise kind(f"{self._origin}: the connection ended before an answer came")
            end = self._buffer.find(b"\r\n\r\n", max(0, got - 3), got + count)
            got += count
        answer = Answer(self, self._view[end + 4 : got])  # It is read before anything else comes there.
        parser = httptools.HttpResponseParser(answer)
        try:
            parser.feed_data(self._view[: end + 4])
            answer.begun(parser)
        except (httptools.HttpParserError, ValueError) as error:
            raise WireBroken(f"{self._origin}: the answer is not HTTP: {error}") from error
        return answer

    def receive(self, view: memoryview, *, may_end: bool) -> int:
        """Read what there is into ``view``; 0 at the connection's end where that may be."""
        try:
            count = self._socket.recv_into(view)
        except OSError as error:
            raise WireBroken(f"{self._origin}: {_words(error)}") from error
        if not count and not may_end:
            raise self._cut()
        return count

    @property
    def is_plain(self) -> bool:
        """Whether it has no TLS."""
        return self._origin.scheme == "http"

    def splice(self, pipe: Pipe, size_bytes: int) -> int:
        """Take what there is, up to ``size_bytes``, into ``pipe``."""
        try:
            count = pipe.fill(self._socket, size_bytes)
        except OSError as error:
            raise WireBroken(f"{self._origin}: {_words(error)}") from error
        if not count:
            raise self._cut()
        return count

    def _cut(self) -> WireBroken:
        return WireBroken(f"{self._origin}: the connection ended in the middle of the object")

    def more(self) -> memoryview:
        """Return some more of a chunked body."""
        return self._view[: self.receive(self._view, may_end=False)]

    def close(self) -> None:
        """End the connection."""
        self._socket.close()


def _secured(origin: Origin, host: str, port: int, timeout_seconds: float, *, is_proxy: bool) -> ssl.SSLSocket:
    """Return a TLS connection to ``origin``, through a proxy's tunnel where ``host`` is one."""
    import http.client  # a third of a hand's start, where it is for plain HTTP

    connection = http.client.HTTPSConnection(host, port, timeout=timeout_seconds, context=context_of(origin.tls))
    if is_proxy:
        connection.set_tunnel(origin.host, origin.port)
    try:
        connection.connect()  # which turns Nagle's algorithm off
    except http.client.HTTPException as error:
        raise WireBroken(f"cannot reach {origin}: {_words(error)}") from error
    secured: ssl.SSLSocket = connection.sock
    return secured


@functools.cache
def context_of(tls: Tls) -> ssl.SSLContext:
    """Return the context that keeps to ``tls``; without a CA of its own, KServe's variables say whom to trust."""
    import ssl

    bundle = tls.ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    context = ssl.create_default_context(cafile=str(bundle) if bundle else None)
    if not tls.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.certificate_file is not None:
        context.load_cert_chain(tls.certificate_file, tls.key_file)
    return context


def _proxy_of(origin: Origin) -> tuple[str, int] | None:
    """Return the proxy that the environment names for ``origin``, ``HTTPS_PROXY`` and its like."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    proxy = getproxies().get(origin.scheme)
    if not proxy or proxy_bypass(origin.host):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return (parts.hostname, parts.port or 80) if parts.hostname else None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
