"""What an installation decides for all its services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from servery_sdk.manifests import Manifest
from servery_sdk.model import RouteParent
from servery_sdk.runtimes import VERSION

_GATEWAY = RouteParent(gateway_namespace="kserve", gateway_name="kserve-ingress-gateway")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningSettings:
    """Frozen input of ``plan``.

    Attributes:
        default_mode: Of services that ask for none.
        fallback_mode: Of services whose own mode needs what the cluster lacks; None lets them wait for it.
        ingress_domain: Under which services have hosts, ``<name>-<namespace>.<domain>``.
        extra_ingress_domains: More of them, for the service's own host.
        url_scheme: Of ``status.url``.
        cluster_domain: DNS domain of the cluster.
        route_parent: What routes hang on.
        default_timeout_seconds: Of one request where the manifest says nothing.
        storage_image: Of the storage initializer.
        storage_resources: Of the storage initializer.
        storage_cache: A directory of each node, where fetched objects are kept for the node's other pods; empty keeps none.
        storage_cache_bytes: Of all that is kept there; 0 is no bound.
        storage_env: Variables of every storage initializer, which no service changes.
        agent_image: Of the sidecar that requests pass by where a manifest asks for that.
        agent_resources: Of it.
        log_url: Where payloads are logged where a manifest does not say it.
        assignments_address: ``host:port`` of the controller, which tells agents what their pods should hold; without,
            only the mounted ConfigMap does.
        assignments_audience: Of the tokens by which it knows pods; empty where it asks for none.
        storage_schemes: URI schemes that the installed providers know; ``pvc`` is planning's own.
        automount_service_account_token: False puts ``automountServiceAccountToken: false`` where a pod is silent.
    """

    default_mode: str = "raw"
    fallback_mode: str | None = None
    ingress_domain: str = "example.com"
    extra_ingress_domains: tuple[str, ...] = ()
    url_scheme: str = "http"
    cluster_domain: str = "cluster.local"
    route_parent: RouteParent = _GATEWAY
    default_timeout_seconds: int = 60
    storage_image: str = f"servery/storage-initializer:{VERSION}"
    storage_resources: Manifest = field(default_factory=lambda: _STORAGE_RESOURCES)
    storage_cache: str = ""
    storage_cache_bytes: int = 0
    storage_env: Mapping[str, str] = field(default_factory=dict)
    agent_image: str = f"servery/agent:{VERSION}"
    agent_resources: Manifest = field(default_factory=lambda: _AGENT_RESOURCES)
    log_url: str = "http://default-broker"
    assignments_address: str = ""
    assignments_audience: str = ""
    storage_schemes: frozenset[str] = frozenset(
        {
            "abfs",
            "abfss",
            "az",
            "azure",
            "file",
            "git",
            "git+http",
            "git+https",
            "git+ssh",
            "gs",
            "hdfs",
            "hf",
            "http",
            "https",
            "mlflow-artifacts",
            "models",
            "modelscope",
            "oci",
            "oci+fetch",
            "runs",
            "s3",
            "swebhdfs",
            "wasb",
            "wasbs",
            "webhdfs",
        }
    )
    automount_service_account_token: bool = True


_STORAGE_RESOURCES: Manifest = {
    "requests": {"cpu": "100m", "memory": "100Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}
_AGENT_RESOURCES: Manifest = {
    "requests": {"cpu": "100m", "memory": "100Mi"},
    "limits": {"cpu": "1", "memory": "1Gi"},
}
