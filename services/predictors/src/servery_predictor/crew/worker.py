"""One of several processes: serves like a single one, and lets its supervisor know."""

from __future__ import annotations

import asyncio
import itertools
import logging
import signal
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from socket import socket
from typing import Any

import uvloop
from servery_sdk.documents import AnyModel
from servery_sdk.errors import ServeryError
from servery_sdk.model import Runtime
from servery_sdk.serving import Overrides, Unimplemented

from servery_predictor.counting import Shelves
from servery_predictor.crew import own_metrics
from servery_predictor.crew.post import Message, Post, Verb, Word
from servery_predictor.extensions.ledger import Ledger
from servery_predictor.factory import Options
from servery_predictor.metrics import Metrics
from servery_predictor.repository import Repository, reason
from servery_predictor.server import Predictor, settle
from servery_predictor.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a worker is forked with.

    Attributes:
        listening: Its own socket of the shared port, bound.
        shelf: Which of the shelves it writes.
        loaded: Models that were loaded before the fork; their pages are shared.
        unloaded: Models that clients have had unloaded.
        ledger: What all workers agree on.
    """

    settings: Settings
    runtime: Runtime
    options: Options
    listening: socket
    shelves: Shelves
    shelf: int
    loaded: Mapping[str, AnyModel]
    unloaded: frozenset[str]
    ledger: Ledger


def work(place: Place, post: Post) -> int:
    """Serve until SIGTERM, or until the supervisor is no more; returns the process's exit code."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, signal.SIGHUP):
        # A terminal sends them to all processes; what they mean is the supervisor's to say.
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    place.shelves.own(place.shelf)
    try:
        uvloop.run(_serve(place, post))
    except Exception as error:
        # The rim of the process: who started it must hear why.
        if not isinstance(error, ServeryError):
            logger.exception("worker failed")
        post.send(Message.failure(Word.FAILED, ServeryError(reason(error))))
        return 1
    return 0


async def _serve(place: Place, post: Post) -> None:
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    predictor = Predictor(
        place.settings,
        place.runtime,
        Metrics(own_metrics.registry(), place.shelves),
        options=place.options,
        listening=place.listening,
        ledger=place.ledger,
    )
    for name, model in place.loaded.items():
        predictor.repository.adopt(name, model)
    crew = Crew(predictor.repository, post, gone=asked.set)
    predictor.plane.changes = crew
    if not await _first(predictor.load(without=place.unloaded), asked):
        return
    settle()
    post.send(Message(word=Word.LOADED))
    if await _first(crew.called.wait(), asked):
        await predictor.listen()
        post.send(Message(word=Word.SERVING))
        await asked.wait()
        await predictor.stop()


async def _first(what: Coroutine[Any, Any, object], asked: asyncio.Event) -> bool:
    """Return whether ``what`` was done before the process was asked to stop."""
    doing = asyncio.create_task(what, name="start")
    stopping = asyncio.create_task(asked.wait(), name="signal")
    await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if doing.done():
        doing.result()
        return not asked.is_set()
    doing.cancel()
    return False


class Crew:
    """The other workers, as one of them sees them: what changes a model here changes it everywhere.

    Args:
        gone: Called when there is no supervisor any more.
    """

    def __init__(self, repository: Repository, post: Post, *, gone: Callable[[], None]) -> None:
        self.called = asyncio.Event()
        self._repository = repository
        self._post = post
        self._gone = gone
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._changing: set[asyncio.Task[None]] = set()
        asyncio.get_running_loop().add_reader(post, self._read)

    async def load(self, name: str, overrides: Overrides | None = None) -> None:
        """Load a model in one worker after the other.

        Raises:
            Unimplemented: With something of a client's, which a worker that starts later would not have.
            ServeryError: The first that could not; those after it still have what they had.
        """
        if overrides is not None:
            raise Unimplemented(
                f"model {name!r}: with several workers, models are loaded as they lie in their repository; "
                "start the server with --workers=1"
            )
        await self._ask(Verb.LOAD, name)

    async def unload(self, name: str) -> None:
        """Unload a model in one worker after the other.

        Raises:
            ServeryError: No such model.
        """
        await self._ask(Verb.UNLOAD, name)

    async def _ask(self, verb: Verb, name: str) -> None:
        # An unknown one is known to be unknown everywhere.
        self._repository.entry(name)
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._post.send(Message(word=Word.ASK, verb=verb, model=name, number=number))
        try:
            await self._waiting[number]
        finally:
            del self._waiting[number]

    def _read(self) -> None:
        try:
            for message in self._post.receive():
                self._take(message)
        except EOFError:
            asyncio.get_running_loop().remove_reader(self._post)
            self._gone()

    def _take(self, message: Message) -> None:
        if message.word is Word.SERVE:
            self.called.set()
        elif message.word is Word.CHANGE:
            changing = asyncio.create_task(self._change(message), name=f"{message.verb}-{message.model}")
            self._changing.add(changing)
            changing.add_done_callback(self._changing.discard)
        elif message.word is Word.CHANGED:
            waiting, error = self._waiting.get(message.number), message.error()
            if waiting is None or waiting.done():
                return
            if error is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(error)

    async def _change(self, message: Message) -> None:
        try:
            await (self._repository.load if message.verb is Verb.LOAD else self._repository.unload)(message.model)
        except Exception as error:
            if not isinstance(error, ServeryError):
                logger.exception("model not changed", extra={"model": message.model, "verb": message.verb})
            self._post.send(Message.failure(Word.CHANGED, error))
        else:
            self._post.send(Message(word=Word.CHANGED))
