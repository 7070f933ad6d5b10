"""What tests that watch a cluster have in common."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from servery_kube.port import NotFound
from waiting import pauses


async def until(check: Callable[[], Awaitable[Any]], *, seconds: float = 30.0) -> Any:
    """Return what ``check`` returns once that is truthy; what is not found may still come."""
    async with asyncio.timeout(seconds):
        pausing = pauses()
        while True:
            with contextlib.suppress(NotFound):
                if found := await check():
                    return found
            await asyncio.sleep(next(pausing))
