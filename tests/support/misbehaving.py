"""A server of objects that does as it should not when it is told to, and a provider that locates its objects."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from servery_sdk.digests import Digest, DigestAlgorithm
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Location, Refusal, StorageEntry, StorageUri, path_below

CHUNK_BYTES = 16 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Ask:
    """One request, as a fault is told of it."""

    path: str
    start: int
    stop: int
    headers: Mapping[str, str]
    number: int


@dataclass
class Fault:
    """What is done instead of the right thing. Whatever is not set is done right."""

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    """Of the body's bytes, before the connection ends."""
    flip: bool = False
    """The first byte is another."""
    hold: threading.Event | None = None
    """The body waits in its middle until this is set."""


class Misbehaving:
    """Objects by path, and a rule for each request. ``rule`` returns None for an answer as it should be."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.rule: Callable[[Ask], Fault | None] = lambda ask: None
        self.sent: Callable[[int], None] = lambda count: None
        """Told of all body bytes sent so far, as they are."""
        self.asked: list[Ask] = []
        self.url = ""
        self.ranges = True
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes_sent(self) -> int:
        """All bytes of bodies so far."""
        return self._bytes

    def etag(self, path: str) -> str:
        """Return the object's ETag, which is no sum that a client knows."""
        return f'"{hashlib.blake2s(self.objects[path]).hexdigest()}"'

    def count(self, size: int) -> None:
        """Note that bytes were sent."""
        with self._lock:
            self._bytes += size
            total = self._bytes
        self.sent(total)


@contextmanager
def served() -> Iterator[Misbehaving]:
    """Serve on a free port of the loopback."""
    site = Misbehaving()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = site.objects.get(self.path)
            said = _RANGE.fullmatch(self.headers.get("range", "")) if site.ranges else None
            length = len(body or b"")
            start = int(said[1]) if said else 0
            stop = min(int(said[2]) + 1 if said and said[2] else length, length)
            headers = {name.lower(): value for name, value in self.headers.items()}
            with site._lock:
                ask = Ask(self.path, start, stop, headers, len(site.asked))
                site.asked.append(ask)
            fault = site.rule(ask) or Fault()
            if fault.status is not None:
                self.answer(fault.status, fault.headers, fault.body)
                return
            if body is None:
                self.answer(404, {}, b"")
                return
            if (wanted := headers.get("if-match")) is not None and wanted != site.etag(self.path):
                self.answer(412, {}, b"")
                return
            part = body[start:stop]
            if fault.flip:
                part = bytes([part[0] ^ 255]) + part[1:]
            self.send_response(206 if said else 200)
            self.send_header("etag", site.etag(self.path))
            self.send_header("content-length", str(len(part)))
            if said:
                self.send_header("content-range", f"bytes {start}-{stop - 1}/{length}")
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.body(part, fault)

        def body(self, part: bytes, fault: Fault) -> None:
            end = len(part) if fault.cut_after is None else fault.cut_after
            try:
                for at in range(0, end, CHUNK_BYTES):
                    piece = part[at : min(at + CHUNK_BYTES, end)]
                    self.wfile.write(piece)
                    site.count(len(piece))
                    if fault.hold is not None and at >= end // 2:
                        fault.hold.wait()
            except OSError:  # The client went away.
                self.close_connection = True
            if end < len(part):
                self.close_connection = True

        def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            return  # A client that was killed.

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


class Locating:
    """``bad://host/prefix``: lists what it is given, and locates it at ``url``.

    Args:
        objects: Path to content.
        token: What is sent as ``authorization``.
        renewed: What is sent after a 401.
    """

    name = "bad"
    schemes = frozenset({"bad"})

    def __init__(
        self, url: str, objects: Mapping[str, bytes], *, token: str = "old", renewed: str | None = None
    ) -> None:
        self._url, self._objects = url, objects
        self._token, self._renewed = token, renewed

    async def list(self, uri: StorageUri) -> AsyncIterator[StorageEntry]:
        """Yield what lies below the URI's path."""
        for path, content in list(self._objects.items()):
            relative = path_below(path.lstrip("/"), uri.path)
            if relative is not None:
                digest = Digest(DigestAlgorithm.SHA256, hashlib.sha256(content).digest())
                version = f'"{hashlib.blake2s(content).hexdigest()}"'
                yield StorageEntry(path=relative, source=path, size_bytes=len(content), version=version, digest=digest)

    def locate(self, entry: StorageEntry) -> Location:
        """Return the URL, a token and the version that was listed."""
        headers = {"authorization": self._token, "if-match": entry.version or "*"}
        return Location(url=self._url + entry.source, headers=headers)

    def refused(self, entry: StorageEntry, refusal: Refusal) -> Transient | Permanent:
        """Return what HTTP says; with another token, 401 is no end."""
        if refusal.status == 401 and self._renewed:
            self._token = self._renewed  # By each thread that is refused.
            return Transient("the token ran out")
        return refusal.failure(entry.source)

    def digest(self, entry: StorageEntry, headers: Mapping[str, str]) -> Digest | None:
        """Return the digest that was listed."""
        return entry.digest
