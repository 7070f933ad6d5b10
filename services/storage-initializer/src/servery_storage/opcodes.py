"""What a pickle would import, read from its opcodes: nothing is imported, called or kept that is large.

Unpickling runs what a pickle names while it reads, so what stands after an array in joblib's files, or before a file is
cut, counts as well. Scanners that stop at the first byte they do not understand see neither.
"""

from __future__ import annotations

import codecs
import math
import pickletools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

_KEPT_BYTES = 1024
"""Longer texts are no names."""
_MAX_BYTES = 2**48
"""Of one value: a file may say any number, and no file has more."""
_MAX_DEPTH = 32
_LENGTHS = {"1": 1, "2": 2, "4": 4, "8": 8}
_CODE = re.compile(r"[<>|=]?([biufcSUVmMO])(\d+)")


class Unreadable(Exception):
    """The bytes are no pickle from here on, or one that cannot be followed."""


@dataclass(frozen=True, slots=True)
class Named:
    """A class or function that a pickle imports; ``module`` is None where it cannot be told which."""

    module: str | None
    name: str = ""

    def __str__(self) -> str:
        return f"{self.module}.{self.name}" if self.module is not None else "a name that it makes up as it goes"


class _Other:
    """A value of no interest."""


class _Mark:
    """Where opcodes that take many values begin to take."""


@dataclass(slots=True)
class _Made:
    """What a call gave: of dtypes and of joblib's wrapper of an array it matters what it was made of."""

    function: object
    arguments: object
    state: object = None


_OTHER, _MARK = _Other(), _Mark()
_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


def names(stream: BinaryIO) -> Iterator[Named]:
    """Yield what each of the pickles that follow each other in ``stream`` imports, in order, once or more.

    Args:
        stream: It is read; ``seek`` forward from where it is passes over arrays.

    Raises:
        Unreadable: Of the first pickle; what follows it may be anything.
    """
    source = _Source(stream)
    yield from _Machine(source).run()
    while True:
        machine = _Machine(source)
        try:
            for found in machine.run():
                # Arrays may follow, whose bytes mean nothing: what they seem to name is not what somebody wrote there.
                if found.module is not None or machine.has_protocol:
                    yield found
        except Unreadable:
            return


class _Source:
    """A stream, and how far it is read: not all of them can tell."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._can_seek = stream, stream.seekable()
        self.at = 0

    def byte(self) -> bytes:
        """Return the next byte, or none at the end."""
        self.at += 1
        return self._stream.read(1)

    def exactly(self, size: int) -> bytes:
        """Return the next ``size`` bytes."""
        content = self._stream.read(size)
        self.at += len(content)
        if len(content) < size:
            raise Unreadable(f"ends at byte {self.at}, within an instruction")
        return content

    def line(self) -> str | None:
        """Return the next line, or None for one too long for a name."""
        line = whole = self._stream.readline(_KEPT_BYTES)
        self.at += len(line)
        while len(line) == _KEPT_BYTES and not line.endswith(b"\n"):
            line = self._stream.readline(_KEPT_BYTES)
            self.at += len(line)
        if not line.endswith(b"\n"):
            raise Unreadable(f"ends at byte {self.at}, within a line")
        return whole[:-1].decode("utf-8", "surrogateescape") if line is whole else None

    def pass_over(self, size: int) -> None:
        """Go past ``size`` bytes, of which the last must be there."""
        if size > _MAX_BYTES:
            raise Unreadable(f"has a value of {size} bytes at byte {self.at}")
        if size > 0 and self._can_seek:
            self._stream.seek(size - 1, 1)
            self.at += size - 1
            size = 1
        while size > 0:
            size -= len(self.exactly(min(size, 1024**2)))


class _Machine:
    """One pickle's stack and memory, with what is of no interest left out."""

    def __init__(self, source: _Source, depth: int = 0) -> None:
        self._source, self._depth = source, depth
        self.has_protocol = False
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}

    def run(self) -> Iterator[Named]:
        """Yield what the pickle imports, up to its end."""
        while True:
            opcode = self._opcode()
            if opcode.name == "STOP":
                return
            argument = self._argument(opcode)
            try:
                yield from self._step(opcode, argument)
            except IndexError as error:
                raise Unreadable(f"takes from an empty stack at byte {self._source.at}") from error

    def _opcode(self) -> pickletools.OpcodeInfo:
        code = self._source.byte()
        found = _OPCODES.get(code)
        if found is None:
            what = f"has {code!r}, which is no instruction," if code else "ends"
            raise Unreadable(f"{what} at byte {self._source.at}")
        return found

    def _argument(self, opcode: pickletools.OpcodeInfo) -> object:
        """Return an opcode's argument; of what is long, none of it."""
        described = opcode.arg
        if described is None:
            return None
        if described.n >= 0:
            return self._decoded(described, self._source.exactly(described.n))
        if described.n == pickletools.UP_TO_NEWLINE:
            return self._lines(2 if opcode.name in {"GLOBAL", "INST"} else 1)
        # What tells its own length in the bytes before it.
        width = int(described.name[-1]) if described.name[-1] in _LENGTHS else 1
        length = int.from_bytes(self._source.exactly(width), "little")
        if length > _KEPT_BYTES:
            self._source.pass_over(length)
            return _OTHER
        content = self._source.exactly(length)
        if "unicode" in described.name:
            return _text(content, "utf-8", "surrogatepass")
        if "string" in described.name:
            return content.decode("latin-1")
        return int.from_bytes(content, "little", signed=True) if described.name.startswith("long") else _OTHER

    def _decoded(self, described: pickletools.ArgumentDescriptor, content: bytes) -> object:
        if described.name.startswith(("int", "uint")):
            return int.from_bytes(content, "little", signed=described.name.startswith("int"))
        return _OTHER

    def _lines(self, count: int) -> object:
        lines = [self._source.line() for _ in range(count)]
        if count == 1:
            return lines[0] if lines[0] is not None else _OTHER
        if None in lines:
            raise Unreadable(f"has a name without an end, at byte {self._source.at}")
        return lines

    def _step(self, opcode: pickletools.OpcodeInfo, argument: object) -> Iterator[Named]:  # a machine's table
        name, stack = opcode.name, self._stack
        match name:
            case "GLOBAL" | "INST":
                assert isinstance(argument, list)
                found = Named(argument[0], argument[1])
                yield found
                stack.append(_Made(found, tuple(self._since_mark())) if name == "INST" else found)
            case "STACK_GLOBAL":
                last, module = stack.pop(), stack.pop()
                found = Named(module, last) if isinstance(module, str) and isinstance(last, str) else Named(None)
                yield found
                stack.append(found)
            case "EXT1" | "EXT2" | "EXT4":
                yield Named(None)
                stack.append(_OTHER)
            case "MARK":
                stack.append(_MARK)
            case "POP_MARK" | "APPENDS" | "SETITEMS" | "ADDITEMS":
                self._added(self._since_mark(), keyed=name == "SETITEMS")
            case "APPEND":
                self._popped(1)
            case "SETITEM":
                self._added(self._popped(2), keyed=True)
            case "TUPLE" | "LIST" | "FROZENSET":
                items = self._since_mark()
                stack.append(tuple(items) if name == "TUPLE" else _OTHER)
            case "DICT":
                items = self._since_mark()
                stack.append({})
                self._added(items, keyed=True)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self._popped(int(name[-1]))))
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_DICT":
                stack.append({})
            case "OBJ":
                items = self._since_mark()
                stack.append(_Made(items[0], tuple(items[1:])))
            case "REDUCE" | "NEWOBJ":
                arguments = self._popped(1)[0]
                stack.append(_Made(stack.pop(), arguments))
            case "NEWOBJ_EX":
                arguments = self._popped(2)[0]
                stack.append(_Made(stack.pop(), arguments))
            case "BUILD":
                state = self._popped(1)[0]
                yield from self._built(stack[-1], state)
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[_whole(argument)] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(self._memo.get(_whole(argument), _OTHER))
            case "POP":
                stack.pop()
            case "DUP":
                stack.append(stack[-1])
            case "BINPERSID":
                stack[-1] = _OTHER
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "INT" | "LONG":
                stack.append(_whole(argument))
            case "STRING":
                stack.append(
                    argument if argument is _OTHER else _unescaped(str(argument)[1:-1].encode(errors="surrogateescape"))
                )
            case "UNICODE":
                stack.append(
                    argument
                    if argument is _OTHER
                    else _text(str(argument).encode(errors="surrogateescape"), "raw-unicode-escape")
                )
            case "PROTO":
                self.has_protocol = True
            case "FRAME" | "READONLY_BUFFER":
                pass
            case _:
                # What is left only puts its argument there, or something new and empty.
                stack.append(argument if argument is not None else _OTHER)

    def _since_mark(self) -> list[object]:
        """Return what lies above the last mark, and take it and the mark away."""
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Unreadable(f"takes up to a mark that is not there, at byte {self._source.at}")
        return self._popped(len(self._stack) - at)[1:]

    def _popped(self, count: int) -> list[object]:
        """Take the upmost values away, which something is made of.

        joblib's wrapper is called, and nothing else: of what is made of it by turns it would not be known that an array
        follows.
        """
        if len(self._stack) < count:
            raise IndexError(count)
        items = self._stack[-count:]
        del self._stack[-count:]
        if any(isinstance(item, Named) and _is_wrapper(item) for item in items):
            raise Unreadable(f"hides where an array begins, at byte {self._source.at}")
        return items

    def _added(self, items: Sequence[object], *, keyed: bool) -> None:
        """Put into the dictionary on top what has a name: of states of objects it is looked up."""
        target = self._stack[-1] if self._stack else None
        if keyed and isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=False):
                if not isinstance(key, str):
                    target[_ODD] = True
                elif key in _STATE:
                    target[key] = value

    def _built(self, made: object, state: object) -> Iterator[Named]:
        """Give an object its state. Behind that of joblib's wrapper lie the array's bytes, or a pickle of its objects."""
        if not isinstance(made, _Made):
            return
        made.state = state
        if not (isinstance(made.function, Named) and _is_wrapper(made.function)):
            return
        if not isinstance(state, dict) or _ODD in state:
            raise Unreadable(f"has an array of a state that it makes up as it goes, at byte {self._source.at}")
        self._stack[-1] = _OTHER
        size = _itemsize(state.get("dtype"))
        if size is None:
            if self._depth >= _MAX_DEPTH:
                raise Unreadable(f"has arrays in arrays, more than {_MAX_DEPTH} deep")
            yield from _Machine(self._source, self._depth + 1).run()
            return
        shape = state.get("shape")
        if not isinstance(shape, tuple) or not all(isinstance(extent, int) and extent >= 0 for extent in shape):
            raise Unreadable(f"has an array of a shape that it makes up as it goes, at byte {self._source.at}")
        if state.get("numpy_array_alignment_bytes") is not None:
            self._source.pass_over(self._source.exactly(1)[0])
        self._source.pass_over(size * math.prod(shape))


_STATE = frozenset({"dtype", "shape", "numpy_array_alignment_bytes"})
_ODD = ""
"""In a dictionary's stead of keys that are no plain texts, and might be equal to one that is looked up."""


def _is_wrapper(named: Named) -> bool:
    return named.name.endswith("NumpyArrayWrapper")


def _text(content: bytes, encoding: str, errors: str = "strict") -> str:
    try:
        return content.decode(encoding, errors)
    except ValueError:
        raise Unreadable("has a text that is none") from None


def _unescaped(text: bytes) -> str:
    try:
        return codecs.escape_decode(text)[0].decode("latin-1")  # as pickle does
    except ValueError:
        raise Unreadable("has a text that is none") from None


def _itemsize(dtype: object) -> int | None:
    """Return the bytes of an array's item, or None where it is any object."""
    is_dtype = isinstance(dtype, _Made) and dtype.function == Named("numpy", "dtype")
    arguments = dtype.arguments if isinstance(dtype, _Made) and is_dtype else None
    code = arguments[0] if isinstance(arguments, tuple) and arguments else None
    found = _CODE.fullmatch(code) if isinstance(code, str) else None
    if found is None or not isinstance(dtype, _Made):
        raise Unreadable("has an array of a type that it makes up as it goes")
    if found[1] == "O":
        return None
    told = dtype.state[5] if isinstance(dtype.state, tuple) and len(dtype.state) > 5 else -1
    if found[1] in "SUV" and isinstance(told, int) and told > 0:
        return told  # numpy lets the state of these, and of no others, say their size
    return int(found[2]) * (4 if found[1] == "U" else 1)


def _whole(argument: object) -> int:
    try:
        return int(str(argument).rstrip("L"))
    except ValueError:
        raise Unreadable(f"has {str(argument)[:40]!r} for a number") from None
