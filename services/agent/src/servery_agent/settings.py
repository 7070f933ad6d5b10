"""What the agent can be told. Precedence: flag, environment ``SERVERY_AGENT_<FIELD>``, default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = "SERVERY_AGENT_"


def _as_knative(name: str, variable: str | None = None) -> AliasChoices:
    # Knative's variable, which KServe's agent reads too, goes without a prefix; variables are found in any case.
    return AliasChoices(f"{_PREFIX}{name}".lower(), variable or name, name)


class Settings(BaseSettings):
    """Of one agent process."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True)

    host: str = "0.0.0.0"
    """Address to listen on."""

    port: int = 9081
    """Port that clients ask; 0 takes a free one."""

    component_host: str = "127.0.0.1"
    """Address of the component behind: a predictor, a transformer or an explainer."""

    component_port: int = 8080
    """Its port."""

    component_socket: Path | None = None
    """Its Unix socket in a volume that both mount; counts before address and port, and costs less."""

    component_grpc_port: int | None = None
    """Its port of HTTP/2, which gRPC needs; without, it is taken to speak that on ``component_port`` too."""

    component_models: Literal["servery", "v2"] = "servery"
    """How its models are loaded and unloaded: by ``servery.model.v1`` on its port of HTTP/2, or by the v2 protocol's
    repository API on ``component_port``, as Triton's and KServe's servers have it."""

    enable_puller: bool = False
    """Bring, load and unload models as they are assigned. Also KServe's flag of that name, as the next two are."""

    config_dir: Path = Path("/mnt/configs")
    """Where KServe's ConfigMap of assignments is mounted, ``models.json`` in it."""

    model_dir: Path = Path("/mnt/models")
    """Folder of the models, which the storage daemon writes and the component reads."""

    storage_socket: Path | None = None
    """Where the storage daemon answers; without, ``.storage.sock`` in ``model_dir``."""

    controller_address: str = ""
    """``host:port`` of the controller, which pushes assignments and is told how far they are; without, only the
    ConfigMap says them."""

    pod_name: str = ""
    """Of this pod, for the controller."""

    pod_namespace: str = ""
    """Its namespace."""

    pod_service: str = ""
    """The inference service that it is of."""

    pull_fetches: int = Field(default=4, ge=1)
    """Models that are fetched at a time."""

    pull_loads: int = Field(default=2, ge=1)
    """Models that are loaded at a time."""

    models_memory_bytes: int = Field(default=0, ge=0)
    """Memory that all models may need together, by what their assignments say; 0 for any. The first have it."""

    metrics_port: int = 9082
    """Port of ``/metrics``, the agent's own; 0 takes a free one."""

    container_concurrency: int = Field(default=0, ge=0, validation_alias=_as_knative("container_concurrency"))
    """Requests that may be with the component at once; 0 for any number. Also Knative's ``CONTAINER_CONCURRENCY``."""

    max_queue_requests: int = Field(default=1000, ge=0)
    """Requests that may wait for that; one more is refused with 429."""

    queue_timeout_seconds: float = 60.0
    """How long one may wait; then 503."""

    answer_timeout_seconds: float = Field(
        default=300.0, ge=0, validation_alias=_as_knative("answer_timeout_seconds", "revision_timeout_seconds")
    )
    """From a request's end to its answer's beginning; then 504. 0 for ever. Also Knative's ``REVISION_TIMEOUT_SECONDS``."""

    idle_timeout_seconds: float = Field(
        default=0.0, ge=0, validation_alias=_as_knative("idle_timeout_seconds", "revision_idle_timeout_seconds")
    )
    """From one piece of an answer to the next; then it is cut. 0 for ever. Also Knative's ``REVISION_IDLE_TIMEOUT_SECONDS``."""

    client_timeout_seconds: float = 60.0
    """How long a client may keep its request, or not read its answer, without going on; then 408, or it is cut."""

    max_body_bytes: int = 256 * 1024 * 1024
    """Upper bound on a body that is read whole; what only passes by has none."""

    max_connections: int = 16 * 1024
    """Connections of clients at once; one more is refused with 503."""

    serving_readiness_probe: str = Field(default="", validation_alias=_as_knative("serving_readiness_probe"))
    """A Kubernetes probe in JSON, asked when a client sends ``K-Network-Probe: queue``. Also Knative's variable of that name."""

    drain_seconds: float = 30.0
    """How long requests in flight may take after SIGTERM; the agent ends with the last of them."""

    @property
    def storage_daemon(self) -> Path:
        """Return the path of the storage daemon's socket."""
        return self.storage_socket or self.model_dir / ".storage.sock"
