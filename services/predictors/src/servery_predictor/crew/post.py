"""What a supervisor and its workers say to each other: JSON, a line each, over a pair of sockets."""

from __future__ import annotations

import enum
import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from servery_sdk.errors import ErrorCode, ServeryError


class Word(enum.StrEnum):
    """What a message is about."""

    LOADED = "loaded"
    """Worker: its models are loaded."""
    SERVE = "serve"
    """Supervisor: listen."""
    SERVING = "serving"
    """Worker: it listens."""
    FAILED = "failed"
    """Worker: it cannot; ``reason`` says why."""
    ASK = "ask"
    """Worker: a client wants a model loaded or unloaded, in every worker."""
    CHANGE = "change"
    """Supervisor: load or unload a model."""
    CHANGED = "changed"
    """Worker: done, or not; ``reason`` and ``code`` say why. Supervisor: the same of all workers, to who asked."""


class Verb(enum.StrEnum):
    """What is done with a model."""

    LOAD = "load"
    UNLOAD = "unload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One line.

    Attributes:
        number: Of the change, as the worker counts that asked for it.
        code: Of a change that failed.
    """

    word: Word
    verb: Verb = Verb.LOAD
    model: str = ""
    number: int = 0
    code: ErrorCode | None = None
    reason: str = ""

    @classmethod
    def failure(cls, word: Word, error: Exception) -> Message:
        """Return what says that something failed."""
        if isinstance(error, ServeryError):
            return cls(word=word, code=error.code, reason=str(error))
        return cls(word=word, code=ErrorCode.INTERNAL, reason=f"{type(error).__name__}: {error}")

    def error(self) -> ServeryError | None:
        """Return what failed, as it was raised over there."""
        return None if self.code is None else ServeryError(self.reason, code=self.code)


class Post:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._received = b""

    def fileno(self) -> int:
        """For selectors and event loops."""
        return self._end.fileno()

    def send(self, message: Message) -> None:
        """Send; an other end that is no more shows when one reads."""
        try:
            self._end.sendall(json.dumps(asdict(message)).encode() + b"\n")
        except OSError:
            return

    def receive(self) -> Iterator[Message]:
        """Yield what is here.

        Raises:
            EOFError: The other end is closed.
        """
        try:
            data = self._end.recv(64 * 1024, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            raise EOFError
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            fields = json.loads(line)
            fields["word"], fields["verb"] = Word(fields["word"]), Verb(fields["verb"])
            fields["code"] = fields["code"] and ErrorCode(fields["code"])
            yield Message(**fields)

    def close(self) -> None:
        """Close this end."""
        self._end.close()


def pair() -> tuple[Post, Post]:
    """Return two ends."""
    one, other = socket.socketpair()
    return Post(one), Post(other)
