"""The process that delivers: a sink's SDK, its memory and its pauses are not the requests' business.

Its first line of input is the settings. Then each byte says that the spool has grown, ``q`` that nothing more comes:
it ends when all is delivered. Where input ends without, the agent is gone: it ends at once, and the next one goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop
from servery_sdk import logs, plugins
from servery_sdk.errors import ServeryError
from servery_sdk.payloads import EventOutlet

from servery_agent.payloads.config import batches_of, sink_of, target_of
from servery_agent.payloads.deadletters import DeadLetters
from servery_agent.payloads.delivery import Delivery
from servery_agent.payloads.formats import format_of
from servery_agent.payloads.ledger import Ledger
from servery_agent.payloads.reading import Reading
from servery_agent.payloads.redaction import Redaction
from servery_agent.settings import Settings

logger = logging.getLogger(__name__)

LEDGER = "ledger"
FINISH = b"q"
GROWN = b"."
_LOCK_PAUSE_SECONDS = 0.05
STATUS_CONFIGURATION = 3
"""Of a process that cannot work with its settings: starting it again is of no use."""


def main() -> None:
    """Deliver; exits 0 when told to finish, 3 when the settings are of no use."""
    logs.to_stderr()
    # The agent decides when we end: signals of a terminal come to both. Our priority is the agent's: behind it the spool
    # grows, and to fill memory that it has not yet had costs more than all the rest.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    settings = Settings(**json.loads(_line()))
    try:
        uvloop.run(_deliver(settings))
    except ServeryError as error:
        print(error, file=sys.stderr, flush=True)  # noqa: T201  # the last line of the log is what kubectl shows
        raise SystemExit(STATUS_CONFIGURATION) from error


def _line() -> bytes:
    # Byte by byte: what follows is asyncio's to read.
    return b"".join(iter(lambda: os.read(sys.stdin.fileno(), 1), b"\n"))


async def _deliver(settings: Settings) -> None:
    folder = settings.log_spool_path
    target = target_of(settings)
    redaction = Redaction.of(settings.log_redact.split())
    outlet = sink_of(settings.log_url, plugins.load().payload_sinks).open(target)
    written_as = (
        None if isinstance(outlet, EventOutlet) else format_of(settings.log_store_format, settings.log_marshaller_url)
    )
    async with _locked(folder):
        ledger = Ledger(folder / LEDGER)
        reading = Reading(folder, ledger)
        dead = DeadLetters(folder, ledger, target, settings.log_dead_letter_bytes)
        delivery = Delivery(reading, ledger, target, redaction, dead)
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(_listen(reading), name="payload-listen")
            if isinstance(outlet, EventOutlet):
                await delivery.send_events(outlet)
            else:
                assert written_as is not None
                await delivery.send_objects(outlet, written_as, batches_of(settings))
            listening.cancel()
        await outlet.close()


@contextlib.asynccontextmanager
async def _locked(folder: Path) -> AsyncIterator[None]:
    # The deliverer of an agent that was killed may be a moment behind it.
    with (folder / "deliverer.lock").open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                await asyncio.sleep(_LOCK_PAUSE_SECONDS)
        yield


async def _listen(reading: Reading) -> None:
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), sys.stdin.buffer)
    while said := await stream.read(4096):
        if FINISH in said:
            reading.is_ending = True
        reading.grown.set()
        if reading.is_ending:
            return
    logger.warning("the agent is gone; what is left in the spool waits for the next one")
    os._exit(0)


if __name__ == "__main__":
    main()
