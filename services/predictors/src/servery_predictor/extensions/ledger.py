"""What all workers of a server must agree on and clients may change: one JSON document in memory that they share.

Changes are rare and small; each is made under a lock that the system takes back from a process that dies. Whoever looks
often keeps a copy, and looks at a number to know whether it is still good.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import mmap
import os
from collections.abc import Iterator
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]

_HEAD_BYTES = mmap.PAGESIZE


class Ledger:
    """The document. Made before processes part, all of them share it; used by one thread of each.

    Attributes:
        tracing: One number: whether some request may have to be traced. A look costs nothing.
    """

    def __init__(self) -> None:
        self._file = os.memfd_create("servery-extensions")
        os.truncate(self._file, _HEAD_BYTES)
        numbers = memoryview(mmap.mmap(self._file, _HEAD_BYTES)).cast("Q")
        self._version, self.tracing = numbers[:1], numbers[1:2]

    @property
    def version(self) -> int:
        """Another after each change."""
        return self._version[0]

    def read(self) -> Document:
        """Return a copy of the document."""
        with self._locked(fcntl.LOCK_SH):
            return self._read()

    @contextlib.contextmanager
    def change(self, *, silently: bool = False) -> Iterator[Document]:
        """Lend the document to be changed; nothing is where the block raises.

        Args:
            silently: Copies that others keep stay good: what they look at is not changed.
        """
        with self._locked(fcntl.LOCK_EX):
            document = self._read()
            yield document
            text = json.dumps(document).encode()
            # The text before its length: who dies between them leaves a longer file, whose rest is blank.
            os.pwrite(self._file, text.ljust(os.fstat(self._file).st_size - _HEAD_BYTES), _HEAD_BYTES)
            os.truncate(self._file, _HEAD_BYTES + len(text))
            if not silently:
                self._version[0] += 1

    def _read(self) -> Document:
        text = os.pread(self._file, os.fstat(self._file).st_size - _HEAD_BYTES, _HEAD_BYTES)
        document: Document = json.loads(text) if text.strip() else {}
        return document

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        fcntl.lockf(self._file, kind)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the memory back, once no process needs it."""
        os.close(self._file)
