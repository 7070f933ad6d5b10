"""What one client may ask of a gateway, and how long anybody may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits:
    """Bounds; beyond one the answer is the status named.

    Attributes:
        max_head_bytes: Of a request's line and headers; 431.
        max_body_bytes: Of a body that is read whole; 413. What streams by has no bound.
        max_connections: Of clients at once; 503.
        read_seconds: From a head's first byte to its last, and from one piece of a body to the next; 408. Also how long
            a client may not read its answer; it is cut then.
        keep_alive_seconds: Of an idle connection, which is then closed.
        connect_seconds: To the server behind; 503.
        queue_seconds: That a request waits at the gate; 503.
        answer_seconds: From a complete request to the head of its answer; 504. None for as long as it takes.
        idle_seconds: From one piece of an answer to the next; the connection is cut then. None for as long as it takes.
    """

    max_head_bytes: int = 64 * 1024
    max_body_bytes: int = 256 * 1024 * 1024
    max_connections: int = 16 * 1024
    read_seconds: float = 60.0
    keep_alive_seconds: float = 65.0
    connect_seconds: float = 5.0
    queue_seconds: float = 60.0
    answer_seconds: float | None = 300.0
    idle_seconds: float | None = None
