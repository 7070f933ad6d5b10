"""Services as pods of this machine reach them: what DNS and kube-proxy are to the pods of a cluster.

No name of a Service resolves here, so each port of one has a door: a port of this machine's loopback address that leads
to a pod that is ready, connection by connection, whatever is spoken on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from servery_kube.port import KubeApi
from servery_sdk import kinds

from servery.local.ingress import Backend

Doors: TypeAlias = Mapping[tuple[str, int], str]
"""``127.0.0.1:41234`` by ``iris-predictor.default`` and the Service's port."""

_HOST = "127.0.0.1"
_HTTP = 80
_CHUNK_BYTES = 1 << 16


class Doorway:
    """Opens doors, and passes what comes to them on. Use ``run``."""

    def __init__(self, api: KubeApi, endpoints: Callable[[Backend], Sequence[str]]) -> None:
        self._api = api
        self._endpoints = endpoints
        self._open: dict[tuple[str, int], asyncio.Server] = {}
        self._opening = asyncio.Lock()
        self._passing: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Keep the doors open until cancelled."""
        try:
            await asyncio.Event().wait()
        finally:
            for server in self._open.values():
                server.close()
            for task in self._passing:
                task.cancel()
            await asyncio.gather(*self._passing, return_exceptions=True)

    async def doors(self) -> Doors:
        """Return the doors of all Services that there are now; one that was opened once stays where it is."""
        # Of the API server itself: a Service is there before the pods that name it, an informer may be behind.
        for service in (await self._api.list(kinds.SERVICE)).items:
            metadata = service["metadata"]
            for port in service["spec"]["ports"]:
                backend = Backend(metadata["namespace"], metadata["name"], port["port"])
                key = (f"{backend.service}.{backend.namespace}", backend.port)
                async with self._opening:
                    if key not in self._open:
                        self._open[key] = await asyncio.start_server(self._visited(backend), _HOST, 0)
        return {key: f"{_HOST}:{server.sockets[0].getsockname()[1]}" for key, server in self._open.items()}

    def _visited(self, backend: Backend) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._pass(backend, reader, writer), name=f"door-{backend.service}")
            self._passing.add(task)
            task.add_done_callback(self._passing.discard)

        return visited

    async def _pass(self, backend: Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to a pod that is ready; where none is, the visitor's connection is closed, as kube-proxy refuses it."""
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(writer.close)
            for endpoint in self._endpoints(backend):
                host, _, port = endpoint.rpartition(":")
                with contextlib.suppress(OSError):
                    there, here = await asyncio.open_connection(host, int(port))
                    stack.callback(here.close)
                    await asyncio.gather(_copy(reader, here), _copy(there, writer))
                    return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


def through(text: str, doors: Doors) -> str:
    """Return ``text`` with every name of a Service, and the port behind it, replaced by its door."""
    if not doors:
        return text
    names = "|".join(sorted({re.escape(name) for name, _ in doors}, key=len, reverse=True))
    pattern = rf"(?<![\w.-])({names})(?:\.svc(?:\.cluster\.local)?)?(?::(\d+))?(?![\w.-])"
    return re.sub(pattern, lambda found: doors.get((found[1], int(found[2] or _HTTP)), found[0]), text)
