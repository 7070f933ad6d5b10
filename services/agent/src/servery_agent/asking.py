"""``--probe-period``: a command of its own, for probes of kind ``exec``: asks the agent beside it until it is ready."""

from __future__ import annotations

import asyncio

from servery_http.client import Client
from servery_sdk.errors import Transient

_PAUSE_SECONDS = 0.05


async def is_ready_within(seconds: float, port: int) -> bool:
    """Return whether the agent at ``port`` said that it is ready before the time was over; it is asked at least once.

    Source: Knative cmd/queue, ``standaloneProbeMain``.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    async with Client() as client:
        while True:
            left = max(deadline - loop.time(), _PAUSE_SECONDS)
            try:
                probe = [(b"k-network-probe", b"queue")]
                answer = await client.request("GET", f"http://127.0.0.1:{port}/", headers=probe, timeout_seconds=left)
                if answer.status == 200:
                    return True
            except Transient:
                pass
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(_PAUSE_SECONDS)
