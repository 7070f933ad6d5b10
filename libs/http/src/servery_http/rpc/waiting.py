"""A call at the gate: what comes of it before it is let in stays here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from servery_http.http2.connection import Connection, Stream
from servery_http.http2.headers import Fields


class Waiting(Stream):
    """The twin of its caller's stream until there is room. It is of no connection: nothing is sent by it.

    What it holds is the caller's own window of one stream at most, which opens again only once it is passed on.

    Attributes:
        block: The head, as it goes on.
        pieces: Of the body; the last one that is there may have the end.
        held_bytes: Of those.
        trailers: As they go on.
    """

    __slots__ = ("block", "fields", "held_bytes", "is_over", "let_in", "pieces", "since", "timer", "trailers")

    def __init__(
        self,
        connection: Connection,
        caller: Stream,
        block: bytes,
        fields: Fields,
        let_in: Callable[[Waiting], None],
        *,
        since: float,
        is_over: bool,
    ) -> None:
        super().__init__(connection, 0, 0)
        self.twin = caller
        self.block, self.fields = block, fields
        self.pieces: list[bytes] = []
        self.held_bytes = 0
        self.trailers: bytes | None = None
        self.since = since
        self.is_over = is_over
        self.let_in: Callable[[], None] = partial(let_in, self)
        self.timer: asyncio.TimerHandle | None = None

    def hold(self, data: bytes, *, end: bool) -> None:
        """Keep a piece."""
        self.pieces.append(data)
        self.held_bytes += len(data)
        self.is_over = end
