"""Calls as values: what a handler gets and gives, and how it looks on the wire.

Source: "gRPC over HTTP2" (PROTOCOL-HTTP2.md of grpc/grpc).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import TypeAlias

from servery_http.http2.headers import Fields, encode

PREFIX = struct.Struct(">BI")
"""Of a message: whether it is compressed, its length."""

_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_ENCODINGS = b"identity, deflate, gzip"
"""That messages may have which come; ours go as they are, as those of `grpcio` do where nothing else is said."""

_HEAD = ((b":status", b"200"), (b"content-type", b"application/grpc"), (b"grpc-accept-encoding", _ENCODINGS))
_OK = ((b"grpc-status", b"0"),)
HEAD = encode(_HEAD)
OK = encode(_OK)
_NO_METADATA = frozenset({b"content-type", b"grpc-accept-encoding", b"grpc-encoding", b"grpc-message", b"grpc-status"})


class Status(IntEnum):
    """How a call ended."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class Failure(Exception):
    """A call ends with ``status`` and words, and no message."""

    def __init__(self, status: Status, message: str, trailers: Fields = ()) -> None:
        super().__init__(message)
        self.status = status
        self.trailers = trailers


@dataclass(frozen=True, slots=True)
class Answer:
    """A message with metadata, before and after it."""

    message: bytes
    head: Fields
    trailers: Fields


Outcome: TypeAlias = bytes | Answer | Failure
"""What comes of a call: mostly a message and nothing beside."""


def message_of(outcome: bytes | Answer) -> bytes:
    """Return the message alone."""
    return outcome.message if isinstance(outcome, Answer) else outcome


Done: TypeAlias = Callable[[Outcome], None]
"""To be called once, with the message or why there is none; nothing happens where nobody waits any more."""

Handler: TypeAlias = Callable[[bytes, Done], Callable[[], object] | None]
"""Message in; calls ``Done``, before it returns where nothing need be waited for, or raises Failure. What it returns is
called where nobody waits any more: the client gave up, went away, or it is too late."""


@dataclass(frozen=True, slots=True)
class Headed:
    """A handler that depends on a call's head: ``handler_of`` is asked once for heads that are alike."""

    handler_of: Callable[[Fields], Handler]


Handlers: TypeAlias = Mapping[bytes, Handler | Headed]
"""By path, ``/package.Service/Method``; unary both ways."""


def timeout_seconds(value: bytes | None) -> float | None:
    """Return what ``grpc-timeout`` says, or None where it says nothing.

    Raises:
        ValueError: It is no such value.
    """
    if value is None:
        return None
    number, unit = value[:-1], value[-1:]
    if unit not in _SECONDS or not number.isdigit() or len(number) > 8:
        raise ValueError(
            f"grpc-timeout is up to eight digits and one of {b''.join(_SECONDS).decode()}, found {value!r}"
        )
    return int(number) * _SECONDS[unit]


@lru_cache(maxsize=256)
def trailers_only(status: Status, message: str, metadata: Fields = ()) -> bytes:
    """Return the block that is a whole answer: a failure before any message."""
    return encode(
        (
            (b":status", b"200"),
            (b"content-type", b"application/grpc"),
            (b"grpc-accept-encoding", _ENCODINGS),
            (b"grpc-status", b"%d" % status),
            (b"grpc-message", percent_encoded(message)),
            *metadata,
        )
    )


def percent_encoded(message: str) -> bytes:
    """Return a message as ``grpc-message`` carries it: printable ASCII but ``%`` as it is, other bytes in hex."""
    return b"".join(
        b"%c" % byte if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in message.encode()
    )


def metadata_of(fields: Fields) -> Fields:
    """Return what of a head or of trailers is not the protocol's own."""
    return tuple([field for field in fields if field[0][:1] != b":" and field[0] not in _NO_METADATA])


def blocks_of(answer: Answer) -> tuple[bytes, bytes]:
    """Return the head and the trailers of an answer that has metadata."""
    return encode((*_HEAD, *answer.head)), encode((*_OK, *answer.trailers))
