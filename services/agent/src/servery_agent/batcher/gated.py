"""Calls of our own that wait at the gate as requests do: KServe's ``containerConcurrency`` bounds both together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from servery_http.gateway.gate import Gate
from servery_http.rpc.calls import Done, Failure, Outcome, Status
from servery_http.rpc.client import RpcChannel


class GatedChannel:
    """Calls by ``channel``, each through ``gate``.

    Args:
        queue_seconds: That a call waits there; UNAVAILABLE.
    """

    def __init__(self, channel: RpcChannel, gate: Gate, queue_seconds: float) -> None:
        self._channel = channel
        self._gate = gate
        self._queue_seconds = queue_seconds

    @property
    def is_spoken(self) -> bool:
        """Whether the server is known to speak gRPC."""
        return self._channel.is_spoken

    def ask(self, block: bytes, message: bytes, done: Done) -> Callable[[], None]:
        """Call ``done`` once with what comes of a call, never before this returns; return what gives it up."""
        return _Call(self._channel, self._gate, block, message, done).enter(self._queue_seconds)

    def close(self) -> None:
        """Cut the connection."""
        self._channel.close()


class _Call:
    __slots__ = ("_block", "_channel", "_done", "_gate", "_message", "_take_back", "_timer")

    def __init__(self, channel: RpcChannel, gate: Gate, block: bytes, message: bytes, done: Done) -> None:
        self._channel, self._gate = channel, gate
        self._block, self._message = block, message
        self._done: Done | None = done
        self._take_back: Callable[[], None] | None = None
        self._timer: asyncio.Handle | None = None

    def enter(self, queue_seconds: float) -> Callable[[], None]:
        """Send it, or have it wait so long; return what gives it up."""
        entered = self._gate.enter(self._let_in)
        if entered:
            self._let_in()
            return self._give_up
        loop = asyncio.get_running_loop()
        if entered is None:
            why = f"{self._gate.waiting} requests wait for the predictor, which is the limit; ask again later"
            self._timer = loop.call_soon(self._finish, Failure(Status.RESOURCE_EXHAUSTED, why))
        else:
            why = f"the call waited {queue_seconds:g} s for the predictor; ask again later"
            self._timer = loop.call_later(queue_seconds, self._finish, Failure(Status.UNAVAILABLE, why))
        return self._give_up

    def _let_in(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._take_back = self._channel.ask(self._block, self._message, self._finish)

    def _finish(self, outcome: Outcome) -> None:
        done = self._done
        self._leave()
        if done is not None:
            done(outcome)

    def _give_up(self) -> None:
        take_back = self._take_back
        if self._done is not None:
            self._leave()
            if take_back is not None:
                take_back()

    def _leave(self) -> None:
        # Who asked may hold this: neither should wait for the collector.
        self._done = None
        if self._timer is not None:
            self._timer.cancel()
        take_back, self._take_back = self._take_back, None
        if take_back is None:
            self._gate.give_up(self._let_in)
        else:
            self._gate.leave()
