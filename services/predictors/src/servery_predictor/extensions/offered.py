"""The extensions of one process, and their names in the server's metadata."""

from __future__ import annotations

import asyncio
from pathlib import Path

from servery_predictor.extensions import cuda
from servery_predictor.extensions.ledger import Ledger
from servery_predictor.extensions.log_settings import LogSettings
from servery_predictor.extensions.shared_memory import SharedMemory
from servery_predictor.extensions.tracing import Tracer

_LOOK_SECONDS = 1.0
"""Between looks at what other workers were told."""

_EVERYWHERE = ("logging", "model_configuration", "model_repository", "parameters", "statistics", "trace")
_REST_ONLY = ("binary_tensor_data", "generate")


class Offered:
    """Shared memory, traces and log settings, which all workers have in common."""

    def __init__(self, ledger: Ledger, *, allows_shared_memory: bool, trace_file: Path | None) -> None:
        self.ledger = ledger
        self.shared_memory = SharedMemory(ledger, is_allowed=allows_shared_memory)
        self.tracer = Tracer(ledger, trace_file)
        self.logs = LogSettings(ledger)
        self._watching: asyncio.Task[None] | None = None

    def names(self, *, is_rest: bool) -> list[str]:
        """Return what the server's metadata lists: exactly what is there."""
        names = [*_EVERYWHERE, *(_REST_ONLY if is_rest else ())]
        if self.shared_memory.is_allowed:
            names += ["system_shared_memory", *(["cuda_shared_memory"] if cuda.is_here() else [])]
        return sorted(names)

    def open(self) -> None:
        """Obey what clients set, here or in another worker."""
        self.logs.install()
        self._watching = asyncio.create_task(self._watch(), name="extensions")

    async def _watch(self) -> None:
        seen = self.ledger.version
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if seen != self.ledger.version:
                seen = self.ledger.version
                self.logs.refresh()
                self.shared_memory.refresh()

    async def close(self) -> None:
        """Give back what is held."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
            self.logs.remove()
        self.shared_memory.close()
