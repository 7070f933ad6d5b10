"""Unix sockets of long paths, which the system's own calls do not take."""

from __future__ import annotations

import os
from pathlib import Path

MOST_BYTES = 107
"""Of a Unix socket's path. Source: unix(7), ``sun_path``."""


def grpc_target(path: Path) -> str:
    """Return what gRPC listens on or connects to for the socket at ``path``, whose folder has to be there.

    A longer path goes through an open folder of this process, which stays open with it.
    """
    if len(os.fsencode(path)) <= MOST_BYTES:
        return f"unix:{path}"
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    return f"unix:/proc/self/fd/{folder}/{path.name}"
