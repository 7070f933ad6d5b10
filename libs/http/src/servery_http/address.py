"""Where a server behind us listens: a port, or a Unix socket."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

_P = TypeVar("_P", bound=asyncio.Protocol)


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP port of ``host``, by TLS where there is a context; or the Unix socket ``path``, which counts where it is given."""

    host: str = "127.0.0.1"
    port: int = 0
    path: Path | None = None
    tls: ssl.SSLContext | None = None

    async def connect(self, protocol: Callable[[], _P]) -> _P:
        """Return the protocol of a new connection.

        Raises:
            OSError: Nobody listens there.
        """
        loop = asyncio.get_running_loop()
        if self.path is not None:
            return (await loop.create_unix_connection(protocol, str(self.path)))[1]
        return (await loop.create_connection(protocol, self.host, self.port, ssl=self.tls))[1]

    def __str__(self) -> str:
        return str(self.path) if self.path is not None else f"{self.host}:{self.port}"
