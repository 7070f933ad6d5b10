"""What the agent can be told. Precedence: flag, environment ``SERVERY_AGENT_<FIELD>``, default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from servery_agent.durations import GoSeconds

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

    controller_token_file: Path | None = None
    """Where the kubelet keeps the pod's token for the controller, which believes no one without."""

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

    metrics_port: int = Field(
        default=9082, validation_alias=_as_knative("metrics_port", "aggregate_prometheus_metrics_port")
    )
    """Port of ``/metrics`` and of gRPC's ``servery.agent.v1``, the agent's own; 0 takes a free one. Also the
    ``AGGREGATE_PROMETHEUS_METRICS_PORT`` of KServe's ``qpext``."""

    component_metrics_port: int | None = Field(
        default=None, validation_alias=_as_knative("component_metrics_port", "kserve_container_prometheus_metrics_port")
    )
    """Port of the component's metrics, which ``/metrics`` then tells too. Also ``qpext``'s
    ``KSERVE_CONTAINER_PROMETHEUS_METRICS_PORT``."""

    component_metrics_path: str = Field(
        default="/metrics",
        validation_alias=_as_knative("component_metrics_path", "kserve_container_prometheus_metrics_path"),
    )
    """Their path. Also ``qpext``'s ``KSERVE_CONTAINER_PROMETHEUS_METRICS_PATH``."""

    storage_metrics_port: int | None = None
    """Port of the metrics of the storage daemon beside, which ``/metrics`` then tells too."""

    queue_proxy_metrics_port: int | None = None
    """Port of the metrics of Knative's queue-proxy, 9091, which ``/metrics`` then tells too."""

    metrics_timeout_seconds: float = Field(default=5.0, gt=0)
    """For the metrics of each of those; then they are left out."""

    knative_service: str = Field(default="", validation_alias=_as_knative("knative_service", "k_service"))
    """Label ``service_name`` of the series of agent and component, where metrics are merged; Knative's ``K_SERVICE``."""

    knative_configuration: str = Field(
        default="", validation_alias=_as_knative("knative_configuration", "k_configuration")
    )
    """Likewise ``configuration_name``, ``K_CONFIGURATION``."""

    knative_revision: str = Field(default="", validation_alias=_as_knative("knative_revision", "k_revision"))
    """Likewise ``revision_name``, ``K_REVISION``."""

    container_concurrency: int = Field(default=0, ge=0, validation_alias=_as_knative("container_concurrency"))
    """Requests and gRPC calls that may be with the component at once; 0 for any number. Also Knative's ``CONTAINER_CONCURRENCY``."""

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

    enable_batcher: bool = False
    """Ask the component for many requests at once. Also KServe's flag of that name, as the next three are."""

    max_batchsize: int = 32
    """Rows, or instances, of a batch; a request is never split. 0 or less for the default, as KServe has it."""

    max_latency: float = 5000.0
    """Milliseconds that a request may wait for others, which it does only while the component is busy. 0 or less for the default."""

    batch_timeout_seconds: float = Field(default=0.0, ge=0)
    """From a batch's call to its answer; then 504. 0 for as long as any request may take. Also ``--timeout``, KServe's field."""

    busy_batches: int = Field(default=1, ge=1)
    """Batches of one model, not full, that may be with the component while others gather; full ones go at once."""

    serving_readiness_probe: str = Field(default="", validation_alias=_as_knative("serving_readiness_probe"))
    """A Kubernetes probe in JSON, asked when a client sends ``K-Network-Probe: queue``. Also Knative's variable of that name."""

    drain_seconds: float = 30.0
    """How long requests in flight may take after SIGTERM; the agent ends with the last of them."""

    log_url: str = ""
    """Where payloads are logged to; empty for nowhere. ``http``, ``https``, ``file``, and what sinks are installed for."""

    log_mode: Literal["all", "request", "response"] = "all"
    """Which half of an exchange is logged."""

    source_uri: str = ""
    """CloudEvents' ``source``; KServe gives the pod's name. Empty for ``http://localhost:<port>/``."""

    inference_service: str = ""
    """Name of the service, for the log."""

    namespace: str = ""
    """Its namespace, for the log."""

    component: str = ""
    """Its component, for the log: ``predictor``."""

    endpoint: str = ""
    """KServe's ``default`` or ``canary``, for the log."""

    metadata_headers: str = ""
    """Names of the request's headers that are logged, with commas between them; in any case."""

    metadata_annotations: str = ""
    """Annotations that are logged: ``name=value``, with commas between them."""

    log_content_mode: Literal["binary", "structured"] = "binary"
    """How CloudEvents are sent by HTTP."""

    log_sampling: float = Field(default=1.0, ge=0)
    """Share of the exchanges that is logged; decided by the id, so the same everywhere. 1 for all."""

    log_redact: str = ""
    """JSON paths, with spaces between them, whose values are left out: ``$.instances[*].name $..ssn``."""

    log_max_body_bytes: int = Field(default=1024 * 1024, ge=0)
    """Of a body; the rest is left out, and the event says ``truncated``."""

    workers: int = Field(default=5, ge=1)
    """Events that are on their way to an HTTP sink at once."""

    log_timeout_seconds: float = Field(default=30.0, gt=0)
    """For one event or object."""

    logger_ca_cert_file: str = ""
    """Certificates to trust for ``https``, in ``/etc/tls/logger`` or by their whole path; empty for the system's."""

    logger_tls_skip_verify: bool = False
    """Take any certificate of the sink."""

    log_store_path: str = ""
    """Folder of objects, behind the namespace, the service and the component."""

    log_store_format: Literal["json", "jsonl", "csv", "parquet"] = "json"
    """How objects are written. ``json`` is KServe's: one object, or an array where there are more."""

    log_batch_size: int = Field(default=1, ge=1)
    """Events of an object, at most."""

    log_batch_interval: GoSeconds = 0.0
    """How long an event waits for others of its object; ``10s``, or seconds. 0 for ten seconds where a size says to wait."""

    log_batch_bytes: int = Field(default=16 * 1024 * 1024, ge=1)
    """Of an object's bodies, about."""

    log_marshaller_url: str = ""
    """Who writes objects instead, as KServe asks it. KServe's own address, ``http://localhost:9083/marshal``, is nobody."""

    log_spool_path: Path = Path("/tmp/servery-agent/payloads")  # noqa: S108  # the one folder that a container can write to
    """Folder where events wait; of this agent alone. A volume that outlives the container keeps them with it."""

    log_spool_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Of that folder; what comes when it is full is dropped, and counted."""

    log_dead_letter_bytes: int = Field(default=16 * 1024 * 1024, ge=0)
    """Of events that the sink refused for good, kept there too; the oldest go."""

    log_queue_bytes: int = Field(default=16 * 1024 * 1024, ge=0)
    """Of events in memory on their way to that folder; what is more is dropped, and counted."""

    @property
    def storage_daemon(self) -> Path:
        """Return the path of the storage daemon's socket."""
        return self.storage_socket or self.model_dir / ".storage.sock"
