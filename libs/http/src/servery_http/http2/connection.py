"""What both sides of an HTTP/2 connection do: read frames, keep streams and windows, write what the peer has room for.

A subclass is a server's or a client's side: it says what heads, data and resets mean. Streams of two connections may be
``twins``: what one receives the other sends, and the room for more is given back as it leaves.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

from servery_http.http2 import frames
from servery_http.http2.frames import ConnectionBroken, ErrorCode, Setting, StreamBroken
from servery_http.http2.headers import NO_TABLE, Decoder, Fields

logger = logging.getLogger(__name__)

STREAM_WINDOW_BYTES = 1024 * 1024
"""That a peer may send on one stream before we have dealt with it."""
CONNECTION_WINDOW_BYTES = 16 * 1024 * 1024
"""The same of all its streams together."""
_KNOWN_BLOCKS = 64
_CUT_STREAMS = 1000
_CORK_BYTES = 256 * 1024
_LINGER_SECONDS = 1.0


class Stream:
    """One stream of one connection.

    Attributes:
        receiving: Whether the peer may still send.
        sending: Whether we may.
        window: Bytes that we may send now.
        expected_bytes: What ``content-length`` says is still to come.
        twin: The stream that this one is relayed to; what arrives here leaves there.
    """

    __slots__ = (
        "blocks",
        "connection",
        "dealt",
        "expected_bytes",
        "id",
        "queue",
        "receiving",
        "room",
        "sending",
        "twin",
        "window",
    )

    def __init__(self, connection: Connection, number: int, window: int) -> None:
        self.connection = connection
        self.id = number
        self.window = window
        self.room = STREAM_WINDOW_BYTES
        self.dealt = 0
        self.receiving = True
        self.sending = True
        self.expected_bytes: int | None = None
        self.queue: deque[tuple[memoryview, bool]] = deque()
        self.blocks: bytes | None = None
        self.twin: Stream | None = None


class Connection(asyncio.Protocol):
    """One side of one connection."""

    def __init__(self, *, max_list_bytes: int) -> None:
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._decode = Decoder(max_list_bytes=max_list_bytes)
        self._heads: dict[bytes, Any] = {}
        self._buffer = b""
        self._block: tuple[int, int, bytearray] | None = None
        self._max_list_bytes = max_list_bytes
        self._is_settled = False
        self._streams: dict[int, Stream] = {}
        self._cut: dict[int, None] = {}
        self._last = 0
        self._blocked: dict[int, Stream] = {}
        self._window = frames.DEFAULT_WINDOW_BYTES
        self._room = CONNECTION_WINDOW_BYTES
        self._dealt = 0
        self._peer_window = frames.DEFAULT_WINDOW_BYTES
        self._peer_frame = frames.MAX_FRAME_BYTES
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._corked = False
        self._paused = False
        self._closing = False
        self._has_sent_block = False
        self._has_ended = False

    # What a side says.

    def on_head(self, number: int, block: bytes, *, end: bool) -> None:
        """Take a complete header block: a request, a response, or trailers."""
        raise NotImplementedError

    def on_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Take a piece of a body."""
        raise NotImplementedError

    def on_reset(self, stream: Stream, code: int) -> None:
        """Learn that the peer gave up a stream; it is forgotten already."""
        raise NotImplementedError

    def on_goaway(self, last: int) -> None:
        """Learn that the peer takes no streams after ``last``."""
        raise NotImplementedError

    def on_ping_ack(self, payload: bytes) -> None:
        """Learn that the peer has read all we sent before our PING."""

    def is_idle(self, number: int) -> bool:
        """Return whether a stream of this number has not been opened by anybody."""
        raise NotImplementedError

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport
        self._flush()

    def pause_writing(self) -> None:
        self._paused = True
        # Who does not read answers may not ask for more: acknowledgements are answers too.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._corked = True
        self._pump()
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._corked = True
        try:
            self._feed(data)
        except ConnectionBroken as broken:
            self.close(broken.code, str(broken))
        self._flush()

    # Frames in.

    def _feed(self, data: bytes) -> None:
        buffer = self._buffer + data if self._buffer else data
        unpack = frames.HEADER.unpack_from
        at, size = 0, len(buffer)
        while size - at >= frames.HEADER_BYTES and not self._closing:
            high, low, kind, flags, number = unpack(buffer, at)
            length = high << 16 | low
            if length > frames.MAX_FRAME_BYTES:
                raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, f"a frame has {length} bytes")
            start = at + frames.HEADER_BYTES
            end = start + length
            if end > size:
                break
            at = end
            number &= frames.MAX_WINDOW_BYTES
            try:
                self._on_frame(kind, flags, number, buffer[start:end])
            except StreamBroken as broken:
                self._on_broken(number, broken)
        self._buffer = buffer[at:] if at < size else b""

    def _on_broken(self, number: int, broken: StreamBroken) -> None:
        logger.debug("stream broken", extra={"stream": number, "reason": str(broken)})
        stream = self._streams.get(number)
        if stream is None:
            self._send(frames.rst_stream(number, broken.code))
            return
        self.reset(stream, broken.code)
        self.on_reset(stream, broken.code)

    def _on_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != frames.CONTINUATION or number != self._block[0]):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
        if kind == frames.DATA:
            self._on_data(flags, number, payload)
        elif kind == frames.HEADERS:
            self._on_headers(flags, number, payload)
        elif not self._is_settled and kind != frames.SETTINGS:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        elif kind == frames.WINDOW_UPDATE:
            self._on_window_update(number, payload)
        elif kind == frames.SETTINGS:
            self._on_settings(flags, number, payload)
        elif kind == frames.PING:
            self._on_ping(flags, number, payload)
        elif kind == frames.RST_STREAM:
            self._on_rst_stream(number, payload)
        elif kind == frames.CONTINUATION:
            self._on_continuation(flags, number, payload)
        elif kind == frames.PRIORITY:
            self._on_priority(number, payload)
        elif kind == frames.GOAWAY:
            if number or len(payload) < 8:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "a GOAWAY of a stream, or cut short")
            self.on_goaway(frames.NUMBER.unpack_from(payload)[0] & frames.MAX_WINDOW_BYTES)
        elif kind == frames.PUSH_PROMISE:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "nobody asked for a push")
        # Frames of other kinds are extensions, to be ignored.

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        if not number or self.is_idle(number) or not self._is_settled:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"DATA on stream {number}, which nobody opened")
        size = len(payload)
        self._room -= size
        if self._room < 0:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        stream = self._streams.get(number)
        if stream is None or not stream.receiving:
            self._give_back(size)
            if number in self._cut:
                return
            raise StreamBroken(ErrorCode.STREAM_CLOSED, "DATA after the end")
        stream.room -= size
        if stream.room < 0:
            self._give_back(size)
            raise StreamBroken(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the stream's window")
        data = _unpadded(payload) if flags & frames.PADDED else payload
        is_end = flags & frames.END_STREAM != 0
        if stream.expected_bytes is not None:
            stream.expected_bytes -= len(data)
            if stream.expected_bytes < 0 or (is_end and stream.expected_bytes):
                self._give_back(size)
                raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "the body is not as long as content-length says")
        if is_end:
            stream.receiving = False
        if stream.twin is None:
            self.deal(stream, size)
        elif size > len(data):
            self.deal(stream, size - len(data))
        self.on_data(stream, data, end=is_end)
        if is_end and not stream.sending:
            self._streams.pop(number, None)

    def deal(self, stream: Stream, size: int) -> None:
        """Give back the room of ``size`` received bytes: they are kept, or have left."""
        self._give_back(size)
        stream.dealt += size
        if stream.receiving and stream.dealt >= STREAM_WINDOW_BYTES // 2:
            self._send(frames.window_update(stream.id, stream.dealt))
            stream.room += stream.dealt
            stream.dealt = 0

    def _give_back(self, size: int) -> None:
        self._dealt += size
        if self._dealt >= CONNECTION_WINDOW_BYTES // 2:
            self._send(frames.window_update(0, self._dealt))
            self._room += self._dealt
            self._dealt = 0

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number or not self._is_settled:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "HEADERS of stream 0, or before SETTINGS")
        if flags & frames.PADDED:
            payload = _unpadded(payload)
        if flags & frames.HAS_PRIORITY:
            if len(payload) < 5:
                raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without the priority they announce")
            depends_on = frames.NUMBER.unpack_from(payload)[0] & frames.MAX_WINDOW_BYTES
            payload = payload[5:]
            if depends_on == number:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"stream {number} depends on itself")
        if flags & frames.END_HEADERS:
            self.on_head(number, payload, end=flags & frames.END_STREAM != 0)
        else:
            self._block = (number, flags, bytearray(payload))

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        _, first_flags, block = self._block
        block += payload
        if len(block) > self._max_list_bytes:
            raise ConnectionBroken(
                ErrorCode.ENHANCE_YOUR_CALM, f"a header block has more than {self._max_list_bytes} bytes"
            )
        if not payload and not flags & frames.END_HEADERS:
            raise ConnectionBroken(ErrorCode.ENHANCE_YOUR_CALM, "CONTINUATION that continues nothing")
        if flags & frames.END_HEADERS:
            self._block = None
            self.on_head(number, bytes(block), end=first_flags & frames.END_STREAM != 0)

    def decode(self, block: bytes) -> tuple[Fields, bool]:
        """Return the fields of a block, and whether what they mean may be kept in ``_heads``.

        Raises:
            ConnectionBroken: As ``Decoder`` does.
        """
        fields, is_stable = self._decode(block)
        if not is_stable or len(self._heads) >= _KNOWN_BLOCKS:
            self._heads.clear()
        return fields, is_stable

    def _on_priority(self, number: int, payload: bytes) -> None:
        if not number:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "PRIORITY of stream 0")
        if len(payload) != 5:
            raise StreamBroken(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY has five bytes")
        if frames.NUMBER.unpack_from(payload)[0] & frames.MAX_WINDOW_BYTES == number:
            raise StreamBroken(ErrorCode.PROTOCOL_ERROR, f"stream {number} depends on itself")

    def _on_rst_stream(self, number: int, payload: bytes) -> None:
        if not number or self.is_idle(number):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM of stream {number}, which nobody opened")
        if len(payload) != 4:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes")
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._drop(stream)
            self.on_reset(stream, frames.NUMBER.unpack(payload)[0])

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "SETTINGS of a stream")
        if len(payload) % 6 or (flags & frames.ACK and payload):
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS cut short, or acknowledged with words")
        if flags & frames.ACK:
            return
        self._is_settled = True
        for key, value in frames.SETTING.iter_unpack(payload):
            if key == Setting.ENABLE_PUSH and value > 1:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
            if key == Setting.INITIAL_WINDOW_SIZE:
                self._on_initial_window(value)
            elif key == Setting.MAX_FRAME_SIZE:
                if not frames.MAX_FRAME_BYTES <= value < 2**24:
                    raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}")
                self._peer_frame = value
        self._send(frames.frame(frames.SETTINGS, frames.ACK, 0))
        self._pump()

    def _on_initial_window(self, size: int) -> None:
        if size > frames.MAX_WINDOW_BYTES:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {size}")
        grown, self._peer_window = size - self._peer_window, size
        for stream in self._streams.values():
            stream.window += grown
            if stream.queue:
                self._blocked[stream.id] = stream
            if stream.window > frames.MAX_WINDOW_BYTES:
                raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE makes a window too large")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "PING of a stream")
        if len(payload) != 8:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes")
        if flags & frames.ACK:
            self.on_ping_ack(payload)
        else:
            self._send(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _on_window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes")
        increment = frames.NUMBER.unpack(payload)[0] & frames.MAX_WINDOW_BYTES
        if not number:
            self._window += increment
            if not increment:
                raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
            if self._window > frames.MAX_WINDOW_BYTES:
                raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is too large")
            self._pump()
            return
        if self.is_idle(number):
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE of stream {number}, which nobody opened")
        stream = self._streams.get(number)
        if stream is None:
            return
        if not increment:
            raise StreamBroken(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing")
        stream.window += increment
        if stream.window > frames.MAX_WINDOW_BYTES:
            raise StreamBroken(ErrorCode.FLOW_CONTROL_ERROR, "the stream's window is too large")
        if stream.queue:
            self._blocked[number] = stream
            self._pump()

    # Frames out.

    def send_block(self, stream: Stream, block: bytes, *, end: bool) -> None:
        """Send a header block; one that ends the stream goes after the data that wait."""
        if not stream.sending:
            return
        if stream.queue:
            stream.blocks = block
            return
        self._send_block(stream, block, end=end)

    def _send_block(self, stream: Stream, block: bytes, *, end: bool) -> None:
        if not self._has_sent_block:
            self._has_sent_block = True
            block = NO_TABLE + block
        self._send(frames.headers(stream.id, block, end=end, max_frame_bytes=self._peer_frame))
        if end:
            self._end(stream)

    def send_data(self, stream: Stream, data: bytes, *, end: bool) -> None:
        """Send a piece of a body, now or when the peer has room."""
        if stream.sending:
            stream.queue.append((memoryview(data), end))
            self._blocked[stream.id] = stream
            self._pump()
        elif stream.twin is not None:
            stream.twin.connection.deal(stream.twin, len(data))

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Give up a stream."""
        if self._streams.pop(stream.id, None) is not None:
            if stream.receiving:
                self._remember_cut(stream.id)
            self._drop(stream)
            self._send(frames.rst_stream(stream.id, code))

    def _end(self, stream: Stream) -> None:
        stream.sending = False
        if not stream.receiving:
            self._streams.pop(stream.id, None)

    def _remember_cut(self, number: int) -> None:
        # What the peer had sent before it knew is no mistake of its own.
        self._cut[number] = None
        if len(self._cut) > _CUT_STREAMS:
            del self._cut[next(iter(self._cut))]

    def _drop(self, stream: Stream) -> None:
        stream.receiving = stream.sending = False
        self._blocked.pop(stream.id, None)
        unsent = sum(len(data) for data, _ in stream.queue)
        stream.queue.clear()
        if unsent and stream.twin is not None:
            stream.twin.connection.deal(stream.twin, unsent)

    def _pump(self) -> None:
        # A frame of each stream by turns: a long body does not keep a short one waiting.
        has_sent = True
        while has_sent and not self._paused:
            has_sent = False
            for stream in list(self._blocked.values()):
                has_sent |= self._send_some(stream)
                if self._out_bytes > _CORK_BYTES:
                    self._flush()
                if self._paused or self._window <= 0:
                    break

    def _send_some(self, stream: Stream) -> bool:
        data, end = stream.queue[0]
        size = max(0, min(len(data), self._peer_frame, self._window, stream.window))
        if not size and len(data):
            if stream.window <= 0:
                # Its own window is shut: who opens others does not make us look at it again.
                del self._blocked[stream.id]
            return False
        piece, rest = data[:size], data[size:]
        self._window -= size
        stream.window -= size
        is_last = end and not rest
        flags = frames.END_STREAM if is_last else 0
        header = frames.HEADER.pack(size >> 16, size & 0xFFFF, frames.DATA, flags, stream.id)
        if rest:
            stream.queue[0] = (rest, end)
        else:
            stream.queue.popleft()
        if not stream.queue:
            self._blocked.pop(stream.id, None)
        self._send(header)
        self._send(piece)  # type: ignore[arg-type]  # a view is as good
        if size and stream.twin is not None:
            stream.twin.connection.deal(stream.twin, size)
        if is_last:
            self._end(stream)
        elif not stream.queue and stream.blocks is not None:
            self._send_block(stream, stream.blocks, end=True)
        return True

    def _send(self, data: bytes) -> None:
        self._out.append(data)
        self._out_bytes += len(data)
        if not self._corked:
            # Answers that come in one turn of the loop leave in one write.
            self._corked = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._corked = False
        transport = self._transport
        if transport is None:
            # Not connected yet: the next send must not wait for a flush that has been.
            self._corked = True
            return
        if self._out and not self._has_ended:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            # Cut by the peer, a transport of uvloop's raises; we hear of it one turn of the loop later.
            if not transport.is_closing():
                transport.write(data)
        if self._closing and not self._has_ended:
            self._has_ended = True
            self._hang_up(transport)

    def _hang_up(self, transport: asyncio.Transport) -> None:
        # Closed with words unread, a socket takes back what it has said: the peer would never see the GOAWAY.
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
            self._loop.call_later(_LINGER_SECONDS, transport.abort)
        else:
            transport.close()

    def close(self, code: ErrorCode = ErrorCode.NO_ERROR, why: str = "") -> None:
        """Say goodbye and close once all that was written is out."""
        if not self._closing:
            self._closing = True
            self._send(frames.goaway(self._last, code, why.encode()))

    def abort(self) -> None:
        """Cut the connection."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()


def _unpadded(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
