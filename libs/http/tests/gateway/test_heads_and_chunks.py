"""Heads and chunks by themselves: what holds for all of them."""

from __future__ import annotations

import contextlib
import itertools

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servery_http.gateway.chunks import LAST, BadChunks, Chunks, chunk
from servery_http.gateway.heads import AnswerHead, BadHead, Known, RequestHead

PIECES = st.lists(st.binary(min_size=1, max_size=200), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(PIECES, st.lists(st.integers(0, 5000), max_size=20), st.binary(max_size=50), st.booleans())
def test_chunks_are_read_alike_wherever_they_are_cut(
    pieces: list[bytes], places: list[int], behind: bytes, has_trailers: bool
) -> None:
    end = b"0\r\nt: 1\r\n\r\n" if has_trailers else LAST
    chunks = Chunks()
    found, rest = b"", b""
    for part in cut(b"".join(map(chunk, pieces)) + end + behind, places):
        if chunks.is_complete:
            rest += part
        else:
            found += b"".join(chunks.feed(part))
            rest = chunks.rest
    assert (found, rest, chunks.is_complete) == (b"".join(pieces), behind, True)


class _Other:
    """What httptools, a parser that many servers have, makes of chunks."""

    def __init__(self) -> None:
        self.body = b""
        self.messages = 0

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.messages += 1


@given(
    st.lists(
        st.sampled_from([b"3", b"0", b"\r\n", b"\n", b"\r", b"abc", b";a=b", b" ", b"GET / HTTP/1.1", b"x: y", b"f"]),
        max_size=14,
    )
)
def test_nobody_behind_us_reads_what_we_pass_on_otherwise(tokens: list[bytes]) -> None:
    chunks = Chunks()
    passed = b""
    with contextlib.suppress(BadChunks):
        body = b"".join(chunks.feed(b"".join(tokens)))
        passed = (chunk(body) if body else b"") + (LAST if chunks.is_complete else b"")
    other = _Other()
    parser = httptools.HttpRequestParser(other)
    parser.feed_data(b"POST / HTTP/1.1\r\nhost: m\r\ntransfer-encoding: chunked\r\n\r\n" + passed)
    assert other.messages == int(chunks.is_complete)


@given(
    st.lists(
        st.sampled_from(
            [
                b"content-length: 3",
                b"Content-Length: 4",
                b"transfer-encoding: chunked",
                b"Transfer-Encoding: x",
                b"connection: close",
                b"connection: content-length, transfer-encoding, x-a",
                b"x-a: 1",
                b"te: trailers",
                b"content-length : 3",
                b" folded",
                b"upgrade: h2c",
            ]
        ),
        max_size=5,
    )
)
def test_head_that_passes_is_read_by_others_as_we_read_it(lines: list[bytes]) -> None:
    try:
        head = RequestHead(b"\r\n".join([b"POST / HTTP/1.1", b"host: m", *lines]) + b"\r\n\r\n")
    except BadHead:
        return
    passed = head.passed.lower()
    framing = (passed.count(b"\r\ncontent-length:"), passed.count(b"\r\ntransfer-encoding:"))
    assert framing == ((0, 1) if head.length == -1 else (int(b"\r\ncontent-length: %d\r\n" % head.length in passed), 0))
    assert not any(b"\r\n" + name in passed for name in (b"connection: close", b"upgrade:"))
    of_te = (passed.count(b"\r\nte: trailers\r\n"), passed.count(b"\r\nconnection:"))
    assert of_te == ((1, 1) if head.takes_trailers else (0, 0))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_a_bad_one(raw: bytes) -> None:
    for read in (RequestHead, AnswerHead):
        with contextlib.suppress(BadHead):
            read(raw + b"\r\n\r\n")


def test_head_of_64_kib_of_one_kind_is_refused_or_read_at_once() -> None:
    # A pattern that tries again and again would take minutes.
    for filling in (b"a", b" ", b"a: b\r\n", b":", b"\t \t"):
        raw = b"POST / HTTP/1.1\r\nhost: m\r\nx: " + filling * (64 * 1024 // len(filling)) + b"\0\r\n\r\n"
        with pytest.raises(BadHead):
            RequestHead(raw)


def test_known_heads_are_bounded() -> None:
    known = Known(RequestHead)
    heads = [known(b"GET /%d HTTP/1.1\r\nhost: m\r\n\r\n" % number) for number in range(2000)]
    assert len({head.path for head in heads}) == 2000
    assert len(known) <= 512
    assert known(b"GET /1999 HTTP/1.1\r\nhost: m\r\n\r\n") is heads[-1]
