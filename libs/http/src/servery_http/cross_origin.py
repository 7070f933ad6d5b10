"""Answers that pages of other origins may read. Preflights are not hot: an application answers them.

Source: the Fetch standard, "CORS protocol".
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from servery_http.manners import Answering, Manner, changed
from servery_http.messages import Handler, Request, header


def cross_origin(origins: Collection[str]) -> Manner:
    """Return the manner of ``Origin``: an answer says that a page of one of ``origins``, or of any for ``*``, may read it."""
    allowed = frozenset(origin.encode() for origin in origins)
    anyone = b"*" in allowed

    def wrap(handler: Handler) -> Handler:
        def answer(request: Request) -> Answering:
            origin = header(request.headers, b"origin")
            if anyone:
                told: tuple[tuple[bytes, bytes], ...] = ((b"access-control-allow-origin", b"*"),)
            elif origin in allowed:
                told = ((b"access-control-allow-origin", origin), (b"vary", b"origin"))
            else:
                told = ((b"vary", b"origin"),)
            return changed(handler(request), lambda response: replace(response, headers=(*response.headers, *told)))

        return answer

    return Manner(frozenset({b"origin"}), wrap)
