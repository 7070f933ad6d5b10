"""Whether a file in UBJSON, the binary form of XGBoost's models, is whole.

XGBoost reads past the end of one that is cut off and takes the process with it, so it is walked through first.

Source: Universal Binary JSON, draft 12; XGBoost src/common/json.cc (UBJReader), which counts all its arrays.
"""

from __future__ import annotations

import struct

_SIZES = {b"Z": 0, b"T": 0, b"F": 0, b"i": 1, b"U": 1, b"C": 1, b"I": 2, b"l": 4, b"d": 4, b"L": 8, b"D": 8}
_INTEGERS = {b"i": "b", b"U": "B", b"I": ">h", b"l": ">i", b"L": ">q"}


class Broken(ValueError):
    """Not UBJSON, or cut off; says at which byte."""


def check(document: bytes) -> None:
    """Walk through ``document``.

    Raises:
        Broken: It is not one whole object.
    """
    walk = _Walk(document)
    walk.take(b"{")
    walk.rest_of_object()


class _Walk:
    def __init__(self, document: bytes) -> None:
        self._document = document
        self._at = 0
        # Of each open container, innermost last: values to come in an array, None in an object.
        self._open: list[int | None] = []

    def take(self, mark: bytes) -> None:
        found = self._mark()
        if found != mark:
            raise Broken(f"byte {self._at - 1}: {mark.decode()!r} was expected, found {found!r}")

    def rest_of_object(self) -> None:
        self._open.append(None)
        while self._open:
            left = self._open[-1]
            if left is None:
                if self._document[self._at : self._at + 1] == b"}":
                    self._at += 1
                    self._open.pop()
                    continue
                self._text()
            elif left == 0:
                self._open.pop()
                continue
            else:
                self._open[-1] = left - 1
            self._value(self._mark())

    def _value(self, mark: bytes) -> None:
        if mark in _SIZES:
            self._skip(_SIZES[mark])
        elif mark == b"S":
            self._text()
        elif mark == b"{":
            self._open.append(None)
        elif mark == b"[":
            self._array()
        else:
            raise Broken(f"byte {self._at - 1}: {mark!r} starts no value")

    def _array(self) -> None:
        if self._document[self._at : self._at + 1] == b"$":
            self._at += 1
            mark = self._mark()
            if mark not in _SIZES:
                raise Broken(f"byte {self._at - 1}: {mark!r} is no type of numbers")
            self.take(b"#")
            self._skip(self._integer() * _SIZES[mark])
        else:
            self.take(b"#")
            self._open.append(self._integer())

    def _text(self) -> None:
        self._skip(self._integer())

    def _integer(self) -> int:
        mark = self._mark()
        if mark not in _INTEGERS:
            raise Broken(f"byte {self._at - 1}: {mark!r} is no length")
        start = self._at
        self._skip(_SIZES[mark])
        (found,) = struct.unpack_from(_INTEGERS[mark], self._document, start)
        if found < 0:
            raise Broken(f"byte {start}: a length is {found}")
        return int(found)

    def _mark(self) -> bytes:
        self._skip(1)
        return self._document[self._at - 1 : self._at]

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._document):
            raise Broken(f"it is cut off: {len(self._document)} bytes, at least {self._at} are needed")
