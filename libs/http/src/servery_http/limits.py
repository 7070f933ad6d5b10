"""What one client may ask of a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds; beyond one the answer is the status named.

    Attributes:
        max_url_bytes: 414.
        max_header_bytes: 431.
        max_body_bytes: 413; of hot routes, and of others where ``content-length`` tells.
        max_connections: At once, to one server; 503.
        max_pipelined: Requests read ahead of the one being answered; then reading pauses.
        read_timeout_seconds: From a request's first byte to its last; of a streamed body, from one piece to the next;
            408.
        keep_alive_seconds: Of an idle connection, which is then closed.
    """

    max_url_bytes: int = 16 * 1024
    max_header_bytes: int = 64 * 1024
    max_body_bytes: int = 256 * 1024 * 1024
    max_connections: int = 16 * 1024
    max_pipelined: int = 32
    read_timeout_seconds: float = 60.0
    keep_alive_seconds: float = 65.0
