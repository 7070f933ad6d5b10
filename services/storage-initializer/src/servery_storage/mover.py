"""Moves located objects to the disk: threads that take pieces off a queue, each with connections and one buffer of its own,
and processes for what is small and many (``crew``).

Threads, because a socket's read, TLS, a sum and a file's write all let the next thread run, and each is done straight in
the one buffer: memory is connections times the buffer, whatever the model's size. ADR 25.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import closing

from servery_sdk.storage import Addressed, StorageEntry

from servery_storage.assembly import Assembly, Mismatch
from servery_storage.carrier import Carrier, Stopped
from servery_storage.crew import LEAST_OBJECTS, Crew, Hand, is_small
from servery_storage.hand import IN_FLIGHT
from servery_storage.plan import Piece, in_order, pieces_of
from servery_storage.progress import Origin, Progress
from servery_storage.settings import Settings
from servery_storage.staging import Staging
from servery_storage.throttle import Throttle

_Task = tuple[Piece, Assembly]


class Mover:
    """Moves one model's objects.

    Args:
        progress: Told of what comes, from several threads.
        crew: Has the small objects, if it has been started and there are many.
    """

    def __init__(
        self,
        provider: Addressed,
        staging: Staging,
        settings: Settings,
        progress: Progress,
        crew: Crew,
    ) -> None:
        self._provider, self._staging, self._settings, self._progress = provider, staging, settings, progress
        self._stopped = threading.Event()
        self._throttle = Throttle(settings.max_bytes_per_second, self._stopped.wait)
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._small: deque[Piece] = deque()
        self._crew = crew
        self._hands: list[Hand] = []
        self._leading = 0
        self._assemblies: Mapping[Piece, Assembly] = {}
        self._lock = threading.Lock()
        self._unfinished = 0
        self._failure: BaseException | None = None

    def run(self, entries: Iterable[StorageEntry]) -> None:
        """Move ``entries``, and return when all are whole and verified.

        Raises:
            Transient, Permanent: The first that could not be, after as many tries as the settings say.
            OSError: Of the disk.
        """
        tasks = {piece: assembly for assembly in map(self._assembly, entries) for piece in assembly.missing}
        self._assemblies = tasks
        self._unfinished = len(set(tasks.values()))
        self._share(in_order(tasks))
        workers = [
            threading.Thread(target=self._work, args=(number,), name=f"fetch-{number}", daemon=True)
            for number in range(min(self._settings.max_connections, len(tasks)))
        ]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        finally:
            self.stop()
            self._crew.close()
            for assembly in tasks.values():
                assembly.close()
        if self._failure is not None:
            raise self._failure

    def _share(self, pieces: Iterable[Piece]) -> None:
        """Say who brings what: hands the small ones, if there are many, and threads the rest."""
        if sum(is_small(piece.entry) for piece in self._assemblies) >= LEAST_OBJECTS:
            self._hands = [Hand(channel, self._provider, self._staging, self._small) for channel in self._crew.channels]
        self._leading = len(self._hands)
        for piece in pieces:
            if self._hands and is_small(piece.entry) and piece.is_whole:
                self._small.append(piece)
            else:
                self._tasks.put((piece, self._assemblies[piece]))

    def stop(self) -> None:
        """Let every thread end after its next read."""
        self._stopped.set()
        if self._leading:
            self._crew.dismiss()
        self._dismiss()

    def _assembly(self, entry: StorageEntry) -> Assembly:
        pieces = pieces_of(entry, self._settings.piece_bytes)
        missing = self._staging.missing(pieces)
        if len(missing) < len(pieces):
            kept = sum(piece.size_bytes or 0 for piece in set(pieces).difference(missing))
            self._progress.has(entry, kept, Origin.EARLIER)
        return Assembly(entry, self._staging.path(entry), pieces, missing)

    def _work(self, number: int) -> None:
        """Bring pieces. Of those who have a hand's connections, one leads it first, and the others wait for its end."""
        if number < len(self._hands) * IN_FLIGHT:
            hand = self._hands[number // IN_FLIGHT]
            if number % IN_FLIGHT == 0:
                self._lead(hand)
            else:
                hand.ended.wait()
        carrier = Carrier(
            self._provider,
            self._settings,
            stopped=self._stopped,
            throttle=self._throttle,
            progress=self._progress,
        )
        with closing(carrier):
            while (task := self._tasks.get()) is not None and not self._stopped.is_set():
                try:
                    self._carried(carrier, *task)
                except Stopped:
                    return
                except BaseException as error:  # the thread's rim: run() raises it
                    self._fail(error)

    def _carried(self, carrier: Carrier, piece: Piece, assembly: Assembly) -> None:
        try:
            is_whole = carrier.carry(piece, assembly)
        except Mismatch as error:
            self._comes_again(piece, assembly, error)
            return
        if len(assembly.pieces) > 1:
            self._staging.piece_is_there(piece)
        if is_whole:
            self._is_whole(piece)

    def _lead(self, hand: Hand) -> None:
        """See to what a hand brings; what it does not is the threads'."""
        try:
            for piece, wrong in hand.carry():
                if wrong is None:
                    self._progress.advance(piece.entry, piece.size_bytes or 0)
                    self._is_whole(piece)
                else:
                    self._comes_again(piece, self._assemblies[piece], wrong)
            if hand.complaint and not self._stopped.is_set():
                self._progress.tries_again(hand.complaint)
        except BaseException as error:  # the thread's rim, too
            self._fail(error)
        with self._lock:
            self._leading -= 1
            left = hand.left + (list(self._small) if not self._leading else [])
        for piece in left:
            self._tasks.put((piece, self._assemblies[piece]))
        hand.ended.set()

    def _comes_again(self, piece: Piece, assembly: Assembly, error: Mismatch) -> None:
        assembly.mismatches += 1
        if assembly.mismatches >= self._settings.max_mismatches:
            raise error
        self._progress.comes_again(piece.entry, str(error))
        self._staging.entry_is_wrong(piece.entry)
        for again in assembly.restart():
            self._tasks.put((again, assembly))

    def _is_whole(self, piece: Piece) -> None:
        self._staging.entry_is_whole(piece.entry)
        with self._lock:
            self._unfinished -= 1
            if self._unfinished == 0:
                self._dismiss()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            # The first is the cause; the others say the same, or follow from it.
            self._failure = self._failure or error
        self.stop()

    def _dismiss(self) -> None:
        for _ in range(self._settings.max_connections):
            self._tasks.put(None)
