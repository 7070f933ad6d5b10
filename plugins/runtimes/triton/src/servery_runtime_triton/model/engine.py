"""Who runs a repository: Servery's own backends, or NVIDIA's ``tritonserver`` where it is installed."""

from __future__ import annotations

import enum
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.serving import LoadError, Scheduling, Send

from servery_runtime_triton.model import config as configs
from servery_runtime_triton.model.repository import ModelRepository
from servery_runtime_triton.model.tritonserver.installed import Installed

logger = logging.getLogger(__name__)

_IN_THE_CORE = "ensemble"
"""What ``tritonserver`` runs without a backend's library."""


class Engine(enum.StrEnum):
    """What ``--engine`` says."""

    AUTO = "auto"
    """NVIDIA's where it is installed and has the backends that the repository needs, else Servery's."""
    SERVERY = "servery"
    TRITONSERVER = "tritonserver"


class EngineModel(Protocol):
    """One model of a repository, as an engine runs it; the abilities are those of ``TritonModel``."""

    versions: tuple[str, ...]
    is_decoupled: bool
    batchable: bool
    gathers: bool
    is_sequenced: bool

    def load(self) -> None: ...

    def predict_many(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ServeryError]: ...

    def stream(self, request: InferRequest, send: Send) -> None: ...

    def metadata(self) -> ModelMetadata: ...

    def configuration(self) -> Mapping[str, Json]: ...

    def scheduling(self) -> Scheduling: ...

    def close(self) -> None: ...


def needed(repository: ModelRepository) -> Mapping[str, str]:
    """Return the backend of each model, by the model's name; without models whose configuration does not say it."""
    names = repository.names() or (None,)
    found = {}
    for name in names:
        directory = repository.directory(name)
        try:
            found[directory.name] = configs.backend_of(configs.read(directory), directory)
        except LoadError:
            # Whoever loads it says what is wrong.
            continue
    return found


def chosen(wanted: Engine, found: Installed | None, backends: Mapping[str, str]) -> Engine:
    """Return who runs a repository.

    Models call one another, so one engine runs all of them.

    Args:
        wanted: The setting.
        found: The ``tritonserver`` of this machine.
        backends: Of each model, by its name.

    Raises:
        LoadError: ``tritonserver`` is wanted, and is not installed or has not the backends.
    """
    if wanted is Engine.SERVERY or (wanted is Engine.AUTO and found is None):
        return Engine.SERVERY
    if found is None:
        raise LoadError(
            "--engine=tritonserver: no tritonserver on PATH, and no nvidia-pytriton beside the server; "
            "install one (pip install nvidia-pytriton), or choose --engine=servery"
        )
    lacking = {model: name for model, name in backends.items() if name not in (*found.backends, _IN_THE_CORE)}
    if not lacking:
        return Engine.TRITONSERVER
    words = (
        f"{found.binary} has the backends {', '.join(sorted(found.backends)) or 'none'}, and not: "
        + ", ".join(f"{name} (model {model!r})" for model, name in sorted(lacking.items()))
        + (f"; {found.why_not}" if found.why_not else "")
    )
    if wanted is Engine.TRITONSERVER:
        raise LoadError(f"--engine=tritonserver: {words}; add what is missing, or choose --engine=servery")
    logger.warning("the installed tritonserver is not used", extra={"reason": words})
    return Engine.SERVERY
