"""Bodies that come compressed, and answers that go compressed to who asks for it.

Both are worked on in a thread: zlib lets go of the interpreter, and other requests do not wait.

Source: RFC 9110, sections 8.4 and 12.5.3; tritonclient, ``request_compression_algorithm``.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable
from dataclasses import replace

from servery_sdk.errors import ErrorCode, ServeryError

from servery_http.front import error
from servery_http.manners import Answering, Manner, changed
from servery_http.messages import Handler, Request, Response, header

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
"""What zlib calls each form."""
_FORMS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": _ZLIB}
_ZLIB_METHOD = 8
_LEVEL = 1
"""Of compression: higher ones take several times as long for a tenth less."""


class WrongCoding(ServeryError):
    """A body cannot be decompressed, or is too long when it is; ``status`` is the answer's."""

    code = ErrorCode.INVALID_ARGUMENT

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def compression(*, max_body_bytes: int, min_answer_bytes: int) -> Manner:
    """Return the manner of ``Content-Encoding`` and ``Accept-Encoding``: gzip and deflate.

    Args:
        max_body_bytes: Of a request's body once it is decompressed; 413 beyond.
        min_answer_bytes: Shorter answers go as they are. Streams always do.
    """

    def wrap(handler: Handler) -> Handler:
        def answer(request: Request) -> Answering:
            coding = (header(request.headers, b"content-encoding") or b"identity").lower()
            if coding != b"identity" and request.body:
                answering: Answering = _inflated(handler, request, coding, max_body_bytes)
            else:
                answering = handler(request)
            # Most answers are short, and then nobody looks at what would be accepted.
            return changed(
                answering,
                lambda response: (
                    response if len(response.body) < min_answer_bytes else _smaller(response, request.headers)
                ),
            )

        return answer

    return Manner(frozenset({b"content-encoding", b"accept-encoding"}), wrap)


async def _inflated(handler: Handler, request: Request, coding: bytes, most: int) -> Response:
    try:
        body = await asyncio.to_thread(inflated, request.body, coding, max_bytes=most)
    except WrongCoding as wrong:
        refusal = error(wrong.status, str(wrong))
        if wrong.status == 415:
            refusal.headers = ((b"accept-encoding", b"gzip, deflate"),)
        return refusal
    headers = [pair for pair in request.headers if pair[0] != b"content-encoding"]
    answering = handler(replace(request, body=body, headers=headers))
    return answering if isinstance(answering, Response) else await answering


def inflated(body: bytes, coding: bytes, *, max_bytes: int) -> bytes:
    """Return what ``body`` holds.

    Args:
        coding: ``gzip`` or ``deflate``. Of several, one over the other, none is read: a small body could cost hours.
        max_bytes: Of what it holds; no more than this is ever decompressed.

    Raises:
        WrongCoding: It holds more, is cut short, or is of another coding.
    """
    form, name = _FORMS.get(coding), coding.decode("latin-1")
    if form is None:
        raise WrongCoding(f"content-encoding: {name!r} is none of: deflate, gzip", 415)
    # Some send deflate bare, although it has zlib's head: RFC 9110, section 8.4.1.2.
    if form == _ZLIB and body[0] & 0x0F != _ZLIB_METHOD:
        form = _RAW
    decoder = zlib.decompressobj(form)
    try:
        # One byte more than allowed tells what is too long from what just fits.
        found = decoder.decompress(body, max_bytes + 1)
    except zlib.error as wrong:
        raise WrongCoding(f"content-encoding: the body is not {name}: {wrong}", 400) from wrong
    if len(found) > max_bytes:
        raise WrongCoding(f"the body, decompressed, is longer than {max_bytes} bytes", 413)
    if not decoder.eof or decoder.unused_data:
        what = "more follows" if decoder.eof else "it is cut short"
        raise WrongCoding(f"content-encoding: the body is not {name}: {what}", 400)
    return found


def accepted(accept_encoding: bytes) -> bytes | None:
    """Return the coding of ours that a client likes best; None where it wants the answer as it is."""
    weights: dict[bytes, float] = {}
    for part in accept_encoding.lower().split(b","):
        name, _, parameters = part.partition(b";")
        weights[name.strip()] = _weight(parameters)
    liked = {coding: weights.get(coding, weights.get(b"*", 0.0)) for coding in (b"gzip", b"deflate")}
    best = max(liked, key=liked.__getitem__)
    return best if liked[best] > 0 else None


def _weight(parameters: bytes) -> float:
    _, found, value = parameters.partition(b"q=")
    try:
        return float(value) if found else 1.0
    except ValueError:
        return 0.0


def _smaller(response: Response, asked: list[tuple[bytes, bytes]]) -> Response | Awaitable[Response]:
    coding = accepted(header(asked, b"accept-encoding") or b"")
    if coding is None or response.stream is not None or header(response.headers, b"content-encoding") is not None:
        return response
    return _deflated(response, coding)


async def _deflated(response: Response, coding: bytes) -> Response:
    body = await asyncio.to_thread(zlib.compress, response.body, _LEVEL, _FORMS[coding])
    headers = (*response.headers, (b"content-encoding", coding), (b"vary", b"accept-encoding"))
    return replace(response, body=body, headers=headers)
