"""Sums of bytes, as sources give them and as the engine reckons them."""

from __future__ import annotations

import base64
import enum
import hashlib
import zlib
from dataclasses import dataclass
from typing import Protocol

import google_crc32c

Bytes = bytes | bytearray | memoryview


class DigestAlgorithm(enum.StrEnum):
    """The sums that sources give."""

    SHA256 = "sha256"
    SHA512 = "sha512"
    SHA1 = "sha1"
    MD5 = "md5"
    CRC32C = "crc32c"
    CRC32 = "crc32"


@dataclass(frozen=True, slots=True)
class Digest:
    """A sum of an object's bytes. ``value`` is the sum itself, big-endian where it is a number."""

    algorithm: DigestAlgorithm
    value: bytes

    @classmethod
    def of_hex(cls, algorithm: DigestAlgorithm, text: str) -> Digest:
        """Return the digest that ``text`` spells in hexadecimal; ValueError where it is none."""
        return cls(algorithm, bytes.fromhex(text))

    @classmethod
    def of_base64(cls, algorithm: DigestAlgorithm, text: str) -> Digest:
        """Return the digest that ``text`` spells in base64; ValueError where it is none."""
        return cls(algorithm, base64.b64decode(text, validate=True))

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value.hex()}"


class Hasher(Protocol):
    """Takes bytes in order."""

    def update(self, chunk: Bytes, /) -> object:
        """Take the next bytes."""

    def digest(self) -> bytes:
        """Return the sum of all bytes so far."""


def hasher(algorithm: DigestAlgorithm) -> Hasher:
    """Return a new hasher. ``hashlib``'s let other threads run meanwhile."""
    match algorithm:
        case DigestAlgorithm.CRC32C:
            return _Crc32c()
        case DigestAlgorithm.CRC32:
            return _Crc32()
        case _:
            return hashlib.new(algorithm, usedforsecurity=False)


def digest_of(algorithm: DigestAlgorithm, content: Bytes) -> Digest:
    """Return the sum of ``content``."""
    taken = hasher(algorithm)
    taken.update(content)
    return Digest(algorithm, taken.digest())


class _Crc32c:
    def __init__(self) -> None:
        self._sum = google_crc32c.Checksum()  # type: ignore[no-untyped-call]  # it ships no types for it

    def update(self, chunk: Bytes, /) -> None:
        # Of a buffer that may be written to it takes nothing.
        self._sum.update(bytes(chunk))  # type: ignore[no-untyped-call]

    def digest(self) -> bytes:
        taken: bytes = self._sum.digest()  # type: ignore[no-untyped-call]
        return taken


class _Crc32:
    def __init__(self) -> None:
        self._sum = 0

    def update(self, chunk: Bytes, /) -> None:
        self._sum = zlib.crc32(chunk, self._sum)

    def digest(self) -> bytes:
        return self._sum.to_bytes(4, "big")
