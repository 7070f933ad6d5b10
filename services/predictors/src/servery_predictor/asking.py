"""From a decoded request to a REST answer: what the hot routes of every protocol have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable

from servery_http import front
from servery_http.messages import Later, Response
from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse

from servery_predictor import errors
from servery_predictor.batching.tickets import Outcome
from servery_predictor.dataplane import DataPlane

logger = logging.getLogger(__name__)


class Asking(Later):
    """An inference, answered where its outcome is known: on the same turn of the loop as its whole batch."""

    __slots__ = ("_asked", "_encode")

    def __init__(
        self,
        plane: DataPlane,
        asked: InferRequest,
        protocol: str,
        encode: Callable[[InferResponse, InferRequest], Response],
        *,
        explain: bool = False,
    ) -> None:
        super().__init__()
        self._asked = asked
        self._encode = encode
        self._abandoned = plane.submit(asked, self._on_outcome, protocol=protocol, explain=explain).cancel

    def _on_outcome(self, outcome: Outcome) -> None:
        if isinstance(outcome, ServeryError):
            self.answer(errors.response(outcome))
            return
        try:
            self.answer(self._encode(outcome, self._asked))
        except ServeryError as failure:
            self.answer(errors.response(failure))
        except Exception:
            # The rim of one request: its batch's other requests are answered after it.
            logger.exception("answer cannot be encoded", extra={"model": self._asked.model})
            self.answer(front.error(500, "internal error; the server's log has the traceback"))
