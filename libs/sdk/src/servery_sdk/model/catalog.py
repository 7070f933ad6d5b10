"""A frozen snapshot of everything around a service that a decision may depend on."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from servery_sdk.manifests import Manifest, ObjectRef
from servery_sdk.model.runtime import Runtime


class Capability(enum.StrEnum):
    """Something that a cluster may or may not offer."""

    GATEWAY_API = "gateway-api"
    INGRESS = "ingress"
    KEDA = "keda"
    KNATIVE = "knative"
    KUBERAY = "kuberay"
    LEADER_WORKER_SET = "leader-worker-set"
    IMAGE_VOLUMES = "image-volumes"

    @property
    def product(self) -> str:
        """What brings it: the thing to install."""
        return _PRODUCTS[self]


_PRODUCTS = {
    Capability.GATEWAY_API: "Gateway API (the CRDs of gateway.networking.k8s.io, and a Gateway)",
    Capability.INGRESS: "an Ingress controller",
    Capability.KEDA: "KEDA",
    Capability.KNATIVE: "Knative Serving",
    Capability.KUBERAY: "the KubeRay operator",
    Capability.LEADER_WORKER_SET: "LeaderWorkerSet",
    Capability.IMAGE_VOLUMES: "image volumes (a feature gate of Kubernetes)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What gathering found.

    Attributes:
        runtimes: Namespace, cluster and built-in ones, each dialect's own already parsed.
        broken_runtimes: Name of a runtime object that could not be parsed, and why.
        objects: What ``Dialect.references`` asked for and was found, other than runtimes.
        capabilities: What the cluster offers.
    """

    runtimes: tuple[Runtime, ...] = ()
    broken_runtimes: Mapping[str, str] = field(default_factory=dict)
    objects: Mapping[ObjectRef, Manifest] = field(default_factory=dict)
    capabilities: frozenset[Capability] = frozenset()
