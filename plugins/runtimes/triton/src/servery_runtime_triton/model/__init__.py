"""A model of a Triton model repository, whoever runs it: Servery's own backends, or NVIDIA's ``tritonserver``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.serving import Model, Overrides, Scheduling, Send

from servery_runtime_triton.model.engine import Engine, EngineModel, chosen, needed
from servery_runtime_triton.model.own import OwnModel
from servery_runtime_triton.model.repository import ModelRepository
from servery_runtime_triton.model.tritonserver import installed

logger = logging.getLogger(__name__)


class TritonModel:
    """One model of a repository, in the versions that its policy serves.

    Args:
        name: Of its directory; None for a repository of one model, or for the directory of a model.
        repository: Whose other models it may call; None for that of the artifact alone.
        engine: Who runs it: ``auto``, ``servery`` or ``tritonserver``.
    """

    def __init__(
        self, name: str | None = None, repository: ModelRepository | None = None, *, engine: str = Engine.AUTO
    ) -> None:
        self._name = name
        self._repository = repository
        self._engine = Engine(engine)
        self._overrides = Overrides()
        self._model: EngineModel
        self.versions: tuple[str, ...] = ()
        self.is_decoupled = False
        self.batchable = False
        self.gathers = False
        self.is_sequenced = False

    @classmethod
    def stored(cls, artifact: Path, *, engine: str = Engine.AUTO) -> Mapping[str, Callable[[], Model]]:
        """Return what makes each model of a repository, by name; empty where ``artifact`` is one model."""
        repository = ModelRepository.at(artifact)
        for folder in repository.others():
            logger.warning("no model in folder", extra={"folder": str(folder)})
        return {name: partial(cls, name, repository, engine=engine) for name in repository.names()}

    def override(self, overrides: Overrides) -> None:
        """Load it with a configuration, and with files, in place of those of its directory."""
        self._overrides = overrides

    def load(self, artifact: Path) -> None:
        """Read the configuration, let the model's file complete it, and load every version that is to be served.

        Raises:
            LoadError: Says the file and what is wrong with it.
        """
        repository = self._repository or ModelRepository(artifact.absolute())
        # What is not there is said before anything is started.
        repository.directory(self._name)
        self._model = self._made(repository)
        self._model.load()
        self.versions = self._model.versions
        self.is_decoupled = self._model.is_decoupled
        self.batchable = self._model.batchable
        self.gathers = self._model.gathers
        self.is_sequenced = self._model.is_sequenced

    def _made(self, repository: ModelRepository) -> EngineModel:
        found = None if self._engine is Engine.SERVERY else installed.find(os.environ.get("PATH", ""))
        if chosen(self._engine, found, needed(repository)) is Engine.SERVERY:
            return OwnModel(self._name, repository, self._overrides)
        # Here, since it imports gRPC, which ours does not need.
        from servery_runtime_triton.model.tritonserver.forwarded import ForwardedModel

        assert found is not None
        return ForwardedModel(self._name, repository, found, self._overrides)

    def predict(self, request: InferRequest) -> InferResponse:
        """Answer one request, with all responses of a decoupled model behind one another.

        Raises:
            InputError: The request does not fit the model.
            ModelError: The model said no.
        """
        (answer,) = self.predict_many([request])
        if isinstance(answer, ServeryError):
            raise answer
        return answer

    def predict_many(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ServeryError]:
        """Answer requests of one version, each with its responses or what is wrong with it."""
        return self._model.predict_many(requests)

    def stream(self, request: InferRequest, send: Send) -> None:
        """Give every response to ``send`` as the model sends it.

        Raises:
            InputError: The request does not fit the model.
            ModelError: The model said no.
        """
        self._model.stream(request, send)

    def metadata(self) -> ModelMetadata:
        """Return what the completed configuration says."""
        return self._model.metadata()

    def configuration(self) -> Mapping[str, Json]:
        """Return the completed configuration."""
        return self._model.configuration()

    def scheduling(self) -> Scheduling:
        """Return how it wants to be called."""
        return self._model.scheduling()

    def close(self) -> None:
        """Give it back."""
        self._model.close()
