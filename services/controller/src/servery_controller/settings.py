"""What the controller can be told. Precedence: environment ``SERVERY_CONTROLLER_<FIELD>``, default."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from servery_sdk.model import RouteParent
from servery_sdk.plugins import Plugins

from servery_controller.planning import PlanningSettings


class Settings(BaseSettings):
    """Of one controller process."""

    model_config = SettingsConfigDict(env_prefix="SERVERY_CONTROLLER_", frozen=True)

    default_mode: str = "raw"
    """Mode of services that ask for none."""

    ingress_domain: str = "example.com"
    """Under which services have hosts."""

    url_scheme: str = "http"
    """Of ``status.url``."""

    cluster_domain: str = "cluster.local"
    """DNS domain of the cluster."""

    gateway: str = "kserve/kserve-ingress-gateway"
    """``namespace/name`` of the Gateway that routes hang on."""

    ingress_class: str | None = None
    """Class of Ingresses where there is no Gateway API."""

    storage_image: str | None = None
    """Image of the storage initializer; the release's where none is given."""

    workers: int = 4
    """Services worked on at once."""

    http_port: int = 8081
    """Port of health, metrics and admission."""

    tls_cert: Path | None = None
    """Certificate of the admission endpoint; plain HTTP where none is given."""

    tls_key: Path | None = None
    """Key of ``tls_cert``."""

    lease_namespace: str = Field(default="servery-system", validation_alias="POD_NAMESPACE")
    """Namespace of the leader's lease."""

    identity: str = Field(default_factory=socket.gethostname, validation_alias="POD_NAME")
    """Of this process among its replicas."""

    lease_seconds: float = 15.0
    """How long a silent leader is still believed."""

    def planning(self, plugins: Plugins) -> PlanningSettings:
        """Return the part that planning reads."""
        namespace, _, name = self.gateway.partition("/")
        schemes = frozenset(s for provider in plugins.storage_providers.values() for s in provider.schemes)
        defaults = PlanningSettings()
        return PlanningSettings(
            default_mode=self.default_mode,
            ingress_domain=self.ingress_domain,
            url_scheme=self.url_scheme,
            cluster_domain=self.cluster_domain,
            route_parent=RouteParent(gateway_namespace=namespace, gateway_name=name, ingress_class=self.ingress_class),
            storage_schemes=schemes or defaults.storage_schemes,
            storage_image=self.storage_image or defaults.storage_image,
        )
