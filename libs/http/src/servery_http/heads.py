"""Heads of requests, parsed, and a memory for them: the same bytes say the same again."""

from __future__ import annotations

from dataclasses import dataclass

_END = b"\r\n\r\n"
_MOST = 256
_MOST_BYTES = 4096
CHUNKED = -1
"""In place of the bytes of a body whose length its head does not say."""


@dataclass(slots=True)
class Head:
    """A request up to its body. Nobody changes it: the next request may be told by the same one.

    Attributes:
        method: ``POST``.
        url: As it came.
        path: Of it, percent-encoding as it came.
        query: What stood behind ``?``.
        version: ``1.1``.
        asked: Those of its headers that ask for a manner.
        keep_alive: The client does not mean it to be the connection's last.
        expect_continue: The client waits before it sends the body.
        body_bytes: What ``content-length`` says, 0 where it is missing; ``CHUNKED``.
        size: Bytes of the head itself; only of one that was learned.
    """

    method: str
    url: bytes
    path: str
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    asked: list[bytes]
    keep_alive: bool
    expect_continue: bool
    body_bytes: int
    size: int = 0


class Heads:
    """Heads that came before, by their bytes.

    A client repeats its head with each request: to look it up takes 0.3 microseconds, to parse it, with a call of
    Python for each header, 4. Forgets all when there are more than 256, of 4096 bytes at most.
    """

    def __init__(self) -> None:
        self._by_bytes: dict[bytes, Head] = {}

    def of(self, data: bytes) -> Head | None:
        """Return the head of ``data`` where that is one whole request, and its head came before."""
        found = self._by_bytes.get(data[: data.find(_END) + len(_END)])
        return found if found is not None and found.size + found.body_bytes == len(data) else None

    def learn(self, data: bytes, head: Head) -> None:
        """Remember the head of ``data``, which the parser read from its first byte on, and ``head`` last."""
        size = data.find(_END) + len(_END)
        # Of several requests in one piece the last one's body is shorter than what follows the first one's head.
        is_alone = size + head.body_bytes == len(data)
        if is_alone and size <= _MOST_BYTES and head.keep_alive and not head.expect_continue:
            if len(self._by_bytes) >= _MOST:
                self._by_bytes.clear()
            head.size = size
            self._by_bytes[data[:size]] = head
