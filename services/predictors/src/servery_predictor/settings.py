"""What the predictor can be told. Precedence: flag, environment ``SERVERY_PREDICTOR_<FIELD>``, default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = "SERVERY_PREDICTOR_"


def _as_kserve(name: str) -> AliasChoices:
    # KServe's variable goes without a prefix; variables are found in any case.
    return AliasChoices(f"{_PREFIX}{name}".lower(), name)


class Settings(BaseSettings):
    """Of one predictor process."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, protected_namespaces=())

    runtime: str
    """Name of the runtime plugin, ``sklearn``."""

    model_name: str = "model"
    """Name in URLs."""

    model_dir: Path = Path("/mnt/models")
    """Directory of the artifact."""

    multi_model_server: bool = Field(default=False, validation_alias=_as_kserve("multi_model_server"))
    """Whether models come and go by their names, each in a folder of its own below ``model_dir``: none is loaded at
    the start, and whoever reaches a port may load and unload. Also KServe's variable ``MULTI_MODEL_SERVER``."""

    host: str = "0.0.0.0"
    """Address to listen on."""

    http_port: int = 8080
    """Port of REST; 0 takes a free one."""

    http_socket: Path | None = None
    """A Unix socket where REST answers too, in a folder that an agent in the same pod mounts; not with several workers."""

    grpc_port: int = 8081
    """Port of gRPC; 0 takes a free one."""

    enable_grpc: bool = True
    """Whether gRPC is served."""

    grpc_front: Literal["fast", "grpcio"] = "fast"
    """Who listens on the gRPC port: our own HTTP/2, which answers quick unary calls itself, or ``grpcio`` alone."""

    workers: int = Field(default=1, ge=1)
    """Processes that serve, each with a model of its own; where the framework allows, they share its memory."""

    max_batch_rows: int = 1024
    """Upper bound on the rows of one call of the model."""

    threads: int = Field(default=1, ge=1)
    """Threads that one call of the model may use, where its framework can be told; KServe's ``--nthread``."""

    max_queue_requests: int = 1000
    """Requests that may wait for the model; one more is refused with 429."""

    max_body_bytes: int = 256 * 1024 * 1024
    """Upper bound on one request's body, REST or gRPC."""

    min_compressed_bytes: int = 32 * 1024
    """Size from which a REST answer goes compressed to a client that asks for it; smaller ones are quicker as they are."""

    cors_allowed_origin: str = ""
    """Origins whose pages may read REST answers, as ``https://a.example, https://b.example`` or ``*``; without, none may."""

    cors_allowed_methods: str = "GET, POST"
    """Methods that such a page may use."""

    cors_allowed_headers: str = ""
    """Headers that such a page may send beside ``Content-Type`` and what any page may; ``*`` for all."""

    ce_type: str = Field("io.kserve.inference.response", validation_alias=_as_kserve("ce_type"))
    """Type of CloudEvents that answer; also KServe's variable ``CE_TYPE``."""

    ce_source: str = Field("", validation_alias=_as_kserve("ce_source"))
    """Their source; ``io.kserve.inference.<model>`` without; also KServe's variable ``CE_SOURCE``."""

    ce_merge: bool = Field(default=False, validation_alias=_as_kserve("ce_merge"))
    """Whether they keep the other attributes of what they answer; also KServe's variable ``CE_MERGE``."""

    explainer_host: str = ""
    """Component that requests for explanations are passed on to, ``host`` or ``host:port``; without, the model explains.

    Mode knative sets it for what answers at the service's own host, where nothing else routes between components.
    """

    allow_client_shm: bool = False
    """Whether clients may register shared memory; whoever reaches the port then reads and writes what they name."""

    allow_load_overrides: bool = False
    """Whether clients may load a model with a configuration and files of their own; whoever reaches the port then runs
    what code they like as the server's user, where the runtime runs models in Python."""

    trace_file: Path | None = None
    """Where traces of requests are written, once a client asks for some; without, none are."""

    request_timeout_seconds: float = 300.0
    """How long a request may wait for the model and its answer."""

    drain_seconds: float = 30.0
    """How long requests in flight may take after SIGTERM."""

    termination_log: Path = Path("/dev/termination-log")
    """Where the reason of a failed start is left, if the file is there."""

    @field_validator("workers")
    @classmethod
    def _one_listens_at_a_path(cls, workers: int, info: ValidationInfo) -> int:
        if workers > 1 and info.data.get("http_socket") is not None:
            msg = "several processes cannot share --http-socket, found both"
            raise ValueError(msg)
        if workers > 1 and info.data.get("multi_model_server"):
            msg = "several processes cannot hold models that come and go, found --multi-model-server"
            raise ValueError(msg)
        return workers
