"""What may be done with a request on its way: watched as it streams by, or read whole and answered by a function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from servery_http.gateway.heads import AnswerHead, RequestHead
from servery_http.messages import Later, Request, Response


class Watcher(Protocol):
    """Sees one exchange go by. It is called on the loop, between a read and a write, and must not keep them waiting.

    Attributes:
        to_server: Header lines, each with its end, that the request goes on with.
        to_client: Likewise of the answer; read after ``on_answer_head``.
    """

    to_server: bytes
    to_client: bytes

    def on_request_piece(self, piece: bytes | memoryview) -> None:
        """See a piece of the request's body; what was read stays as it is, and may be kept."""

    def on_answer_head(self, status: int, answer: AnswerHead | None) -> None:
        """See the answer begin; its head is None where the answer is our own."""

    def on_answer_piece(self, piece: bytes | memoryview) -> None:
        """See a piece of the answer's body."""

    def on_end(self, *, is_complete: bool) -> None:
        """Learn that the exchange is over, once; not complete where either side went away."""


Watch: TypeAlias = Callable[[RequestHead, bytes], Watcher | None]
"""Head and request id to the watcher of an exchange, None for one that is not to be seen."""

Answer: TypeAlias = Callable[[Request], Response | Later | Awaitable[Response]]
"""A whole request to its answer, which has no stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A request that does not only pass by.

    Attributes:
        answer: The body is read whole, within the limit, and this answers; it may ask the server behind
            (``Gateway.ask``). Without, the request streams by.
        watch: Of either kind.
    """

    answer: Answer | None = None
    watch: Watch | None = None


Routes: TypeAlias = Callable[[str, str], Route | None]
"""Method and path to what is done with the request; None lets it pass. Asked once for each head: it must be pure."""


def pass_all(_method: str, _path: str) -> None:
    """Let every request pass."""
