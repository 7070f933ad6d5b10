"""What one thread of the mover does: asks for a piece, on one of its own connections, and writes it as it comes."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urljoin, urlsplit

from servery_sdk.digests import Digest
from servery_sdk.errors import Permanent, Transient
from servery_sdk.storage import Addressed, Refusal

from servery_storage.assembly import Assembly, Mismatch
from servery_storage.backoff import delay_seconds
from servery_storage.plan import Piece
from servery_storage.progress import Progress
from servery_storage.settings import Settings
from servery_storage.splicing import Pipe, Unspliceable
from servery_storage.throttle import Throttle
from servery_storage.wire import Answer, Origin, Wire, WireBroken, WireStale

REFUSAL_BYTES = 64 * 1024
MAX_REDIRECTS = 10
MAX_WIRES = 4
"""Kept by a thread: the source's host, and those that it sends to."""
SLOW_SECONDS = 30.0
SLOW_BYTES_PER_SECOND = 1024
"""A piece that comes at less for ``SLOW_SECONDS`` is asked for anew."""
ALWAYS = {"accept-encoding": "identity", "user-agent": "servery"}
"""Headers of every request."""
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FOR_ANY_HOST = frozenset({"accept-encoding", "if-match", "range", "user-agent"})
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


class Stopped(Exception):  # no error: the mover ends
    """The mover was told to stop."""


class Carrier:
    """One thread's connections and its buffer. Use ``close`` at the end."""

    def __init__(
        self,
        provider: Addressed,
        settings: Settings,
        *,
        stopped: threading.Event,
        throttle: Throttle,
        progress: Progress,
    ) -> None:
        self._provider, self._settings, self._stopped = provider, settings, stopped
        self._throttle, self._progress = throttle, progress
        self._wires: dict[Origin, Wire] = {}
        self._buffer = memoryview(bytearray(settings.buffer_bytes))
        self._pipe: Pipe | None = None
        self._splices = True

    def close(self) -> None:
        """Close the connections."""
        if self._pipe is not None:
            self._pipe.close()
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def carry(self, piece: Piece, assembly: Assembly) -> bool:
        """Bring ``piece``, and return whether its object is whole and verified now.

        A try that brought a good part of the piece counts for nothing: the next goes on from there.

        Raises:
            Mismatch: The object is whole, and wrong.
            Transient: As often as the settings allow, at one place.
            Permanent: The source will not have it otherwise.
            Stopped: The mover ends.
        """
        at, tries = piece.offset, 0
        while True:
            reading = _Reading(piece, assembly, at)
            try:
                self._read(reading)
                return assembly.came(piece, self._buffer)
            except Mismatch:
                raise
            except Transient as error:
                brought, at = reading.at - at, reading.at
                tries = 1 if brought * 16 >= (piece.size_bytes or self._settings.piece_bytes) else tries + 1
                if tries >= self._settings.max_attempts:
                    raise
                self._progress.tries_again(str(error))
                wait = delay_seconds(
                    tries,
                    error,
                    first_seconds=self._settings.backoff_seconds,
                    jitter=random.random(),  # noqa: S311  # no secret
                )
                self._stopped.wait(wait)

    def _read(self, reading: _Reading) -> None:
        piece = reading.piece
        if reading.left == 0:
            reading.assembly.open(piece.entry.digest)
            return
        wire_origin, answer = self._asked(reading)
        try:
            reading.begin(answer, self._provider.digest(piece.entry, answer.headers))
            slow = _Slowness()
            while reading.left != 0 and (count := self._spliced(answer, reading) or self._copied(answer, reading)):
                self._throttle.passed(count)
                slow.check(piece, count)
            reading.end()
        finally:
            if not answer.is_read:
                self._wires.pop(wire_origin).close()

    def _copied(self, answer: Answer, reading: _Reading) -> int:
        """Bring what there is through the buffer, and return how many bytes came; 0 at the body's end."""
        count = answer.readinto(self._buffer)
        if count:
            self._go_on()
            self._progress.advance(reading.piece.entry, reading.take(self._buffer[:count]))
        return count

    def _spliced(self, answer: Answer, reading: _Reading) -> int:
        """Bring what there is past this process, and return how many bytes came; 0 where that is not to be done."""
        if not (self._splices and answer.is_spliced and reading.is_spliced(len(self._buffer))):
            return 0
        if self._pipe is None:
            self._pipe = Pipe(len(self._buffer))
        try:
            count = answer.splice(self._pipe, len(self._buffer))
        except Unspliceable:
            self._splices = False
            return 0
        self._go_on()
        reading.pour(self._pipe, count)
        self._progress.advance(reading.piece.entry, count)
        return count

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Stopped

    def _asked(self, reading: _Reading) -> tuple[Origin, Answer]:
        """Return an answer that holds the object, and whose wire it came by."""
        entry = reading.piece.entry
        location = self._provider.locate(entry)
        url, headers = location.url, {**location.headers, **ALWAYS}
        if (wanted := reading.range) is not None:
            headers["range"] = wanted
        for _ in range(MAX_REDIRECTS + 1):
            origin, target = Origin.of(url, location.tls)
            answer = self._got(origin, target, headers)
            if answer.status in _REDIRECTS and "location" in answer.headers:
                url, headers = _sent_on(url, answer, headers)
                self._emptied(origin, answer)
                continue
            if answer.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT} or reading.is_at_the_end(answer):
                return origin, answer
            body = self._emptied(origin, answer)
            raise self._provider.refused(entry, _refusal(url, answer, body))
        raise Permanent(f"object {entry.source!r}: more than {MAX_REDIRECTS} redirects, the last to {url}")

    def _got(self, origin: Origin, target: str, headers: Mapping[str, str]) -> Answer:
        if (wire := self._wires.get(origin)) is not None:
            try:
                return wire.get(target, headers)
            except WireStale:
                self._wires.pop(origin).close()
            except BaseException:
                self._wires.pop(origin).close()
                raise
        if len(self._wires) == MAX_WIRES:
            self._wires.pop(next(iter(self._wires))).close()
        self._wires[origin] = Wire(origin, timeout_seconds=self._settings.timeout_seconds)
        return self._got(origin, target, headers)

    def _emptied(self, origin: Origin, answer: Answer) -> bytes:
        """Return the beginning of a body that is not the object, and see to the connection."""
        got = bytearray()
        try:
            while len(got) < REFUSAL_BYTES and (count := answer.readinto(self._buffer[:REFUSAL_BYTES])):
                got += self._buffer[:count]
        except WireBroken:
            pass  # What came of it has to do.
        if not answer.is_read:
            self._wires.pop(origin).close()
        return bytes(got)


class _Reading:
    """One try at a piece, from ``at`` on."""

    def __init__(self, piece: Piece, assembly: Assembly, at: int) -> None:
        self.piece, self.assembly, self.at = piece, assembly, at
        self._end = None if piece.size_bytes is None else piece.offset + piece.size_bytes
        self._skip = 0

    @property
    def left(self) -> int | None:
        """The bytes still to come; None where that is not known."""
        return None if self._end is None else self._end - self.at

    @property
    def range(self) -> str | None:
        """What to ask for; None is the whole object."""
        if self.piece.is_whole or self._end is None:
            return f"bytes={self.at}-" if self.at else None
        return f"bytes={self.at}-{self._end - 1}"

    def is_at_the_end(self, answer: Answer) -> bool:
        """Whether the server says that nothing is left of an object whose size was not known."""
        said = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        is_beyond = answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._end is None
        return is_beyond and said is not None and said[2] == str(self.at)

    def begin(self, answer: Answer, digest: Digest | None) -> None:
        """Hold the answer against what was listed, and open the file."""
        entry = self.piece.entry
        total: str | int | None = answer.length
        if answer.status == HTTPStatus.PARTIAL_CONTENT:
            said = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
            if said is None or said[1] != str(self.at):
                raise Transient(
                    f"object {entry.source!r}: asked for {self.range}, got {answer.headers.get('content-range')!r}"
                )
            total = int(said[2]) if said[2] != "*" else None
        elif answer.status == HTTPStatus.OK:
            self._skip = self.at
        if None not in (total, entry.size_bytes) and total != entry.size_bytes:
            raise Permanent(
                f"object {entry.source!r}: {entry.size_bytes} bytes were listed, and {total} are there; "
                "the object changed during the download"
            )
        self.assembly.open(digest)

    def take(self, view: memoryview) -> int:
        """Write what came, and return how many bytes of it were wanted."""
        skipped = min(self._skip, len(view))
        self._skip -= skipped
        view = view[skipped:]
        if self.left is not None:
            view = view[: self.left]
        self.assembly.write(view, self.at)
        self.at += len(view)
        return len(view)

    def is_spliced(self, size_bytes: int) -> bool:
        """Whether ``size_bytes`` that come next, and no fewer, are written as they are, and seen by nobody."""
        return self._skip == 0 and self.left is not None and self.left >= size_bytes and self.assembly.is_summed_behind

    def pour(self, pipe: Pipe, size_bytes: int) -> None:
        """Write what is in ``pipe``."""
        self.assembly.pour(pipe, size_bytes, self.at)
        self.at += size_bytes

    def end(self) -> None:
        """Hold what came against what was to come."""
        if self.left is None:
            self.assembly.cut(self.at)
        elif self.left:
            size, source = self.piece.entry.size_bytes, self.piece.entry.source
            raise Transient(f"object {source!r}: the body ended {self.left} bytes early, of {size}")


class _Slowness:
    """Finds a server that sends just enough never to time out."""

    def __init__(self) -> None:
        self._since, self._came = time.monotonic(), 0

    def check(self, piece: Piece, count: int) -> None:
        self._came += count
        now = time.monotonic()
        if now - self._since < SLOW_SECONDS:
            return
        rate = self._came / (now - self._since)
        if rate < SLOW_BYTES_PER_SECOND:
            raise Transient(f"object {piece.entry.source!r}: it came at {rate:.0f} bytes a second")
        self._since, self._came = now, 0


def _refusal(url: str, answer: Answer, body: bytes) -> Refusal:
    return Refusal(url=url, status=answer.status, reason=answer.reason, headers=answer.headers, body=body)


def _sent_on(url: str, answer: Answer, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Return where a redirect leads, and the headers to take along: whatever may be a credential stays with its host."""
    further = urljoin(url, answer.headers["location"])
    if urlsplit(further)[:2] != urlsplit(url)[:2]:
        headers = {name: value for name, value in headers.items() if name in _FOR_ANY_HOST}
    return further, headers
