"""The batcher as the agent's front sees it: routes of REST, calls of gRPC, and what it counts."""

from __future__ import annotations

from collections.abc import Sequence

from servery_http.address import Address
from servery_http.gateway.gate import Gate
from servery_http.gateway.routes import Route
from servery_http.messages import Later, Request
from servery_http.rpc.calls import Headed
from servery_http.rpc.client import RpcChannel

from servery_agent.batcher.counts import Counts
from servery_agent.batcher.gated import GatedChannel
from servery_agent.batcher.lanes import Lanes
from servery_agent.batcher.policy import BatchLimits
from servery_agent.batcher.rest import INFER, V1, V2, Ask, RestRoutes
from servery_agent.batcher.rpc import Rpc, RpcCalls

_PROBE = b"/inference.GRPCInferenceService/ServerLive"


class Batcher:
    """Of one agent. Made inside a running loop, before the gateway that it asks behind, which ``ask`` is set to.

    Args:
        rpc_upstream: Where the predictor may speak gRPC.
        gate: The gateway's, which calls over gRPC go through as its requests do.
        queue_seconds: That such a call waits there.

    Attributes:
        channel: By which it is asked there.
        handlers: Of the calls that a batch may take.
        counts: What was done.
    """

    def __init__(self, limits: BatchLimits, *, rpc_upstream: Address, gate: Gate, queue_seconds: float) -> None:
        self.counts = Counts()
        self._ask: Ask | None = None
        self.channel = GatedChannel(RpcChannel(rpc_upstream, probe=_PROBE), gate, queue_seconds)
        v1 = Lanes(V1(self._behind), limits, self.counts)
        v2 = Lanes(V2(self._behind, self.channel), limits, self.counts)
        self._routes = RestRoutes(v1, v2)
        self.handlers = {INFER: Headed(RpcCalls(Lanes(Rpc(self.channel), limits, self.counts)).handler_of)}

    def asks(self, ask: Ask) -> None:
        """Have requests sent by ``ask``."""
        self._ask = ask

    def _behind(self, request: Request, body: Sequence[bytes | memoryview] = ()) -> Later:
        assert self._ask is not None
        return self._ask(request, body)

    def route(self, method: str, path: str) -> Route | None:
        """Return the route of a request for inference; None for all others, which pass by."""
        return self._routes(method, path)

    def close(self) -> None:
        """Let go of the predictor."""
        self.channel.close()
