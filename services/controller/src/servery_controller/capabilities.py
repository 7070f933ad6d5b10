"""What a cluster offers, by the kinds that it serves."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from servery_sdk import kinds
from servery_sdk.manifests import Kind
from servery_sdk.model import Capability

_KINDS: Mapping[Capability, Kind] = {
    Capability.GATEWAY_API: kinds.HTTP_ROUTE,
    Capability.INGRESS: kinds.INGRESS,
    Capability.KEDA: kinds.SCALED_OBJECT,
    Capability.KNATIVE: kinds.KNATIVE_SERVICE,
    Capability.KUBERAY: kinds.RAY_SERVICE,
    Capability.LEADER_WORKER_SET: kinds.LEADER_WORKER_SET,
}


def offered(served: Collection[Kind]) -> frozenset[Capability]:
    """Return the capabilities that the kinds of a cluster bring."""
    return frozenset(capability for capability, kind in _KINDS.items() if kind in served)
