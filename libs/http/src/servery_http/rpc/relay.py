"""The client's side of a connection to the server behind the front: streams pass through as they are."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from servery_http.address import Address
from servery_http.http2 import connection, frames
from servery_http.http2.connection import Connection, Stream
from servery_http.http2.frames import ErrorCode, Setting
from servery_http.http2.headers import encode, first
from servery_http.rpc.calls import Status, trailers_only
from servery_http.rpc.watching import CallWatcher

logger = logging.getLogger(__name__)

_CODES = frozenset(int(code) for code in ErrorCode)
_MAX_LIST_BYTES = 256 * 1024
"""Of what the server behind us may answer; it is our own."""


Over: TypeAlias = Callable[[bytes], None]
"""Told how a call ended: ``grpc-status``, or ``:status`` of what is no gRPC."""

_CANCELLED, _UNAVAILABLE = b"1", b"14"


class Relayed(Stream):
    """A call on its way through; ``began`` once the server has begun to answer."""

    __slots__ = ("began", "over", "status", "watcher")

    def __init__(self, connection: Connection, number: int, window: int, caller: Stream) -> None:
        super().__init__(connection, number, window)
        self.began = False
        self.watcher: CallWatcher | None = None
        self.over: Over | None = None
        self.status = _UNAVAILABLE
        self.twin, caller.twin = caller, self

    def give_up(self) -> None:
        """Tell that its caller has given it up."""
        self.end(is_complete=False, otherwise=_CANCELLED)

    def end(self, *, is_complete: bool, otherwise: bytes = _UNAVAILABLE) -> None:
        """Tell who watches that it is over; nothing happens again."""
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher.on_end(is_complete=is_complete)
        over, self.over = self.over, None
        if over is not None:
            over(self.status if is_complete else otherwise)


class Upstream(Connection):
    """One connection to the server behind, for one client's streams. It may be used before it is connected.

    Args:
        address: Of the server.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(max_list_bytes=_MAX_LIST_BYTES)
        self.is_leaving = False
        self._next = 1
        self._corked = True
        settings = {Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: connection.STREAM_WINDOW_BYTES}
        self._out.append(frames.PREFACE + frames.settings(settings))
        self._out.append(frames.window_update(0, connection.CONNECTION_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES))
        self._opening = self._loop.create_task(self._open(address), name="grpc-relay")

    async def _open(self, address: Address) -> None:
        try:
            await address.connect(lambda: self)
        except OSError as error:
            logger.exception("the gRPC server behind the front does not answer")
            self.connection_lost(error)

    @property
    def is_done(self) -> bool:
        """Whether the connection has ended."""
        return self._closing

    def open(
        self,
        caller: Stream,
        block: bytes,
        watcher: CallWatcher | None = None,
        over: Over | None = None,
        *,
        end: bool,
    ) -> Relayed:
        """Pass on the head of ``caller``'s call; the rest of it follows as it comes."""
        stream = Relayed(self, self._next, self._peer_window, caller)
        stream.over = over
        if watcher is not None:
            stream.watcher = watcher
            block += encode(watcher.fields_to_server)
        self._next += 2
        self._streams[stream.id] = stream
        self.send_block(stream, block, end=end)
        return stream

    def is_idle(self, number: int) -> bool:
        return number >= self._next or number % 2 == 0

    def on_head(self, number: int, block: bytes, *, end: bool) -> None:
        known = self._heads.get(block)
        if known is None:
            fields, is_stable = self.decode(block)
            status = first(fields, b":status")
            known = (encode(fields), status is not None and status[:1] == b"1", fields)
            if is_stable:
                self._heads[block] = known
        encoded, is_interim, fields = known
        stream = self._streams.get(number)
        if stream is None or not stream.receiving:
            return
        assert isinstance(stream, Relayed)
        assert stream.twin is not None
        if stream.watcher is not None and not (stream.began or is_interim):
            stream.watcher.on_call_head(fields)
            encoded += encode(stream.watcher.fields_to_client)
        stream.began = stream.began or not is_interim
        stream.receiving = not end
        if stream.over is not None and not is_interim:
            stream.status = first(fields, b"grpc-status") or first(fields, b":status") or stream.status
        if end:
            stream.end(is_complete=True)
        stream.twin.connection.send_block(stream.twin, encoded, end=end)
        if end and not stream.sending:
            self._streams.pop(number, None)

    def on_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        assert stream.twin is not None
        assert isinstance(stream, Relayed)
        if stream.watcher is not None:
            stream.watcher.on_answer_piece(data)
            if end:
                stream.end(is_complete=True)
        stream.twin.connection.send_data(stream.twin, data, end=end)

    def on_reset(self, stream: Stream, code: int) -> None:
        caller = stream.twin
        assert caller is not None
        assert isinstance(stream, Relayed)
        stream.end(is_complete=False)
        if code == ErrorCode.NO_ERROR and caller.queue:
            # It has answered without reading on; the client must get that answer whole before it hears so.
            return
        caller.connection.reset(caller, known_code(code))

    def on_goaway(self, last: int) -> None:
        self.is_leaving = True
        for stream in [stream for number, stream in self._streams.items() if number > last]:
            self._lose(stream)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self.is_leaving = True
        for stream in list(self._streams.values()):
            self._lose(stream)

    def _lose(self, stream: Stream) -> None:
        self._streams.pop(stream.id, None)
        self._drop(stream)
        caller = stream.twin
        assert caller is not None
        assert isinstance(stream, Relayed)
        stream.end(is_complete=False)
        if not stream.began:
            lost = trailers_only(Status.UNAVAILABLE, "the server went away before it answered")
            caller.connection.send_block(caller, lost, end=True)
        caller.connection.reset(caller, ErrorCode.INTERNAL_ERROR if stream.began else ErrorCode.NO_ERROR)

    def abort(self) -> None:
        """Cut the connection, made or not."""
        self._opening.cancel()
        super().abort()


def known_code(code: int) -> ErrorCode:
    """Return a peer's code; one that has no meaning counts as an internal error, as RFC 9113, 7, has it."""
    return ErrorCode(code) if code in _CODES else ErrorCode.INTERNAL_ERROR
