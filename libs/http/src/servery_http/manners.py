"""Headers that change how a request is read or answered whatever its route is; who sends none of them pays nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from servery_http.messages import Handler, Later, Pending, Response

Answering: TypeAlias = Response | Pending | Awaitable[Response]
"""What a handler returns."""


@dataclass(frozen=True, slots=True)
class Manner:
    """What some headers ask for.

    Attributes:
        headers: Names in lower case. The parser looks for them, and a request with one is answered by what ``wrap``
            makes of its handler.
    """

    headers: frozenset[bytes]
    wrap: Callable[[Handler], Handler]


def wrapped(handler: Handler, manners: Sequence[Manner], asked: Iterable[bytes]) -> Handler:
    """Return ``handler`` in those manners that one of the headers ``asked`` for, the first outermost."""
    for manner in reversed(manners):
        if not manner.headers.isdisjoint(asked):
            handler = manner.wrap(handler)
    return handler


def changed(answering: Answering, change: Callable[[Response], Response | Awaitable[Response]]) -> Answering:
    """Return what answers with ``change`` of the answer: at once where the answer is here, without a task if it can."""
    if isinstance(answering, Response):
        return change(answering)
    if isinstance(answering, Pending):
        return _Changed(answering, change)
    return _awaited(answering, change)


async def _awaited(
    answering: Awaitable[Response], change: Callable[[Response], Response | Awaitable[Response]]
) -> Response:
    response = change(await answering)
    return response if isinstance(response, Response) else await response


class _Changed(Later):
    """An answer to come, changed when it is here."""

    __slots__ = ("_change", "_changing", "_inner")

    def __init__(self, inner: Pending, change: Callable[[Response], Response | Awaitable[Response]]) -> None:
        super().__init__(self._give_up)
        self._inner, self._change = inner, change
        self._changing: asyncio.Future[Response] | None = None
        inner.then(self._on_response)

    def _give_up(self) -> None:
        self._inner.cancel()
        if self._changing is not None:
            self._changing.cancel()

    def _on_response(self, response: Response | None) -> None:
        if response is None:
            self.cancel()
            return
        answer = self._change(response)
        if isinstance(answer, Response):
            self.answer(answer)
        else:
            self._changing = asyncio.ensure_future(answer)
            self._changing.add_done_callback(self._on_changed)

    def _on_changed(self, changing: asyncio.Future[Response]) -> None:
        if changing.cancelled():
            self.cancel()
        else:
            self.answer(changing.result())
