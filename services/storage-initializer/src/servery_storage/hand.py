"""What a process of the crew does: asks for small objects one after the other, several on their way at once, and writes them.

Started by ``crew``. It knows no provider, no retries and no sums of a source: whatever is
not a whole object's plain answer ends it, and the threads of the process that started it do what is left. One thread on
several connections: the next requests are with the server while one answer is read, and nobody waits for a lock. ADR 35.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

from servery_sdk.digests import DigestAlgorithm, hasher
from servery_sdk.errors import ServeryError, Transient
from servery_sdk.storage import Tls

from servery_storage.wire import Answer, Origin, Wire, WireStale

LARGEST_BYTES = 1024**2
"""What is small."""
MESSAGE_BYTES = 1024**2
IN_FLIGHT = 4
ANSWERS = 16
"""At most so many in a message."""
PATIENCE_SECONDS = 5.0
"""For one small object: the threads have as much as the settings say."""


class Task(NamedTuple):
    """One object: what of ``origin`` it is, by which headers, and where it goes."""

    number: int
    path: str
    target: str
    headers: dict[str, str]
    size_bytes: int
    algorithm: str


class Brought(NamedTuple):
    """What came of a task: the answer's headers, and the sum by the task's algorithm."""

    number: int
    headers: dict[str, str]
    algorithm: str
    sum: str


class Hand:
    """Brings what is told on ``channel``, whose first message says from whom, until that ends."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._origin = Origin("http", "", 0, Tls())
        self._end = select.poll()
        self._end.register(channel, 0)  # which tells of the other's end alone
        self._buffer = memoryview(bytearray(LARGEST_BYTES + 1))
        self._wires: set[Wire] = set()
        self._free: list[Wire] = []
        self._todo: deque[Task] = deque()
        self._asked: deque[tuple[Task, Wire]] = deque()
        self._brought: list[Brought] = []

    def run(self) -> None:
        """Return when nothing more is wanted.

        Raises:
            ServeryError, OSError: One is not as simple as that. Those before it are told.
        """
        told, locks, *_ = socket.recv_fds(self._channel, MESSAGE_BYTES, 1)  # What is locked is so until this ends.
        if not told:
            return
        scheme, host, port, verify, *files = json.loads(told)
        ca, certificate, key = (Path(file) if file else None for file in files)
        tls = Tls(verify=verify, ca_file=ca, certificate_file=certificate, key_file=key)
        self._origin = Origin(scheme, host, port, tls)
        try:
            while self._fill():
                self._brought.append(self._bring(*self._asked.popleft()))
                if len(self._brought) == ANSWERS:
                    self._tell()
        finally:
            self._tell()
            for wire in tuple(self._wires):
                self._close(wire)
            for lock in locks:
                os.close(lock)

    def _fill(self) -> bool:
        """Ask for as many as may be on their way; return whether there is one."""
        while len(self._asked) < IN_FLIGHT and (self._todo or self._hear()):
            if self._end.poll(0):
                return False  # Who would know of it has ended.
            task = self._todo.popleft()
            wire = self._free.pop() if self._free else self._connected()
            try:
                wire.ask(task.target, task.headers)
            except WireStale:
                self._close(wire)
                wire = self._connected()
                wire.ask(task.target, task.headers)
            self._asked.append((task, wire))
        return bool(self._asked)

    def _hear(self) -> bool:
        """Take the next tasks; wait for them where there is nothing else to do."""
        if not self._asked:
            self._tell()
        try:
            heard = self._channel.recv(MESSAGE_BYTES, socket.MSG_DONTWAIT if self._asked else 0)
        except BlockingIOError:
            return False
        self._todo.extend(Task(*task) for task in json.loads(heard or b"[]"))
        return bool(heard)

    def _bring(self, task: Task, wire: Wire) -> Brought:
        until = time.monotonic() + PATIENCE_SECONDS
        try:
            answer = wire.answered()
        except WireStale:
            self._close(wire)
            wire = self._connected()
            wire.ask(task.target, task.headers)
            answer = wire.answered()
        if answer.status != 200 or answer.length not in {None, task.size_bytes}:
            raise Transient(f"{task.target}: the answer is {answer.status}, of {answer.length} bytes")
        body = self._read(task, answer, until)
        self._write(task.path, body)
        taken = b""
        if task.algorithm:
            summed = hasher(DigestAlgorithm(task.algorithm))
            summed.update(body)
            taken = summed.digest()
        if answer.is_read:
            self._free.append(wire)
        else:
            self._close(wire)
        return Brought(task.number, answer.headers, task.algorithm, taken.hex())

    def _read(self, task: Task, answer: Answer, until: float) -> memoryview:
        at = 0
        while count := answer.readinto(self._buffer[at : task.size_bytes + 1]):
            at += count
            if at > task.size_bytes or time.monotonic() > until:
                break
        if at != task.size_bytes:
            raise Transient(f"{task.target}: {at} of {task.size_bytes} bytes came")
        return self._buffer[:at]

    def _write(self, path: str, body: memoryview) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            descriptor = os.open(path, flags, 0o644)
        except FileExistsError:
            os.unlink(path)
            descriptor = os.open(path, flags, 0o644)
        try:
            while body:
                body = body[os.write(descriptor, body) :]
        finally:
            os.close(descriptor)

    def _connected(self) -> Wire:
        wire = Wire(self._origin, timeout_seconds=PATIENCE_SECONDS)
        self._wires.add(wire)
        return wire

    def _close(self, wire: Wire) -> None:
        self._wires.discard(wire)
        wire.close()

    def _tell(self) -> None:
        if self._brought:
            self._channel.sendall(json.dumps(self._brought).encode())
            self._brought.clear()


def main() -> None:
    """Be as many hands as there are channels, whose descriptors are the arguments: one imports, and the others are forked
    of it. That one waits for them, and takes them along where it is told to end.
    """
    mine, *others = [int(descriptor) for descriptor in sys.argv[1:]]
    children: list[int] = []

    def ended(*_: object) -> NoReturn:
        for running in children:
            with suppress(OSError):  # It has ended just now.
                os.kill(running, signal.SIGKILL)
                os.waitpid(running, 0)
        os._exit(1)

    signal.signal(signal.SIGTERM, ended)
    for at, other in enumerate(others):
        child = os.fork()
        if child:
            children.append(child)
            os.close(other)
            continue
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for foreign in (mine, *others[at + 1 :]):
            os.close(foreign)
        be(other)
        os._exit(0)
    try:
        be(mine)
    finally:
        while children:
            children.remove(os.wait()[0])
    os._exit(0)  # Python would take all that it has imported apart.


def be(descriptor: int) -> None:
    """Be one hand; what ends it before its time is told."""
    with socket.socket(fileno=descriptor) as channel:
        # Who started us may be telling while we do: with answers too long for the socket neither would hear the other.
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(PATIENCE_SECONDS), 0))
        try:
            Hand(channel).run()
        except (ServeryError, OSError) as error:
            with suppress(OSError):  # It has ended itself.
                channel.sendall(json.dumps(str(error)).encode())
