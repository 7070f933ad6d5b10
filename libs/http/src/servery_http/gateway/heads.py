"""Heads of requests and answers: read strictly, told what they mean for the two connections, and remembered.

A connection's clients send the same head over and over, so what one means is kept by its bytes. Whatever two programs
could read in two ways is refused: what is passed on is what we have understood, and nothing else.

Source: RFC 9112, 2.2, 3.2, 5 and 6; RFC 9110, 7.6.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from servery_http.gateway.routes import Route

CHUNKED = -1
"""Length of a body that says itself where it ends."""
UNTIL_CLOSE = -2
"""Length of an answer that ends with its connection."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_FIELDS = rb"((?:%b:[\t\x20-\x7e\x80-\xff]*+\r\n)*+)\r\n" % _TOKEN
_REQUEST = re.compile(rb"(%b) ([\x21-\x7e\x80-\xff]++) HTTP/1\.([01])\r\n%b" % (_TOKEN, _FIELDS))
_ANSWER = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})( [\t\x20-\x7e\x80-\xff]*+)?\r\n%b" % _FIELDS)
_DIGITS = re.compile(rb"[0-9]{1,18}")
_HOP_BY_HOP = frozenset({b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"})
_MEANT = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"k-network-probe",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"x-forwarded-for",
        b"x-request-id",
    }
)
"""Names that mean something to us; what ``connection`` says of them is not heeded, for they are ours to pass on."""
_REPEATABLE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,200}")
_KNOWN_HEADS = 512
_KNOWN_BYTES = 4096

Fields = list[tuple[bytes, bytes]]
_Head = TypeVar("_Head")


class BadHead(Exception):
    """It is refused: ``status``, and words for who sent it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Known(Generic[_Head]):
    """What heads mean, by their bytes; forgotten all at once when there are too many.

    Args:
        read: What an unknown one means; raises BadHead.
    """

    __slots__ = ("_heads", "_read")

    def __init__(self, read: Callable[[bytes], _Head]) -> None:
        self._read = read
        self._heads: dict[bytes, _Head] = {}

    def __call__(self, head: bytes) -> _Head:
        """Return what ``head`` means.

        Raises:
            BadHead: It is not to be passed on.
        """
        known = self._heads.get(head)
        if known is None:
            known = self._read(head)
            if len(head) <= _KNOWN_BYTES:
                if len(self._heads) >= _KNOWN_HEADS:
                    self._heads.clear()
                self._heads[head] = known
        return known

    def __len__(self) -> int:
        """Return how many are remembered."""
        return len(self._heads)


class RequestHead:
    """What a request's head says.

    Attributes:
        passed: What goes on, up to where our own fields follow: it ends in the middle of ``x-forwarded-for``.
        length: Of the body in bytes; 0 where there is none, or CHUNKED.
        is_old: HTTP/1.0: its client knows neither chunks nor interim answers.
        keep_alive: Whether the client would ask again on this connection.
        expects: 100 Continue, before it sends the body.
        upgrade: The protocol that it would speak from here on.
        request_id: That it brought, or None.
        probe: Value of ``K-Network-Probe``.
        takes_trailers: Fields may follow the answer's body, if it comes in chunks.
        is_repeatable: Asking twice is asking once, and there is no body to send again.
        route: What is done with such a request; whoever reads heads sets it.
    """

    __slots__ = (
        "_fields",
        "_raw",
        "expects",
        "is_head",
        "is_old",
        "is_repeatable",
        "keep_alive",
        "length",
        "method",
        "passed",
        "path",
        "probe",
        "query",
        "request_id",
        "route",
        "takes_trailers",
        "upgrade",
    )

    def __init__(self, raw: bytes) -> None:
        matched = _REQUEST.fullmatch(raw)
        if matched is None:
            raise BadHead(400, "not an HTTP/1.1 request: " + _what_is_wrong(raw))
        method, target, minor, block = matched.groups()
        if method == b"CONNECT":
            raise BadHead(405, "this is no forward proxy: CONNECT is refused")
        kept, meant, named = _sorted(block)
        self._raw = block
        self._fields: Fields | None = None
        self.route: Route | None = None
        self.method = method.decode("ascii")
        path, _, query = target.partition(b"?")
        self.path = path.decode("latin-1")
        self.query: bytes = query
        self.is_head = method == b"HEAD"
        self.is_old = minor == b"0"
        self.keep_alive = b"keep-alive" in named if self.is_old else b"close" not in named
        self.length = _length(meant, is_old=self.is_old)
        hosts = meant.get(b"host", ())
        if len(hosts) > 1 or not (hosts or self.is_old):
            raise BadHead(400, f"a request has one Host header, this one has {len(hosts)}")
        self.expects = _expects(meant) and not self.is_old and self.length != 0
        wanted = meant.get(b"upgrade", (b"",))[0]
        # h2c by upgrade would be a second way into the server, past all of this; who wants HTTP/2 begins with it.
        is_upgrade = b"upgrade" in named and wanted and b"h2c" not in wanted.lower() and self.length == 0
        self.upgrade = wanted if is_upgrade and not self.is_old else None
        self.request_id = next(iter(meant.get(b"x-request-id", ())), None)
        if self.request_id is not None and not _REQUEST_ID.fullmatch(self.request_id):
            self.request_id = None
        self.probe = next(iter(meant.get(b"k-network-probe", ())), None)
        accepted = {token.strip(b" \t").lower() for value in meant.get(b"te", ()) for token in value.split(b",")}
        self.takes_trailers = b"trailers" in accepted and not self.is_old
        self.is_repeatable = method in _REPEATABLE and self.length == 0 and self.upgrade is None
        lines = [b"%b %b HTTP/1.1" % (method, target), *(b"host: " + host for host in hosts), *kept]
        if self.length == CHUNKED:
            lines.append(b"transfer-encoding: chunked")
        elif b"content-length" in meant:
            lines.append(b"content-length: %d" % self.length)
        if self.expects:
            lines.append(b"expect: 100-continue")
        if self.takes_trailers:
            lines.append(b"te: trailers")
        options = [b"te"] * self.takes_trailers + [b"upgrade"] * (self.upgrade is not None)
        if options:
            lines.append(b"connection: " + b", ".join(options))
        if self.upgrade is not None:
            lines.append(b"upgrade: " + self.upgrade)
        lines.append(b"x-forwarded-for: " + b"".join(by + b", " for by in meant.get(b"x-forwarded-for", ()) if by))
        self.passed = b"\r\n".join(lines)

    def fields(self) -> Fields:
        """Return every header as it came, names in lower case; the list is the caller's own."""
        if self._fields is None:
            self._fields = fields_of(self._raw)
        return self._fields.copy()


class AnswerHead:
    """What an answer's head says.

    Attributes:
        passed: Status line and the fields that go on; neither length nor connection.
        length: Of the body in bytes, CHUNKED or UNTIL_CLOSE; that of an answer to HEAD is of the body that never comes.
        has_length: Whether it says how long it is.
        keep_alive: Whether the server would answer again on this connection.
        has_request_id: It brought one of its own.
    """

    __slots__ = ("_raw", "has_length", "has_request_id", "keep_alive", "length", "passed", "sized", "status", "upgrade")

    def __init__(self, raw: bytes) -> None:
        matched = _ANSWER.fullmatch(raw)
        if matched is None:
            raise BadHead(502, "its answer is not HTTP/1.1: " + _what_is_wrong(raw))
        minor, status, reason, block = matched.groups()
        kept, meant, named = _sorted(block)
        self._raw = block
        self.status = int(status)
        is_old = minor == b"0"
        self.keep_alive = b"keep-alive" in named if is_old else b"close" not in named
        self.has_length = b"content-length" in meant
        framed = self.has_length or b"transfer-encoding" in meant
        self.length = _length(meant, is_old=is_old) if framed else UNTIL_CLOSE
        if self.status < 200 or self.status == 204:
            self.length, self.has_length = 0, False
        self.has_request_id = b"x-request-id" in meant
        self.upgrade = next(iter(meant.get(b"upgrade", ())), None)
        forwarded = (b"expect", b"host", b"k-network-probe", b"x-forwarded-for", b"x-request-id")
        also = [name + b": " + value for name in forwarded for value in meant.get(name, ())]
        self.passed = b"\r\n".join([b"HTTP/1.1 %b%b" % (status, reason or b" "), *kept, *also]) + b"\r\n"
        self.sized = self.passed + b"content-length: %d\r\n" % self.length if self.has_length else self.passed

    def fields(self) -> Fields:
        """Return every header as it came, names in lower case."""
        return fields_of(self._raw)


def _sorted(block: bytes) -> tuple[list[bytes], dict[bytes, list[bytes]], set[bytes]]:
    """Return the lines that go on as they are, the values of the names that mean something, and connection options."""
    lines: list[tuple[bytes, bytes]] = []
    meant: dict[bytes, list[bytes]] = {}
    for line in block.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in _MEANT:
            meant.setdefault(name, []).append(value.strip(b" \t"))
        elif name not in _HOP_BY_HOP:
            lines.append((name, line))
    named = {token.strip(b" \t").lower() for value in meant.get(b"connection", ()) for token in value.split(b",")}
    return [line for name, line in lines if name not in named], meant, named


def _length(meant: dict[bytes, list[bytes]], *, is_old: bool) -> int:
    lengths, codings = meant.get(b"content-length", []), meant.get(b"transfer-encoding", [])
    if codings:
        if lengths:
            raise BadHead(400, "content-length and transfer-encoding contradict each other: send one of them")
        if is_old:
            raise BadHead(400, "HTTP/1.0 knows no transfer-encoding")
        if [coding.lower() for coding in codings] != [b"chunked"]:
            found = b", ".join(codings).decode("latin-1")
            raise BadHead(400, f"transfer-encoding may be chunked, and nothing else; found {found!r}")
        return CHUNKED
    if len(lengths) > 1:
        raise BadHead(400, f"content-length comes once, found {len(lengths)}")
    if lengths and not _DIGITS.fullmatch(lengths[0]):
        raise BadHead(400, f"content-length is a number of bytes, found {lengths[0].decode('latin-1')!r}")
    return int(lengths[0]) if lengths else 0


def _expects(meant: dict[bytes, list[bytes]]) -> bool:
    expected = meant.get(b"expect", [])
    if any(value.lower() != b"100-continue" for value in expected):
        raise BadHead(417, f"expect may be 100-continue, found {expected[0].decode('latin-1')!r}")
    return bool(expected)


def fields_of(block: bytes) -> Fields:
    """Return the headers of lines that end in CR LF each, names in lower case."""
    return [
        (name.lower(), value.strip(b" \t"))
        for name, _, value in (line.partition(b":") for line in block.split(b"\r\n")[:-1])
    ]


def _what_is_wrong(raw: bytes) -> str:
    """Return the line at which it stops being a head."""
    first, *rest = raw[:-4].split(b"\r\n")
    if not (_REQUEST.fullmatch(first + b"\r\n\r\n") or _ANSWER.fullmatch(first + b"\r\n\r\n")):
        return f"its first line is {first[:100]!r}"
    line = next((line for line in rest if not _LINE.fullmatch(line)), b"")
    return f"a header line is {line[:100]!r}"


_LINE = re.compile(rb"%b:[\t\x20-\x7e\x80-\xff]*+" % _TOKEN)
