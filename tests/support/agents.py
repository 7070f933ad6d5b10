"""An agent's process, with the ports that it listens on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from behind import Peer
from ports import free_ports
from servery_http.client import Client

PATIENCE_SECONDS = 60


@dataclass
class Running:
    """An agent's process."""

    process: asyncio.subprocess.Process
    port: int
    metrics_port: int
    clients: list[Peer] = field(default_factory=list)

    @property
    def resident_bytes(self) -> int:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    async def connect(self) -> Peer:
        self.clients.append(Peer(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    async def until(self, name: str, value: float) -> None:
        """Ask until a metric has this value."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.metric(name) != value:  # noqa: ASYNC110  # of another process
                await asyncio.sleep(0)

    async def metric(self, name: str) -> float:
        async with Client() as client:
            text = (await client.request("GET", f"http://127.0.0.1:{self.metrics_port}/metrics")).body.decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


@contextlib.asynccontextmanager
async def agent(*flags: str, **variables: str) -> AsyncIterator[Running]:
    port, metrics_port = free_ports(2)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servery_agent.cli", "--host=127.0.0.1"),
        *(f"--port={port}", f"--metrics-port={metrics_port}", *flags),
        env={**os.environ, **variables},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while b"agent listens" not in (line := await process.stderr.readline()):
                assert line, "it ended before it listened"
        drained = asyncio.create_task(process.stderr.read())
        running = Running(process, port, metrics_port)
        yield running
        for client in running.clients:
            client.cut()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    await drained
