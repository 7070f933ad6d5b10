"""Messages that came compressed.

Source: "Compression" of grpc/grpc; ``grpcio``'s server, whose statuses these are.
"""

from __future__ import annotations

import zlib

from servery_http.rpc.calls import Failure, Status

WINDOW_BITS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
"""What zlib calls each ``grpc-encoding`` that we read; deflate has zlib's own head and sum."""


def inflated(data: bytes, window_bits: int, *, max_bytes: int) -> bytes:
    """Return the message that ``data`` holds; nothing in place of nothing.

    Raises:
        Failure: RESOURCE_EXHAUSTED where it has more than ``max_bytes``, INTERNAL where it is none, is cut short, or
            more follows.
    """
    if not data:
        return data
    decoder = zlib.decompressobj(window_bits)
    try:
        # One byte more than allowed tells a message that is too long from one that just fits.
        message = decoder.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise Failure(Status.INTERNAL, f"the message cannot be decompressed: {error}") from error
    if len(message) > max_bytes:
        raise Failure(
            Status.RESOURCE_EXHAUSTED, f"the message, decompressed, has more bytes than the limit, {max_bytes}"
        )
    if not decoder.eof or decoder.unused_data:
        raise Failure(Status.INTERNAL, "the message cannot be decompressed: it is cut short, or more follows")
    return message
