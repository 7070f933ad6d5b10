"""Requests for explanations that another component answers.

Source: KServe pkg/controller/v1beta1/inferenceservice/reconcilers/ingress, whose routes send ``:explain`` to the explainer;
where no route does, what gets all requests passes them on.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from servery_http.client import Client
from servery_http.messages import Request, Response
from servery_http.proxy import forward
from servery_sdk.errors import ServeryError, Transient

from servery_predictor import errors
from servery_predictor.errors import TooLate


class NoExplainer(Transient):
    """The explainer cannot be reached."""


class RemoteExplanations:
    """Passes requests on to an explainer, and its answers back.

    Args:
        host: Its ``host`` or ``host:port``.
        timeout_seconds: That it may take to begin its answer.
    """

    def __init__(self, host: str, *, timeout_seconds: float) -> None:
        self._host = host
        self._timeout_seconds = timeout_seconds
        self._clients = contextlib.AsyncExitStack()
        self._client: Client | None = None

    async def __call__(self, request: Request) -> Response:
        """Return the explainer's answer, or why there is none."""
        if self._client is None:
            self._client = await self._clients.enter_async_context(Client())
        # Gateways go by the host: theirs, not the one that led here.
        headers = [pair for pair in request.headers if pair[0] != b"host"]
        asked = replace(request, headers=[(b"host", self._host.encode()), *headers])
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await forward(asked, f"http://{self._host}", self._client)
        except TimeoutError:
            return errors.response(TooLate(f"explainer {self._host} did not answer in {self._timeout_seconds:g} s"))
        except ServeryError as failure:
            return errors.response(NoExplainer(f"explainer {self._host}: {failure}"))

    async def close(self) -> None:
        """Close its connections."""
        await self._clients.aclose()
