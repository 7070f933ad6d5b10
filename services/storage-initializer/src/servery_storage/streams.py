"""The bytes of a compressed file, once through, in bounded memory."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import zstandard

from servery_storage.tree import BadArchive

_GZIP, _ZSTD, _BZIP2, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\x00"
BUFFER_BYTES = 256 * 1024
_MAX_WINDOW_BYTES = 128 * 1024**2
"""What a decompressor may look back, and keeps: a file says how much, and may say anything."""


class Reader:
    """A file for tarfile: it reads and seeks forward only.

    Args:
        max_bytes: Of all that is read or passed over.
        too_much: What is said of more.
    """

    def __init__(self, source: BinaryIO, *, max_bytes: int, too_much: Callable[[str], str]) -> None:
        self._source, self._max_bytes, self._too_much = source, max_bytes, too_much
        self._at = 0
        self._bound: int | None = None
        self.last = b""
        """What the last read returned."""

    @contextlib.contextmanager
    def bounded(self, max_bytes: int) -> Iterator[None]:
        """Let no more than this be read within: tarfile keeps headers in memory, whatever size they say they have."""
        self._bound = max_bytes
        yield
        self._bound = None

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end."""
        if self._bound is not None:
            self._bound -= size
            if self._bound < 0 or size < 0:
                raise BadArchive(f"a member's header, at byte {self._at}, is too large")
        chunks = []
        while size > 0 and (chunk := self._source.read(min(size, BUFFER_BYTES))):
            chunks.append(chunk)
            size -= len(chunk)
            self._at += len(chunk)
            if self._at > self._max_bytes:
                raise BadArchive(self._too_much(f"at byte {self._at}"))
        self.last = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self.last

    def copy(self, size: int, descriptor: int) -> None:
        """Write the next ``size`` bytes to a file."""
        while size:
            chunk = self.read(min(size, BUFFER_BYTES))
            if not chunk:
                raise EOFError("it ends within a member")
            size -= len(chunk)
            write(descriptor, chunk)

    def tell(self) -> int:
        """Return how much is read or passed over."""
        return self._at

    def seek(self, to: int) -> int:
        """Pass over what lies before ``to``; at the end there is no more."""
        if to < self._at:
            raise BadArchive(f"a member at byte {self._at} goes on before itself, at {to}")
        bound, self._bound = self._bound, None
        while self._at < to and self.read(min(to - self._at, BUFFER_BYTES)):
            pass
        self._bound = bound
        return self._at


def is_compressed(path: Path) -> bool:
    """Return whether the file begins as one that ``plain`` decompresses."""
    with path.open("rb") as file:
        return file.read(6).startswith((_GZIP, _ZSTD, _BZIP2, _XZ))


@contextlib.contextmanager
def plain(path: Path) -> Iterator[BinaryIO]:
    """Yield the file's bytes, decompressed as its own first bytes say: names and media types are often wrong."""
    with path.open("rb") as file:
        yield decompressed(file)


def decompressed(file: BinaryIO) -> BinaryIO:
    """Return what ``file`` has from its beginning on, decompressed if it begins as something compressed."""
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file))
    if magic.startswith(_ZSTD):
        # Many frames follow each other where a file can be read in parts.
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        return cast("BinaryIO", decompressor.stream_reader(file, read_across_frames=True))
    if magic.startswith(_BZIP2):
        return cast("BinaryIO", io.BufferedReader(_Streams(file, bz2.BZ2Decompressor)))
    if magic == _XZ:
        return cast("BinaryIO", io.BufferedReader(_Streams(file, _xz)))
    return file


def inflated(file: BinaryIO) -> BinaryIO:
    """Return what ``file`` has as a zlib stream, which begins as some texts do."""
    return cast("BinaryIO", io.BufferedReader(_Streams(file, _Inflate)))


def write(descriptor: int, chunk: bytes) -> None:
    """Write all of ``chunk``."""
    view = memoryview(chunk)
    while view:
        view = view[os.write(descriptor, view) :]


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_WINDOW_BYTES + BUFFER_BYTES)


class _Inflate:
    """zlib's decompressor, as bz2's and lzma's are."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj()

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


class _Streams(io.RawIOBase):
    """One compressed stream after the other. ``lzma.open`` takes no bound on memory, and neither it nor ``bz2.open``
    says that something else follows.
    """

    def __init__(self, file: BinaryIO, new: Callable[[], _Decompressor]) -> None:
        self._file, self._new = file, new
        self._decompressor = new()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # of all buffers, this one comes
        chunk = b""
        while not chunk:
            more = b""
            if self._decompressor.eof:
                more = self._next_stream()
                if not more:
                    return 0
                self._decompressor = self._new()
            elif self._decompressor.needs_input and not (more := self._file.read(BUFFER_BYTES)):
                raise EOFError("it ends within its compressed bytes")
            chunk = self._decompressor.decompress(more, len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def _next_stream(self) -> bytes:
        """Return the first bytes of what follows, but for the zeros that xz pads with."""
        more = self._decompressor.unused_data
        while not (begun := more.lstrip(b"\0")) and (more := self._file.read(BUFFER_BYTES)):
            pass
        return begun
