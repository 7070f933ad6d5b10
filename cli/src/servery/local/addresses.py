"""Loopback addresses: the whole of 127.0.0.0/8 is this machine, so every pod can have its own."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable


class NoAddress(RuntimeError):
    """All addresses are taken."""


class Addresses:
    """Hands out ``127.64.x.n``; x keeps platforms of one machine apart, n pods."""

    def __init__(self, block: int | None = None) -> None:
        self._block = os.getpid() % 256 if block is None else block
        self._taken: set[str] = set()
        self._last = 0

    def take(self, ports: Iterable[int]) -> str:
        """Return an address on which ``ports`` are free.

        Raises:
            NoAddress: None is left.
        """
        wanted = tuple(ports)
        for step in range(1, 255):
            number = (self._last + step - 1) % 254 + 1
            address = f"127.64.{self._block}.{number}"
            if address not in self._taken and all(_is_free(address, port) for port in wanted):
                self._taken.add(address)
                self._last = number
                return address
        raise NoAddress(f"no address of 127.64.{self._block}.0/24 is free")

    def give_back(self, address: str) -> None:
        """Let another pod have ``address``."""
        self._taken.discard(address)


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address, port))
        except OSError:
            return False
    return True
