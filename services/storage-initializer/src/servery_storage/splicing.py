"""From a socket to a file within the kernel: bytes are copied once instead of twice, and none comes to this process.

For connections without TLS, whose bytes are summed behind their arrival or not at all. ADR 25.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import sys

_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})
"""What kernels, sandboxes and file systems say that do not splice."""


class Unspliceable(Exception):  # no error: bytes go through a buffer then
    """The socket is of no kind whose bytes can be taken so."""


class Pipe:
    """What bytes go through between the two calls. It is filled and emptied in turns, by one thread.

    Args:
        size_bytes: What it is asked to hold; it holds less where a user's pipes have come to their bound.
    """

    def __init__(self, size_bytes: int) -> None:
        self._out, self._in = os.pipe()
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                fcntl.fcntl(self._in, fcntl.F_SETPIPE_SZ, size_bytes)

    def fill(self, connection: socket.socket, size_bytes: int) -> int:
        """Take up to ``size_bytes`` of what came, and return how many; 0 at the connection's end.

        Raises:
            Unspliceable: Nothing was taken, and nothing ever will be.
            OSError: Of the connection; TimeoutError when its timeout is over.
        """
        if sys.platform != "linux":
            raise Unspliceable
        while True:
            try:
                return os.splice(connection.fileno(), self._in, size_bytes)
            except BlockingIOError:
                _wait(connection)
            except OSError as error:
                if error.errno in _UNSUPPORTED:
                    raise Unspliceable from error
                raise

    def empty(self, descriptor: int, size_bytes: int, at: int) -> int:
        """Write up to ``size_bytes`` of what is in it to a file at an offset, and return how many.

        Raises:
            OSError: Of the disk.
        """
        if sys.platform == "linux":
            try:
                return os.splice(self._out, descriptor, size_bytes, offset_dst=at)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
        chunk = memoryview(os.read(self._out, size_bytes))
        written = 0
        while written < len(chunk):
            written += os.pwrite(descriptor, chunk[written:], at + written)
        return written

    def close(self) -> None:
        """Forget what is in it."""
        os.close(self._out)
        os.close(self._in)


def _wait(connection: socket.socket) -> None:
    """Return when the connection has something."""
    waiting, seconds = select.poll(), connection.gettimeout()
    waiting.register(connection, select.POLLIN)
    if not waiting.poll(None if seconds is None else seconds * 1000):
        raise TimeoutError("timed out")
