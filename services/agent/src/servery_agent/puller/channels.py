"""gRPC channels to what starts and restarts beside us."""

from __future__ import annotations

import grpc

_RECONNECT = (
    # Neighbours come up within a second: gRPC's own pauses, of one second to two minutes, are for far servers.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


def channel(target: str) -> grpc.aio.Channel:
    """Return a channel that looks again soon."""
    return grpc.aio.insecure_channel(target, options=_RECONNECT)
