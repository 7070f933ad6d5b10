"""Events that a sink refused for good: JSON lines beside the spool, KServe's record and why; bounded, the oldest go."""

from __future__ import annotations

from pathlib import Path

import orjson
from servery_sdk.payloads import PayloadEvent, SinkTarget

from servery_agent.payloads.ledger import Count, Ledger
from servery_agent.payloads.tables import record

_CURRENT, _BEFORE = "dead-letters.jsonl", "dead-letters.1.jsonl"


class DeadLetters:
    """Two files of half the bound each, in turn."""

    def __init__(self, folder: Path, ledger: Ledger, target: SinkTarget, max_bytes: int) -> None:
        self._path, self._before = folder / _CURRENT, folder / _BEFORE
        self._ledger = ledger
        self._target = target
        self._max_bytes = max_bytes // 2

    def add(self, event: PayloadEvent, reason: str) -> None:
        """Put an event aside; without a disk to put it on, it is lost, and counted so."""
        line = orjson.dumps({**record(event, self._target), "reason": reason}, option=orjson.OPT_APPEND_NEWLINE)
        try:
            if self._path.exists() and self._path.stat().st_size + len(line) > self._max_bytes:
                if self._before.exists():
                    self._ledger.add(Count.DEAD_LOST, _lines(self._before))
                self._path.replace(self._before)
            with self._path.open("ab") as file:
                file.write(line)
            self._ledger.add(Count.DEAD)
        except OSError:
            self._ledger.add(Count.DEAD)
            self._ledger.add(Count.DEAD_LOST)


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
