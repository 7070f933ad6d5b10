"""From a decoded request to a REST answer: what the hot routes of every protocol have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable

from servery_http import front
from servery_http.messages import Pending, Response, Waiter
from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse

from servery_predictor import errors
from servery_predictor.batching.tickets import Outcome
from servery_predictor.dataplane import Call, DataPlane

logger = logging.getLogger(__name__)


class Asking(Call, Pending):
    """An inference, answered where its outcome is known: on the same turn of the loop as its whole batch.

    It is the request's place in the model's queue as well: from body to answer a request is one object.
    """

    __slots__ = ("_encode", "_response", "_waiter")

    def __init__(
        self,
        plane: DataPlane,
        asked: InferRequest,
        protocol: str,
        encode: Callable[[InferResponse, InferRequest], Response],
        *,
        explain: bool = False,
    ) -> None:
        Call.__init__(self, plane, asked, protocol)
        self._encode = encode
        self._response: Response | None = None
        self._waiter: Waiter | None = None
        plane.submit(self, explain=explain)

    def tell(self, outcome: Outcome) -> None:
        """Answer with what ``encode`` makes of the outcome."""
        try:
            response = (
                errors.response(outcome) if isinstance(outcome, ServeryError) else self._encode(outcome, self.request)
            )
        except ServeryError as failure:
            response = errors.response(failure)
        except Exception:
            # The rim of one request: its batch's other requests are answered after it.
            logger.exception("answer cannot be encoded", extra={"model": self.request.model})
            response = front.error(500, "internal error; the server's log has the traceback")
        self._response = response
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter(response)

    def then(self, waiter: Waiter) -> None:
        """Call ``waiter`` with the answer, which may be now, or with None when it was cancelled."""
        if self.is_over:
            waiter(self._response)
        else:
            self._waiter = waiter

    def cancel(self, msg: object = None) -> bool:
        """Give up: nobody waits any more. Returns whether anybody did."""
        is_given_up = super().cancel(msg)
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter(None)
        return is_given_up
