"""The parent of several workers: forks them, replaces those that die, relays what must reach all of them.

It runs no event loop and no thread, which a fork would cut in two: one selector, over signals and the workers' post.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from prometheus_client import CollectorRegistry
from servery_http.server import bound
from servery_sdk.documents import AnyModel
from servery_sdk.errors import Transient
from servery_sdk.model import Runtime
from servery_sdk.serving import ForkableModel, LoadError

from servery_predictor.counting import Shelves
from servery_predictor.crew import own_metrics
from servery_predictor.crew.backoff import deaths_in_a_row, delay_seconds
from servery_predictor.crew.post import Message, Post, Verb, Word, pair
from servery_predictor.crew.worker import Place, work
from servery_predictor.extensions.ledger import Ledger
from servery_predictor.factory import ModelFactory, Options
from servery_predictor.metrics import Metrics
from servery_predictor.server import settle
from servery_predictor.settings import Settings

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0
"""Beyond the drain's time, that a worker has to end before it is killed."""


class State(enum.StrEnum):
    """Of a worker."""

    LOADING = "loading"
    LOADED = "loaded"
    SERVING = "serving"
    LEAVING = "leaving"


@dataclass(slots=True)
class _Worker:
    pid: int
    post: Post
    shelf: int
    started: float
    state: State = State.LOADING


@dataclass(slots=True)
class _Slot:
    """A worker's place: its socket outlives it, and with that the connections that nobody has accepted yet."""

    listening: socket.socket
    worker: _Worker | None = None
    successor: _Worker | None = None
    deaths: int = 0
    due: float = 0.0


@dataclass(slots=True)
class _Change:
    """A wish of one worker's client, on its way through all workers."""

    asker: _Worker
    message: Message
    left: list[_Worker] = field(default_factory=list)
    begun: bool = False


class Supervisor:
    """Serves with ``settings.workers`` processes."""

    def __init__(self, settings: Settings, runtime: Runtime, options: Options) -> None:
        self._runtime = runtime
        self._options = options
        self._factory = ModelFactory(runtime, options)
        self._slots, self._grpc = _reserved(settings)
        self._settings = settings.model_copy(
            update={
                "http_port": self._slots[0].listening.getsockname()[1],
                "grpc_port": self._grpc.getsockname()[1] if self._grpc is not None else settings.grpc_port,
            }
        )
        # One shelf for each worker, one for the successor of one, and our own.
        self._shelves = Shelves(settings.workers + 2)
        self._shelves.own(settings.workers + 1)
        self._free_shelves = list(range(settings.workers + 1))
        self._metrics = Metrics(CollectorRegistry(), self._shelves)
        self._metrics.worker_deaths.labels().inc(0)
        self._ledger = Ledger()
        self._selector = selectors.DefaultSelector()
        self._loaded: dict[str, AnyModel] = {}
        self._unloaded: set[str] = set()
        self._changes: deque[_Change] = deque()
        self._renewing: deque[_Slot] = deque()
        self._is_up = False
        self._leaving_until: float | None = None

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; SIGHUP replaces the workers one by one, with the model as it is now.

        Raises:
            LoadError: The model cannot be served.
        """
        own_metrics.wipe()
        with self._signals() as wakeup:
            self._selector.register(wakeup, selectors.EVENT_READ)
            self._load()
            for slot in self._slots:
                slot.worker = self._start(slot)
            try:
                while self._leaving_until is None or any(slot.worker or slot.successor for slot in self._slots):
                    self._turn(wakeup)
            finally:
                for worker in self._workers():
                    os.kill(worker.pid, signal.SIGKILL)
                    os.waitpid(worker.pid, 0)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        wakeup, written = socket.socketpair()
        wakeup.setblocking(False)
        written.setblocking(False)
        signal.set_wakeup_fd(written.fileno())
        before = {
            number: signal.signal(number, lambda number, frame: None)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        }
        try:
            yield wakeup
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            wakeup.close()
            written.close()

    def _turn(self, wakeup: socket.socket) -> None:
        for key, _ in self._selector.select(self._wait_seconds()):
            if key.fileobj is wakeup:
                for number in wakeup.recv(4096):
                    self._on_signal(number)
            else:
                self._hear(key.data)
        self._reap()
        now = time.monotonic()
        if self._leaving_until is None:
            for slot in self._slots:
                if slot.worker is None and slot.due <= now:
                    slot.worker = self._start(slot)
            self._go_on()
        elif now >= self._leaving_until:
            for worker in self._workers():
                logger.error("worker did not end in time and is killed", extra={"pid": worker.pid})
                os.kill(worker.pid, signal.SIGKILL)

    def _wait_seconds(self) -> float | None:
        now = time.monotonic()
        if self._leaving_until is not None:
            return max(0.0, self._leaving_until - now) or 0.1
        due = [slot.due for slot in self._slots if slot.worker is None]
        return max(0.0, min(due) - now) if due else None

    def _workers(self) -> list[_Worker]:
        return [worker for slot in self._slots for worker in (slot.worker, slot.successor) if worker is not None]

    # Start and end.

    def _load(self) -> None:
        """Load once for all, where the framework allows; a program is each worker's to run."""
        artifact = self._settings.model_dir
        if self._factory.program(self._settings.model_name, artifact) is not None:
            return
        for name, make_model in self._factory.models(self._settings.model_name, artifact).items():
            model = make_model()
            if isinstance(model, ForkableModel) and model.forkable:
                model.load(artifact)
                self._loaded[name] = model
        settle()

    def _start(self, slot: _Slot) -> _Worker:
        ours, theirs = pair()
        shelf = self._free_shelves.pop()
        place = Place(
            settings=self._settings,
            runtime=self._runtime,
            options=self._options,
            listening=slot.listening,
            shelves=self._shelves,
            shelf=shelf,
            loaded=self._loaded,
            unloaded=frozenset(self._unloaded),
            ledger=self._ledger,
        )
        pid = os.fork()
        if not pid:
            ours.close()
            self._become(place, theirs)
        theirs.close()
        worker = _Worker(pid, ours, shelf, time.monotonic())
        self._selector.register(ours, selectors.EVENT_READ, worker)
        logger.info("worker started", extra={"pid": pid})
        return worker

    def _become(self, place: Place, post: Post) -> NoReturn:
        code = 1
        try:
            for worker in self._workers():
                worker.post.close()
            for slot in self._slots:
                if slot.listening is not place.listening:
                    slot.listening.close()
            self._selector.close()
            code = work(place, post)
        finally:
            # Nothing of the parent's is to be unwound here.
            logging.shutdown()
            sys.stderr.flush()
            os._exit(code)

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP and self._is_up and self._leaving_until is None:
            self._renew()
        elif number in (signal.SIGTERM, signal.SIGINT) and self._leaving_until is None:
            self._leaving_until = time.monotonic() + self._settings.drain_seconds + _GRACE_SECONDS
            # Ours first: a port that a worker gives up must not look open.
            for slot in self._slots:
                slot.listening.close()
            for worker in self._workers():
                self._dismiss(worker)
            for change in list(self._changes):
                self._end(change, Message.failure(Word.CHANGED, Transient("the server is shutting down")))

    def _dismiss(self, worker: _Worker) -> None:
        worker.state = State.LEAVING
        os.kill(worker.pid, signal.SIGTERM)

    def _reap(self) -> None:
        for slot in self._slots:
            for worker in (slot.worker, slot.successor):
                if worker is not None and (ended := os.waitpid(worker.pid, os.WNOHANG))[0]:
                    self._bury(slot, worker, os.waitstatus_to_exitcode(ended[1]))

    def _bury(self, slot: _Slot, worker: _Worker, code: int) -> None:
        self._hear(worker)
        self._selector.unregister(worker.post)
        worker.post.close()
        for gauge in (self._metrics.ready, self._metrics.queue_requests):
            gauge.clear(worker.shelf)
        own_metrics.forget_gauges(worker.pid)
        self._free_shelves.append(worker.shelf)
        for change in self._changes:
            if worker in change.left:
                was_asked = worker is change.left[0]
                change.left.remove(worker)
                if was_asked:
                    self._next(change)
        if worker is slot.successor:
            slot.successor = None
            self._renewing.clear()
            logger.error("a worker's successor failed; the workers stay", extra={"pid": worker.pid, "code": code})
        elif worker.state is State.LEAVING:
            slot.worker, slot.successor = slot.successor, None
        else:
            slot.worker, slot.successor = slot.successor, None
            self._mourn(slot, worker, code)
        self._count()

    def _mourn(self, slot: _Slot, worker: _Worker, code: int) -> None:
        if not self._is_up:
            raise LoadError(f"a worker ended with {code} before it had loaded the model")
        now = time.monotonic()
        slot.deaths = deaths_in_a_row(slot.deaths, lived_seconds=now - worker.started)
        slot.due = now + delay_seconds(slot.deaths)
        self._metrics.worker_deaths.labels().inc()
        logger.error("worker ended unasked", extra={"pid": worker.pid, "code": code, "back_in_seconds": slot.due - now})
        # Who is not accepted yet must not wait for the next one: the others of the port take new connections.
        fresh = _bound(self._settings.host, self._settings.http_port)
        slot.listening.close()
        slot.listening = fresh

    # What workers say.

    def _hear(self, worker: _Worker) -> None:
        try:
            for message in worker.post.receive():
                self._take(worker, message)
        except EOFError:
            # Its end is closed: it is on its way out, and SIGCHLD will tell.
            return

    def _take(self, worker: _Worker, message: Message) -> None:
        if message.word is Word.FAILED:
            if not self._is_up:
                raise LoadError(message.reason)
            logger.error("worker failed", extra={"pid": worker.pid, "reason": message.reason})
        elif message.word is Word.LOADED and worker.state is State.LOADING:
            worker.state = State.LOADED
            self._call()
        elif message.word is Word.SERVING and worker.state is State.LOADED:
            worker.state = State.SERVING
            self._count()
            for slot in self._slots:
                if slot.successor is worker and slot.worker is not None:
                    self._dismiss(slot.worker)
        elif message.word is Word.ASK:
            self._changes.append(_Change(worker, message))
        elif message.word is Word.CHANGED and self._changes:
            self._changed(self._changes[0], worker, message)

    def _call(self) -> None:
        # None listens before all have loaded: a port that is open must answer.
        if not self._is_up and any(slot.worker is None or slot.worker.state is State.LOADING for slot in self._slots):
            return
        if not self._is_up:
            self._is_up = True
            logger.info("all workers have loaded", extra={"workers": len(self._slots)})
        for worker in self._workers():
            if worker.state is State.LOADED:
                worker.post.send(Message(word=Word.SERVE))

    def _count(self) -> None:
        serving = sum(worker.state is State.SERVING for worker in self._workers())
        self._metrics.workers.labels().set(serving)

    # What goes through all workers, one after the other.

    def _go_on(self) -> None:
        settled = not any(worker.state in (State.LOADING, State.LOADED) for worker in self._workers())
        # Until there is nothing to be done: the next change may begin when one ends, and nobody else would wake us.
        while self._changes:
            change = self._changes[0]
            if not change.begun:
                if not settled:
                    # A worker that loads now would miss it.
                    return
                change.begun = True
                change.left = [worker for worker in self._workers() if worker.state is State.SERVING]
                self._next(change)
            if change.left:
                return
            self._end(change, Message(word=Word.CHANGED))
        if self._renewing and settled and all(slot.successor is None for slot in self._slots):
            slot = self._renewing.popleft()
            if slot.worker is not None:
                slot.successor = self._start(slot)

    def _next(self, change: _Change) -> None:
        if change.left:
            message = change.message
            change.left[0].post.send(Message(word=Word.CHANGE, verb=message.verb, model=message.model))

    def _changed(self, change: _Change, worker: _Worker, message: Message) -> None:
        if not change.left or worker is not change.left[0]:
            return
        if message.code is not None:
            self._end(change, message)
            return
        # From now on, a worker that is forked must find it so.
        self._loaded.pop(change.message.model, None)
        if change.message.verb is Verb.UNLOAD:
            self._unloaded.add(change.message.model)
        else:
            self._unloaded.discard(change.message.model)
        change.left.pop(0)
        self._next(change)

    def _end(self, change: _Change, outcome: Message) -> None:
        self._changes.remove(change)
        change.asker.post.send(
            Message(word=Word.CHANGED, number=change.message.number, code=outcome.code, reason=outcome.reason)
        )

    def _renew(self) -> None:
        try:
            self._load()
        except LoadError as error:
            logger.error("the model does not load; the workers stay", extra={"reason": str(error)})
            return
        self._renewing = deque(self._slots)
        self._unloaded.clear()


def _reserved(settings: Settings) -> tuple[list[_Slot], socket.socket | None]:
    """Return a bound socket for each worker, and one that keeps gRPC's port: none of them listens yet.

    Raises:
        OSError: Somebody has the port.
    """
    first = _bound(settings.host, settings.http_port, is_first=True)
    rest = [_bound(settings.host, first.getsockname()[1]) for _ in range(1, settings.workers)]
    grpc = _bound(settings.host, settings.grpc_port, is_first=True) if settings.enable_grpc else None
    return [_Slot(each) for each in (first, *rest)], grpc


def _bound(host: str, port: int, *, is_first: bool = False) -> socket.socket:
    if is_first and port:
        # Sharing would let us share with a stranger, who would get half of the requests.
        bound(host, port).close()
    return bound(host, port, is_shared=True)
