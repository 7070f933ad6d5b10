"""What contracts of plugins that talk to a server have in common."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest


class ServerContract:
    """For plugins whose server may be away."""

    @pytest.fixture
    def closed_port(self) -> Iterator[int]:
        """A port that is taken, and refuses."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            yield taken.getsockname()[1]
