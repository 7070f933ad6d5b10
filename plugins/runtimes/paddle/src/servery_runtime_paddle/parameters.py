"""The file of parameters: whether all of it is there. paddle takes what is missing from whatever lies in memory.

Source: Paddle ``phi/core/framework/dense_tensor_serialize.cc`` and ``framework.proto`` (``VarType.TensorDesc``).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_LEVEL = struct.Struct("<Q")
_VERSION_AND_LEVELS = struct.Struct("<IQ")
_VERSION_AND_LENGTH = struct.Struct("<Ii")
_BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16, 32: 1, 33: 1}
"""Of an element, by the number of its type."""
_TYPE, _DIMENSION = 1, 2


class CutOff(ValueError):
    """The file ends inside a tensor. Says which, and how many bytes are missing."""


def check(file: Path) -> None:
    """Look at the head of every tensor; one in a form that is not known is left to paddle, with all that follow.

    Raises:
        CutOff: The file ends too early.
    """
    size = file.stat().st_size
    with file.open("rb") as opened:
        index = 0
        while (at := opened.tell()) < size:
            length = _length(opened)
            if length is None:
                return
            missing = opened.tell() + length - size
            if missing > 0:
                raise CutOff(
                    f"the file ends inside tensor {index}, which begins at byte {at}: {missing} bytes are missing"
                )
            opened.seek(length, os.SEEK_CUR)
            index += 1


def _length(opened: BinaryIO) -> int | None:
    """Read a tensor's head; return the bytes of its data, None where the form is another."""
    version, levels = _read(opened, _VERSION_AND_LEVELS)
    if version:
        return None
    for _ in range(levels):
        opened.seek(_read(opened, _LEVEL)[0], os.SEEK_CUR)
    version, length = _read(opened, _VERSION_AND_LENGTH)
    if version or length < 0:
        return None
    element, dimensions = None, []
    for field, value in _fields(opened.read(length)):
        if field == _TYPE:
            element = _BYTES.get(value)
        elif field == _DIMENSION:
            dimensions.append(value)
    return None if element is None else element * math.prod(dimensions)


def _read(opened: BinaryIO, form: struct.Struct) -> tuple[int, ...]:
    found = opened.read(form.size)
    if len(found) < form.size:
        raise CutOff(f"the file ends inside the head of a tensor: {form.size - len(found)} bytes are missing")
    return form.unpack(found)


def _fields(message: bytes) -> Iterator[tuple[int, int]]:
    """Yield the numbers in a protocol buffer's message, each with its field's; those in packed form one by one."""
    at = 0
    while at < len(message):
        key, at = _number(message, at)
        value, at = _number(message, at)
        if key & 7 == 0:
            yield key >> 3, value
            continue
        end = at + value
        while at < end:
            value, at = _number(message, at)
            yield key >> 3, value


def _number(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message):
            raise CutOff("the file ends inside the head of a tensor")
        byte = message[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at
