"""Seeing calls go by, as ``servery_http.gateway.routes.Watcher`` sees exchanges of HTTP/1.1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from servery_http.http2.headers import Fields


class CallWatcher(Protocol):
    """Sees one relayed call go by; its bodies are gRPC's, each message behind its length."""

    @property
    def fields_to_server(self) -> Fields:
        """Headers that the call goes on with."""

    @property
    def fields_to_client(self) -> Fields:
        """Likewise of the answer; read after ``on_call_head``."""

    def on_request_piece(self, piece: bytes) -> None:
        """See a piece of what is asked."""

    def on_call_head(self, fields: Fields) -> None:
        """See the answer begin."""

    def on_answer_piece(self, piece: bytes) -> None:
        """See a piece of it."""

    def on_end(self, *, is_complete: bool) -> None:
        """Learn that the call is over, once; not complete where either side gave it up."""


WatchCall: TypeAlias = Callable[[Fields], CallWatcher | None]
"""A call's headers to its watcher, None for one that is not to be seen."""


def watch_none(_fields: Fields) -> None:
    """Let every call pass unseen."""
