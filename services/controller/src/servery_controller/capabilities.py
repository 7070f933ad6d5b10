"""What a cluster offers, found by asking which kinds it serves."""

from __future__ import annotations

from collections.abc import Mapping

from servery_kube.port import KubeApi
from servery_sdk import kinds
from servery_sdk.manifests import Kind
from servery_sdk.model import Capability

KINDS: Mapping[Capability, Kind] = {
    Capability.GATEWAY_API: kinds.HTTP_ROUTE,
    Capability.INGRESS: kinds.INGRESS,
    Capability.KEDA: kinds.SCALED_OBJECT,
}
"""The kind that a capability brings: it is there where the kind is served, and then a mode may render it."""


async def discover(api: KubeApi) -> frozenset[Capability]:
    """Return the capabilities whose kinds the server serves."""
    return frozenset([capability for capability, kind in KINDS.items() if await api.has(kind)])
