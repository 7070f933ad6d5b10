"""Bodies in chunks: taken apart strictly. They leave in chunks of our own, so nobody behind us can read them otherwise.

Source: RFC 9112, 7.1.
"""

from __future__ import annotations

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})((?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?)\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_NEVER_TRAILERS = frozenset(
    {
        *(b"age", b"authorization", b"cache-control", b"connection", b"content-encoding", b"content-length"),
        *(b"content-range", b"content-type", b"cookie", b"date", b"expect", b"expires", b"host", b"keep-alive"),
        *(b"k-network-probe", b"max-forwards", b"pragma", b"proxy-authenticate", b"proxy-authorization", b"range"),
        *(b"set-cookie", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"www-authenticate"),
        *(b"x-forwarded-for", b"x-request-id"),
    }
)
"""Whoever merges trailers into headers must not be told by them where a message ends, where it goes or who asks: left
out. Source: RFC 9110, 6.5.1."""
_LINE_BYTES = 4096
_TRAILERS_BYTES = 16 * 1024


class BadChunks(Exception):
    """The body does not come in chunks as it says."""


class Chunks:
    """One body.

    Attributes:
        is_complete: The last chunk and what may follow it were here.
        rest: What came behind.
        trailers: Those that may go on, each with its end; whole once it is complete.
    """

    __slots__ = ("_held", "_left", "_trailers_bytes", "is_complete", "rest", "trailers")

    def __init__(self) -> None:
        self._held = b""
        self._left = -1
        self._trailers_bytes = -1
        self.is_complete = False
        self.rest = b""
        self.trailers = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of the body that are in ``data``.

        Raises:
            BadChunks: It cannot be read, or could be read in two ways.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and not self.is_complete:
            before = at
            if self._left > 0:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                pieces.append(piece)
            elif self._left == 0:
                at = self._end_of_chunk(data, at)
            elif self._trailers_bytes >= 0:
                at = self._trailer(data, at)
            else:
                at = self._size(data, at)
            if at == before:
                self._held = data[at:]
                return pieces
        self.rest = data[at:]
        return pieces

    def _end_of_chunk(self, data: bytes, at: int) -> int:
        found = data[at : at + 2]
        if found not in {b"\r\n", b"\r"}:
            raise BadChunks(f"a chunk is longer than it says: {found!r} follows it")
        if len(found) == 2:
            self._left = -1
            return at + 2
        return at

    def _size(self, data: bytes, at: int) -> int:
        matched = _SIZE.match(data, at)
        if matched is not None:
            self._left = int(matched[1], 16)
            if self._left == 0:
                self._left, self._trailers_bytes = -1, 0
            return matched.end()
        if b"\n" in data[at : at + _LINE_BYTES] or len(data) - at > _LINE_BYTES:
            raise BadChunks(f"a chunk begins with its size in hex and a line's end, found {data[at : at + 20]!r}")
        return at

    def _trailer(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        self_bytes = self._trailers_bytes + (len(data) if end < 0 else end + 1) - at
        if self_bytes > _TRAILERS_BYTES:
            raise BadChunks(f"trailers are longer than {_TRAILERS_BYTES} bytes")
        if end < 0:
            return at
        line = data[at : end + 1]
        if line == b"\r\n":
            self.is_complete = True
        elif not (line.endswith(b"\r\n") and _TRAILER.fullmatch(line[:-2])):
            raise BadChunks(f"a trailer is {line[:100]!r}")
        elif line.partition(b":")[0].lower() not in _NEVER_TRAILERS:
            self.trailers += line
        self._trailers_bytes = self_bytes
        return end + 1


def chunk(piece: bytes | memoryview) -> bytes:
    """Return a piece, which is not empty, as a chunk."""
    return b"".join((b"%x\r\n" % len(piece), piece, b"\r\n"))


LAST = b"0\r\n\r\n"


def last(trailers: bytes) -> bytes:
    """Return the end of a body, with trailers, each with its own end."""
    return b"0\r\n%b\r\n" % trailers
