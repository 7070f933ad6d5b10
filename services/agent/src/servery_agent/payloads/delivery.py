"""Sends what is in the spool, at least once: event by event with several at once, or batch by batch."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import orjson
from servery_sdk.errors import Permanent, Transient
from servery_sdk.payloads import EventOutlet, ObjectOutlet, PayloadEvent, SinkTarget

from servery_agent.payloads.deadletters import DeadLetters
from servery_agent.payloads.formats import Format
from servery_agent.payloads.ledger import Count, Ledger
from servery_agent.payloads.patience import Patience
from servery_agent.payloads.reading import Reading
from servery_agent.payloads.records import Record
from servery_agent.payloads.redaction import NotJson, Redaction
from servery_agent.payloads.tables import key_of

logger = logging.getLogger(__name__)

_ATTEMPTS = 10
"""That fail for one event while others get through: then it is the event, whatever the sink says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """How events become objects.

    Attributes:
        size: Events of one, at most.
        seconds: That the first of them waits, at most; 0 for as long as it takes.
        max_bytes: Of their bodies, about.
    """

    size: int = 1
    seconds: float = 0.0
    max_bytes: int = 16 * 1024 * 1024
    store_path: str = ""


class Delivery:
    """From ``reading`` to a sink; ``run`` ends when reading does."""

    def __init__(
        self, reading: Reading, ledger: Ledger, target: SinkTarget, redaction: Redaction, dead: DeadLetters
    ) -> None:
        self._reading = reading
        self._ledger = ledger
        self._target = target
        self._redaction = redaction
        self._dead = dead
        self._patience = Patience()

    async def send_events(self, outlet: EventOutlet) -> None:
        """Send each event by itself."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._target.workers):
                group.create_task(self._worker(outlet), name=f"payload-worker-{number}")

    async def _worker(self, outlet: EventOutlet) -> None:
        while (record := await self._reading.next()) is not None:
            event = self.event_of(record)
            await self._persist(partial(outlet.send, event), (event,))
            self._reading.settle((record,))

    async def send_objects(self, outlet: ObjectOutlet, written_as: Format, batches: Batches) -> None:
        """Send batches, one after the other."""
        while records := await self._batch(batches):
            events = [self.event_of(record) for record in records]
            # An object's name says which half its events are.
            for part in dict.fromkeys(event.part for event in events):
                await self._put(outlet, written_as, [event for event in events if event.part is part], batches)
            self._reading.settle(records)

    async def _batch(self, batches: Batches) -> list[Record]:
        first = await self._reading.next()
        if first is None:
            return []
        records, size = [first], len(first.body)
        deadline = None if not batches.seconds else asyncio.get_running_loop().time() + batches.seconds
        while len(records) < batches.size and size < batches.max_bytes:
            try:
                if self._reading.is_dry:
                    async with asyncio.timeout_at(deadline):
                        record = await self._reading.next()
                else:
                    record = await self._reading.next()
            except TimeoutError:
                break
            if record is None:
                break
            records.append(record)
            size += len(record.body)
        return records

    async def _put(
        self, outlet: ObjectOutlet, written_as: Format, events: Sequence[PayloadEvent], batches: Batches
    ) -> None:
        async def put() -> None:
            written = await written_as.write(events, self._target)
            key = key_of(events[0], self._target, batches.store_path, written.extension)
            async with asyncio.timeout(self._target.timeout_seconds):
                await outlet.put(key, written.content, written.content_type)

        await self._persist(put, events)

    async def _persist(self, attempt: Callable[[], Awaitable[None]], events: Sequence[PayloadEvent]) -> None:
        """Try until it succeeds, or is of no use."""
        attempts, delivered = 0, self._ledger[Count.DELIVERED]
        while True:
            try:
                await attempt()
            except Permanent as refused:
                self._put_aside(events, str(refused))
                return
            except (Transient, TimeoutError) as failed:
                attempts += 1
                reason = str(failed) or f"not done within {self._target.timeout_seconds:g} s"
                if attempts >= _ATTEMPTS and self._ledger[Count.DELIVERED] > delivered:
                    self._put_aside(events, f"{attempts} attempts, while others succeeded: {reason}")
                    return
                await self._wait(reason, getattr(failed, "retry_after_seconds", None))
            else:
                self._ledger.add(Count.DELIVERED, len(events))
                self._succeeded()
                return

    def _put_aside(self, events: Sequence[PayloadEvent], reason: str) -> None:
        logger.warning("the payload log's sink refuses an event", extra={"reason": reason, "events": len(events)})
        for event in events:
            self._dead.add(event, reason)

    def _succeeded(self) -> None:
        if self._patience.failures:
            logger.info("the payload log's sink takes events again", extra={"url": self._target.url})
            self._patience.succeeded()
            self._ledger[Count.IS_FAILING] = 0

    async def _wait(self, reason: str, retry_after_seconds: float | None) -> None:
        if not self._patience.failures:
            logger.warning("the payload log's sink fails; events wait on disk", extra={"reason": reason})
        self._ledger.add(Count.FAILED_ATTEMPTS)
        self._ledger[Count.IS_FAILING] = 1
        await asyncio.sleep(self._patience.failed(random.random(), retry_after_seconds))  # noqa: S311  # spreads

    def event_of(self, record: Record) -> PayloadEvent:
        """Return what a sink is given: redacted, or without its body where that cannot be."""
        is_withheld = False
        body = record.body
        if self._redaction.paths:
            try:
                body = self._redaction(body, record.content_type, is_whole=record.is_whole)
            except NotJson:
                body, is_withheld = b"", True
                self._ledger.add(Count.WITHHELD)
        return PayloadEvent(
            id=record.id,
            part=record.part,
            occurred=record.occurred,
            recorded=time.time(),
            content_type=record.content_type,
            body=body,
            subject=record.subject,
            status=record.status,
            metadata=orjson.loads(record.metadata) if record.metadata else None,
            is_whole=record.is_whole,
            is_withheld=is_withheld,
        )
