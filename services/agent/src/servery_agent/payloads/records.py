"""An event as bytes in the spool. What is the same for all events of an agent is not in it: settings say that."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate

from servery_sdk.payloads import Part

_FIXED = struct.Struct("<QdBBHHHHII")
_IS_WHOLE = 1
_SHORT_BYTES = 65535
MAX_ID_BYTES = 1024


@dataclass(slots=True)
class Record:
    """One event of the spool.

    Attributes:
        number: Counts an agent's events, over all its lives.
        metadata: JSON, or nothing.
        body: Where it is long, where the spool has it.
    """

    number: int
    part: Part
    occurred: float
    status: int
    id: str
    content_type: str
    subject: str
    metadata: bytes
    body: bytes | memoryview
    is_whole: bool


_PARTS = (Part.REQUEST, Part.RESPONSE)


def head_of(
    number: int,
    part: Part,
    occurred: float,
    status: int,
    identified: bytes,
    content_type: bytes,
    subject: bytes,
    metadata: bytes,
    body_bytes: int,
    *,
    is_whole: bool,
) -> bytes:
    """Return what stands in a record before its body."""
    content_type, subject = content_type[:_SHORT_BYTES], subject[:_SHORT_BYTES]
    fixed = _FIXED.pack(
        number,
        occurred,
        part is Part.RESPONSE,
        is_whole,
        status,
        len(identified),
        len(content_type),
        len(subject),
        len(metadata),
        body_bytes,
    )
    return b"".join((fixed, identified, content_type, subject, metadata))


def records_of(block: bytes | memoryview) -> list[Record]:
    """Return the records of a block.

    Raises:
        struct.error: It is none.
    """
    found: list[Record] = []
    at = 0
    while at < len(block):
        number, occurred, part, flags, status, *sizes = _FIXED.unpack_from(block, at)
        at += _FIXED.size
        type_at, subject_at, metadata_at, body_at, end = accumulate(sizes)
        head = bytes(block[at : at + body_at])
        found.append(
            Record(
                number,
                _PARTS[part],
                occurred,
                status,
                head[:type_at].decode("latin-1"),
                head[type_at:subject_at].decode("latin-1"),
                head[subject_at:metadata_at].decode("latin-1"),
                head[metadata_at:],
                block[at + body_at : at + end],
                bool(flags & _IS_WHOLE),
            )
        )
        at += end
    return found
