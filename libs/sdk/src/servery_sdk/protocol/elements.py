"""Elements of tensors: JSON lists and raw bytes, to and from numpy. What v1, v2 and gRPC share."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from servery_sdk.manifests import Json
from servery_sdk.protocol.datatypes import Datatype
from servery_sdk.protocol.errors import RequestError

Array = npt.NDArray[np.generic]

_LENGTH = struct.Struct("<I")
BYTES_ONLY = frozenset({Datatype.FP16, Datatype.BF16})
"""Datatypes that JSON has no form for."""
_BYTES, _BF16 = Datatype.BYTES, Datatype.BF16.dtype
"""By names of their own: to ask the enumeration for a member takes 0.2 microseconds."""

_INTEGER_KINDS = "iu"
_FEW = 32
"""Elements that the encoder writes sooner from a list: 0.2 microseconds for two of them, and 1 from an array."""
_MAX_RANK = 32


def checked_shape(name: str, shape: Sequence[Json]) -> tuple[int, ...]:
    """Return ``shape`` as a tuple.

    Raises:
        RequestError: Something in it is not a length.
    """
    if not isinstance(shape, list | tuple):
        raise _no_shape(name, shape)
    elements = 1
    for length in shape:
        # A bool is no length, though Python takes it for an integer.
        if type(length) is not int or not 0 <= length < 2**63:
            raise _no_shape(name, shape)
        # numpy refuses what overflows even where a length of zero makes it empty.
        elements *= length or 1
    if elements >= 2**48 or len(shape) > _MAX_RANK:
        raise RequestError(f"input {name!r}: shape {shape!r} is too large")
    return tuple(shape)


def _no_shape(name: str, shape: Json) -> RequestError:
    return RequestError(f"input {name!r}: shape {shape!r} must be a list of integers that are not negative")


def from_json(name: str, datatype: Datatype, shape: tuple[int, ...], data: Json) -> Array:
    """Return the array ``[*shape]`` that a JSON list, flat or nested, spells.

    Raises:
        RequestError: Wrong element, wrong count, or ragged.
    """
    if not isinstance(data, list):
        raise RequestError(f"input {name!r}: data must be a list, found {_kind(data)}")
    if datatype is _BYTES:
        return _texts(name, shape, data)
    try:
        found = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise RequestError(f"input {name!r}: data is ragged: rows differ in length") from error
    # The elements of most requests are what they are said to be.
    array = found if found.dtype == datatype.dtype else _numbers(name, datatype, data, found)
    return array if array.shape == shape else reshaped(name, array, shape)


def reshaped(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    """Return ``array`` as ``[*shape]``.

    Raises:
        RequestError: The counts differ.
    """
    if array.shape == shape:
        return array
    if array.size != math.prod(shape):
        raise RequestError(
            f"input {name!r}: shape {list(shape)} needs {math.prod(shape)} elements, data has {array.size}"
        )
    return array.reshape(shape)


def _numbers(name: str, datatype: Datatype, data: list[Json], found: Array) -> Array:
    if datatype in BYTES_ONLY:
        raise RequestError(f"input {name!r}: {datatype} has no JSON form; send it as a binary tensor")
    wanted = datatype.dtype
    if found.size == 0:
        return found.astype(wanted)
    if datatype.dtype.kind in _INTEGER_KINDS and found.dtype.kind in "fO":
        # Integers of which some need 64 bits without a sign and some a sign become floats, which lose digits.
        exact = np.asarray(data, dtype=object)
        if all(type(element) is int for element in exact.flat):
            return _integers(name, datatype, exact)
    if found.dtype.kind not in "biuf":
        raise RequestError(f"input {name!r}: datatype {datatype} takes numbers, data holds {_kind_of(found)}")
    if wanted.kind == "b":
        if found.dtype.kind != "b" and not np.isin(found, (0, 1)).all():
            raise RequestError(f"input {name!r}: datatype BOOL takes true and false")
        return found.astype(wanted)
    if wanted.kind in _INTEGER_KINDS:
        return _integers(name, datatype, found)
    return found.astype(wanted)


def _integers(name: str, datatype: Datatype, found: Array) -> Array:
    if found.dtype.kind == "f" and not np.equal(np.mod(found, 1), 0).all():
        raise RequestError(f"input {name!r}: datatype {datatype} takes integers, data holds fractions")
    if found.dtype.kind != "b":
        bounds = np.iinfo(np.dtype(datatype.dtype.str))
        low, high = found.min(), found.max()
        if low < bounds.min or high > bounds.max:
            raise RequestError(
                f"input {name!r}: datatype {datatype} takes {bounds.min} to {bounds.max}, data holds {low} to {high}"
            )
    return found.astype(datatype.dtype)


def _texts(name: str, shape: tuple[int, ...], data: list[Json]) -> Array:
    flat = list(_flat(data))
    for element in flat:
        if not isinstance(element, str):
            raise RequestError(f"input {name!r}: datatype BYTES takes strings, data holds {_kind(element)}")
    return reshaped(name, objects([element.encode() for element in flat]), shape)


def objects(elements: Sequence[Json]) -> Array:
    """Return a one-dimensional object array; numpy would guess a width or a depth."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _flat(data: Iterable[Json]) -> Iterable[Json]:
    for element in data:
        if isinstance(element, list):
            yield from _flat(element)
        else:
            yield element


def from_raw(name: str, datatype: Datatype, shape: tuple[int, ...], raw: bytes | memoryview) -> Array:
    """Return the array ``[*shape]`` that lies row-major, little-endian in ``raw``, without a copy where it can.

    Raises:
        RequestError: The size does not fit shape and datatype.
    """
    if datatype is _BYTES:
        return reshaped(name, objects(list(_split_lengths(name, raw))), shape)
    wanted = math.prod(shape) * datatype.dtype.itemsize
    if len(raw) != wanted:
        raise RequestError(
            f"input {name!r}: shape {list(shape)} of {datatype} takes {wanted} bytes, {len(raw)} were sent"
        )
    return np.frombuffer(raw, dtype=datatype.dtype).reshape(shape)


def _split_lengths(name: str, raw: bytes | memoryview) -> Iterable[bytes]:
    at, end = 0, len(raw)
    while at < end:
        if end - at < _LENGTH.size:
            raise RequestError(f"input {name!r}: a BYTES element's length is cut off at byte {at}")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if end - at < length:
            raise RequestError(f"input {name!r}: a BYTES element of {length} bytes is cut off at byte {at}")
        yield bytes(raw[at : at + length])
        at += length


def to_raw(datatype: Datatype, data: Array) -> bytes:
    """Return ``data`` row-major, little-endian; BYTES elements each behind their length (four bytes)."""
    if datatype is not _BYTES:
        return np.ascontiguousarray(data, dtype=datatype.dtype).tobytes()
    parts: list[bytes] = []
    for element in data.ravel():
        encoded = as_bytes(element)
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


def as_bytes(element: Json) -> bytes:
    """Return a BYTES element's bytes; anything but bytes is written as text first."""
    return element if isinstance(element, bytes) else str(element).encode()


def as_text(element: Json) -> str:
    """Return a BYTES element as JSON can hold it; bytes that are not UTF-8 keep their values as Latin-1."""
    if not isinstance(element, bytes):
        return str(element)
    try:
        return element.decode()
    except UnicodeDecodeError:
        return element.decode("latin-1")


def to_json(data: Array) -> Json:
    """Return ``data`` as what the JSON encoder takes: a few numbers in lists, many as the array, BYTES in lists of text."""
    dtype = data.dtype
    kind = dtype.kind
    if kind in "biuf":
        # Eight bytes of a float are Python's own; of a shorter one Python would write digits that it does not have.
        if data.size <= _FEW and (kind != "f" or dtype.itemsize == 8):
            return data.tolist()
        # By its letter: numpy has two types of eight-byte integers here, and the encoder knows the elements of one.
        return np.ascontiguousarray(data).view(data.dtype.str)
    if dtype == _BF16:
        return data.astype(np.float32)
    flat = [as_text(element) for element in data.ravel()]
    return _nested(flat, data.shape)


def _nested(flat: list[str], shape: tuple[int, ...]) -> Json:
    for length in reversed(shape[1:]):
        flat = [flat[at : at + length] for at in range(0, len(flat), length or 1)]  # type: ignore[misc]  # grows a level
    return flat


def _kind(value: Json) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _kind_of(array: Array) -> str:
    return {"U": "strings", "S": "strings", "O": "null, objects or numbers too large"}.get(array.dtype.kind, "others")
