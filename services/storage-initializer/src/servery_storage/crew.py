"""Processes beside this one for thousands of small objects, of which Python's one lock would let one core bring all.

A hand is told where each object is, and tells what it was answered; located, verified, noted and counted it is here, as
it is for the threads. What a hand does not bring whole and right is left to the threads, with all their tries. ADR 35.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from servery_sdk.digests import Digest, DigestAlgorithm, digest_of
from servery_sdk.errors import ServeryError, Transient
from servery_sdk.storage import Addressed, StorageEntry

from servery_storage.assembly import Mismatch, mismatch
from servery_storage.carrier import ALWAYS
from servery_storage.hand import IN_FLIGHT, LARGEST_BYTES, MESSAGE_BYTES, Brought, Task
from servery_storage.plan import Piece
from servery_storage.settings import Settings
from servery_storage.staging import Staging
from servery_storage.wire import Origin

LEAST_OBJECTS = 400
"""Fewer come sooner than a process starts."""
TOLD = 16
"""Objects in a message: with the longest keys and tokens it is a socket's."""
AHEAD = 4 * TOLD
"""Objects that a hand knows of: on a busy machine it is a while until this process runs again."""

_START = "import sys, json; sys.path[:] = json.loads(sys.argv.pop(1)); from servery_storage.hand import main; main()"
"""With the paths that are known here: ``site`` takes as long to find them as all imports together."""


def is_small(entry: StorageEntry) -> bool:
    """Whether a hand may bring it."""
    return 0 < (entry.size_bytes or 0) <= LARGEST_BYTES


def size_of(settings: Settings) -> int:
    """Return how many processes bring small objects. A bound on bytes is of one process, and needs no second."""
    cores = len(os.sched_getaffinity(0))
    if cores == 1 or settings.max_bytes_per_second:
        return 0
    return min(settings.max_processes, cores, settings.max_connections // IN_FLIGHT)


class Crew:
    """Processes that wait for what to bring: a process of few imports, and forks of it. Nobody before ``start``; who has
    one calls ``close``.

    Attributes:
        channels: To each of them.
    """

    def __init__(self) -> None:
        self.channels: list[socket.socket] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, count: int) -> None:
        """Start ``count`` processes, if it has none."""
        if not count or self._process is not None:
            return
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
        theirs = [their for _, their in pairs]
        self.channels = [our for our, _ in pairs]
        descriptors = [their.fileno() for their in theirs]
        try:
            self._process = subprocess.Popen(  # noqa: S603  # ourselves
                [sys.executable, "-IS", "-c", _START, json.dumps(sys.path), *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=descriptors,
                process_group=0,  # A terminal interrupts this process, and this one its crew.
            )
        except OSError:  # As many as may be are there already: then threads do it all.
            self.close()
        for their in theirs:
            their.close()  # so that its end is heard

    def dismiss(self) -> None:
        """Tell them to end at once, whatever they are at; from any thread."""
        if self._process is not None:
            self._process.terminate()

    def close(self) -> None:
        """Wait until all have ended, who have nothing to do any more."""
        for channel in self.channels:
            channel.close()
        self.channels.clear()
        if self._process is not None:
            self._process.wait()  # It waits for its forks.


class Hand:
    """One process of a crew, as the thread that leads it sees it.

    Args:
        staging: The process has its lock as well: who is to fetch the same next waits until that has ended, even where
            this process was killed.
        tasks: What all hands have to do; a hand takes from its left.
    """

    def __init__(self, channel: socket.socket, provider: Addressed, staging: Staging, tasks: deque[Piece]) -> None:
        self._channel, self._provider, self._staging, self._tasks = channel, provider, staging, tasks
        self._out: dict[int, Piece] = {}
        self._taken = 0
        self._origin: Origin | None = None
        self._algorithm: DigestAlgorithm | None = None
        self.ended = threading.Event()
        self.complaint = ""
        """Why it ended before its time."""

    @property
    def left(self) -> list[Piece]:
        """What it took and did not bring."""
        return list(self._out.values())

    def carry(self) -> Iterator[tuple[Piece, Mismatch | None]]:
        """Yield what is brought, and what is wrong with it, until nothing is to be done or the process ends."""
        ahead = TOLD  # By which sum the next are known is known by the first.
        try:
            while self._tell(ahead):
                heard = json.loads(self._channel.recv(MESSAGE_BYTES) or b'"a process that fetches ended"')
                if isinstance(heard, str):
                    self.complaint = heard
                    return
                for brought in map(Brought._make, heard):
                    piece = self._out[brought.number]
                    wrong = self._wrong(piece, brought)
                    del self._out[brought.number]
                    yield piece, wrong
                ahead = AHEAD
        except (ServeryError, OSError) as error:  # of where an object is, or the process: the threads say it better
            self.complaint = str(error)

    def _tell(self, ahead: int) -> bool:
        """Tell of what comes next until the process knows of so many; return whether it has anything to do."""
        while self._tasks and len(self._out) < ahead:
            tasks: list[Task] = []
            while self._tasks and len(tasks) < TOLD:
                try:
                    piece = self._tasks.popleft()
                except IndexError:  # another hand was quicker
                    break
                self._taken += 1
                self._out[self._taken] = piece
                tasks.append(self._task(self._taken, piece))
            if tasks:
                self._channel.sendall(json.dumps(tasks).encode())
        return bool(self._out)

    def _task(self, number: int, piece: Piece) -> Task:
        location = self._provider.locate(piece.entry)
        origin, target = Origin.of(location.url, location.tls)
        if self._origin is None:
            self._origin = origin
            self._begin(origin)
        elif origin != self._origin:
            raise Transient(f"object {piece.entry.source!r}: it lies with {origin}, others with {self._origin}")
        return Task(
            number,
            self._staging.path(piece.entry),
            target,
            {**location.headers, **ALWAYS},
            piece.size_bytes or 0,
            self._algorithm or "",
        )

    def _begin(self, origin: Origin) -> None:
        tls = origin.tls
        files = [str(file) if file else "" for file in (tls.ca_file, tls.certificate_file, tls.key_file)]
        told = json.dumps([origin.scheme, origin.host, origin.port, tls.verify, *files])
        socket.send_fds(self._channel, [told.encode()], [self._staging.lock] if self._staging.lock >= 0 else [])

    def _wrong(self, piece: Piece, brought: Brought) -> Mismatch | None:
        """Hold an object against what its source says. The first came before it was known by which sum."""
        told = self._provider.digest(piece.entry, brought.headers)
        if told is None:
            return None
        if told.algorithm == brought.algorithm:
            found = Digest.of_hex(told.algorithm, brought.sum)
        else:
            found = digest_of(told.algorithm, Path(self._staging.path(piece.entry)).read_bytes())
        self._algorithm = told.algorithm
        return None if found == told else mismatch(piece.entry, told, found)
