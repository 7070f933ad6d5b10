"""Which MLflow server is asked, and who asks: what the environment says to MLflow's own client."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from servery_sdk.errors import Permanent
from servery_sdk.storage import Tls


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The tracking server and the registry, as URLs without a slash at the end, and what goes along to both."""

    tracking_url: str
    registry_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    tls: Tls = Tls()  # noqa: RUF009  # frozen

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Access:
        """Return what ``MLFLOW_TRACKING_URI`` and its like say.

        Raises:
            Permanent: There is no server among them.

        Source: mlflow.environment_variables.
        """
        tracking = environment.get("MLFLOW_TRACKING_URI", "").rstrip("/")
        registry = environment.get("MLFLOW_REGISTRY_URI", "").rstrip("/") or tracking
        for name, url in (("MLFLOW_TRACKING_URI", tracking), ("MLFLOW_REGISTRY_URI", registry)):
            if urlsplit(url).scheme not in {"http", "https"}:
                raise Permanent(f"{name}: {url!r} is no URL of an MLflow server; such is https://mlflow.example.com")
        bundle = environment.get("MLFLOW_TRACKING_SERVER_CERT_PATH")
        client = environment.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
        tls = Tls(
            verify=environment.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in {"1", "true"},
            ca_file=Path(bundle) if bundle else None,
            certificate_file=Path(client) if client else None,
            key_file=Path(client) if client else None,
        )
        return cls(tracking_url=tracking, registry_url=registry, headers=_headers(environment), tls=tls)

    def context(self) -> ssl.SSLContext:
        """Return what verifies the server, and is shown to it."""
        context = ssl.create_default_context(cafile=str(self.tls.ca_file) if self.tls.ca_file else None)
        if not self.tls.verify:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if self.tls.certificate_file is not None:
            context.load_cert_chain(self.tls.certificate_file, self.tls.key_file)
        return context


def _headers(environment: Mapping[str, str]) -> Mapping[str, str]:
    headers = {"user-agent": "servery"}
    if workspace := environment.get("MLFLOW_WORKSPACE"):
        headers["x-mlflow-workspace"] = workspace
    username, password = environment.get("MLFLOW_TRACKING_USERNAME"), environment.get("MLFLOW_TRACKING_PASSWORD")
    if username and password:
        headers["authorization"] = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
    elif token := environment.get("MLFLOW_TRACKING_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    return headers
