"""Reads the spool while it is written, and lets go of what is settled."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from servery_agent.payloads.ledger import Count, Ledger
from servery_agent.payloads.records import Record, records_of
from servery_agent.payloads.segments import Block, Segment, first_of, retire, segments


class Reading:
    """Hands out records in their order, beginning behind what was settled in an earlier life.

    A record is settled when it was delivered or put aside. Segments all of whose records are settled are retired.

    Attributes:
        grown: Set when there may be more to read.
        is_ending: Nothing more will be written: whoever has read all is told so.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder = folder
        self._ledger = ledger
        self._settled = ledger[Count.SETTLED]
        self._last_read = self._settled
        self._segment: Segment | None = None
        self._offset = 0
        self._ready: deque[Record] = deque()
        self._reading = asyncio.Lock()
        self._out: deque[int] = deque()
        self._done: set[int] = set()
        self._ends: deque[tuple[int, Segment]] = deque()
        self.grown = asyncio.Event()
        self.is_ending = False

    async def next(self) -> Record | None:
        """Return the next record once it is there, None where none will come."""
        while not self._ready:
            async with self._reading:
                if self._ready:
                    break
                self.grown.clear()
                if not self._read_more():
                    if self.is_ending:
                        return None
                    await self.grown.wait()
        record = self._ready.popleft()
        self._out.append(record.number)
        return record

    @property
    def is_dry(self) -> bool:
        """Whether whoever asks for the next record may have to wait."""
        return not self._ready

    def settle(self, records: Sequence[Record]) -> None:
        """Be done with records; what came before them may still be on its way."""
        done, out = self._done, self._out
        done.update(record.number for record in records)
        settled = self._settled
        while out and out[0] in done:
            settled = out.popleft()
            done.discard(settled)
        if settled != self._settled:
            self._settled = settled
            self._ledger[Count.SETTLED] = settled
            self._retire()

    def _retire(self) -> None:
        while self._ends and self._ends[0][0] <= self._settled:
            self._ends.popleft()[1].retire()

    def _read_more(self) -> bool:
        """Return whether there are more records now."""
        while (block := self._next_block()) is not None:
            self._last_read = max(self._last_read, block.last)
            # What stands in the first block may be settled in part.
            self._ready.extend(record for record in records_of(block.content) if record.number > self._settled)
            if self._ready:
                return True
        return False

    def _next_block(self) -> Block | None:
        while True:
            if self._segment is not None:
                block = self._block()
                if block is not None:
                    return block
                following = self._following(self._segment.path)
                if following is None:
                    return None
                # What was written to this segment before the next one began.
                block = self._block()
                if block is not None:
                    return block
                self._ends.append((self._last_read, self._segment))
                self._retire()
                self._segment, self._offset = Segment(following), 0
            else:
                first = self._first()
                if first is None:
                    return None
                self._segment = Segment(first)

    def _block(self) -> Block | None:
        assert self._segment is not None
        block = self._segment.block(self._offset, self._is_known)
        if block is not None:
            self._offset = block.end
        return block

    def _is_known(self, first: int, last: int) -> bool:
        # The agent that lives accounts for a block once it has written it, or could not: then each is looked at.
        ledger = self._ledger
        return (
            ledger[Count.BEGUN] < first > self._last_read
            and last <= ledger[Count.ACCOUNTED]
            and not ledger[Count.DROPPED_DISK]
        )

    def _following(self, segment: Path) -> Path | None:
        return next((other for other in segments(self._folder) if other.name > segment.name), None)

    def _first(self) -> Path | None:
        """Return the segment with the first record that is not settled, and retire those before it."""
        found = segments(self._folder)
        while len(found) > 1 and first_of(found[1]) <= self._settled + 1:
            retire(found.pop(0))
        return found[0] if found else None
