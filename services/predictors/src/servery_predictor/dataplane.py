"""One path under every protocol."""

from __future__ import annotations

import asyncio
import time

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import ModelState
from servery_sdk.protocol import InferRequest, InferResponse, RequestError

from servery_predictor.errors import TooLate
from servery_predictor.metrics import Metrics
from servery_predictor.repository import Repository


class DataPlane:
    """Answers inference requests, whatever they came as."""

    def __init__(self, repository: Repository, metrics: Metrics, *, timeout_seconds: float = 300.0) -> None:
        self.repository = repository
        self.metrics = metrics
        self.timeout_seconds = timeout_seconds
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether every model answers and the server is not going away."""
        entries = self.repository.entries()
        return not self.draining and bool(entries) and all(entry.state is ModelState.LOADED for entry in entries)

    async def infer(self, request: InferRequest, *, protocol: str) -> InferResponse:
        """Return the model's answer with the outputs that were asked for.

        Raises:
            ServeryError: With the code that each wire has a number for.
        """
        started = time.perf_counter()
        code = "OK"
        try:
            return _asked(await self._answer(request), request)
        except ServeryError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        finally:
            # An unknown name is the client's invention and would be a label without bounds.
            model = "" if code == ErrorCode.NOT_FOUND else request.model
            self.metrics.requests.labels(model, protocol, code).inc()
            self.metrics.request_seconds.labels(model, protocol).observe(time.perf_counter() - started)

    async def _answer(self, request: InferRequest) -> InferResponse:
        try:
            async with asyncio.timeout(self.timeout_seconds):
                return await self.repository.batcher(request.model, request.version).submit(request)
        except TimeoutError as error:
            raise TooLate(f"model {request.model!r} did not answer in {self.timeout_seconds:g} s") from error


def _asked(response: InferResponse, request: InferRequest) -> InferResponse:
    if not request.outputs:
        return response
    by_name = {output.name: output for output in response.outputs}
    missing = [name for name in request.outputs if name not in by_name]
    if missing:
        raise RequestError(f"model {request.model!r} has no output {', '.join(missing)}; it has: {', '.join(by_name)}")
    return InferResponse(
        model=response.model,
        version=response.version,
        id=response.id,
        outputs=tuple(by_name[name] for name in request.outputs),
        parameters=response.parameters,
    )
