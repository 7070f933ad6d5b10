"""Header blocks: decoded by ``hpack`` once for each block that a connection repeats, encoded without state.

Source: RFC 7541; RFC 9113, 8.2 and 8.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import hpack

from servery_http.http2.frames import ConnectionBroken, ErrorCode, StreamBroken

Fields: TypeAlias = tuple[tuple[bytes, bytes], ...]

NO_TABLE = b"\x20"
"""In front of our first block: we keep no dynamic table, whatever size the peer allows."""

_ENTRY_BYTES = 32
"""That each field counts beyond its name and value. Source: RFC 9113, 6.5.2."""
_CONNECTION_FIELDS = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_REQUEST_FIELDS = frozenset({b":method", b":scheme", b":path", b":authority"})
_UPPER = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")

_encoder = hpack.Encoder()


def encode(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a block that reads the same on every connection: it uses the static table only, and adds to no other.

    A client of ours asks for little at a time; bytes saved by a dynamic table cost more than they are worth here.
    """
    return bytes(_encoder.encode([hpack.NeverIndexedHeaderTuple(*field) for field in fields]))


class Decoder:
    """One direction of one connection.

    Args:
        max_list_bytes: Of one decoded block; beyond it the connection is broken, for hpack stops in the middle.
    """

    __slots__ = ("_decoder",)

    def __init__(self, *, max_list_bytes: int) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=max_list_bytes)

    def __call__(self, block: bytes) -> tuple[Fields, bool]:
        """Return the fields of ``block``, and whether every such block until the next False means the same.

        Raises:
            ConnectionBroken: It is no header block, or decodes to too much.
        """
        entries = self._decoder.header_table.dynamic_entries
        before = (len(entries), entries[0] if entries else None, self._decoder.header_table_size)
        try:
            fields = tuple((bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True))
        except hpack.OversizedHeaderListError as error:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, str(error)) from error
        except (hpack.HPACKError, IndexError) as error:
            raise ConnectionBroken(ErrorCode.COMPRESSION_ERROR, f"not a header block: {error}") from error
        after = (len(entries), entries[0] if entries else None, self._decoder.header_table_size)
        # hpack adds a new tuple in front for each entry, so the same one means that nothing was added.
        return fields, before[0] == after[0] and before[1] is after[1] and before[2] == after[2]


def list_bytes(fields: Fields) -> int:
    """Return the size that SETTINGS_MAX_HEADER_LIST_SIZE bounds."""
    return sum(len(name) + len(value) + _ENTRY_BYTES for name, value in fields)


def check_request(fields: Fields) -> None:
    """Refuse a request's head that intermediaries could read in two ways.

    Raises:
        StreamBroken: Source: RFC 9113, 8.2.1, 8.2.2, 8.3 and 8.3.1.
    """
    seen: set[bytes] = set()
    in_fields = False
    for name, value in fields:
        if name[:1] == b":":
            if in_fields or name in seen or name not in _REQUEST_FIELDS:
                raise _malformed(f"{name!r} is unknown, comes twice or comes late")
            seen.add(name)
            if name == b":path" and not value:
                raise _malformed(":path is empty")
        else:
            in_fields = True
            _check_field(name, value)
    if not {b":method", b":scheme", b":path"} <= seen:
        raise _malformed(f"a request has :method, :scheme and :path, found {sorted(seen)}")


def check_trailers(fields: Fields) -> None:
    """Refuse trailers that are a head.

    Raises:
        StreamBroken: Source: RFC 9113, 8.1.
    """
    for name, value in fields:
        if name[:1] == b":":
            raise _malformed(f"{name!r} in trailers")
        _check_field(name, value)


def _check_field(name: bytes, value: bytes) -> None:
    if not name or not _UPPER.isdisjoint(name) or name in _CONNECTION_FIELDS:
        raise _malformed(f"no field of HTTP/2: {name!r}")
    if name == b"te" and value != b"trailers":
        raise _malformed(f"te may be 'trailers', found {value!r}")
    if b"\n" in value or b"\r" in value or b"\0" in value:
        raise _malformed(f"{name!r} holds a line break or a zero")


def _malformed(why: str) -> StreamBroken:
    return StreamBroken(ErrorCode.PROTOCOL_ERROR, why)


def first(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first value of ``name``, or None."""
    for key, value in fields:
        if key == name:
            return value
    return None
