"""The ``tritonserver`` of one repository, from the first model that is loaded to the last that is given back."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import grpc
from servery_sdk.errors import ErrorCode, Transient
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.triton import model_config_pb2 as config_pb
from servery_sdk.serving import LoadError, Overrides

from servery_runtime_triton.model.failures import ModelError
from servery_runtime_triton.model.repository import ModelRepository, is_model
from servery_runtime_triton.model.tritonserver.installed import Installed
from servery_runtime_triton.model.tritonserver.process import Running

logger = logging.getLogger(__name__)

STEADY_SECONDS = 60.0
"""One that has run this long died of something new, and starts again at once."""
_FIRST_SECONDS, _LONGEST_SECONDS = 1.0, 30.0

_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: ErrorCode.INVALID_ARGUMENT,
    grpc.StatusCode.ALREADY_EXISTS: ErrorCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND: ErrorCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE: ErrorCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ErrorCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED: ErrorCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNIMPLEMENTED: ErrorCode.UNIMPLEMENTED,
}

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who has loaded a model, and with what."""

    model: object
    overrides: Overrides


class Server:
    """Loads, unloads and asks models; starts again, with the models that it had, when a call finds it dead."""

    _open: ClassVar[weakref.WeakKeyDictionary[ModelRepository, Server]] = weakref.WeakKeyDictionary()
    _opening: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, installed: Installed, artifact: Path, model: str) -> None:
        self._installed = installed
        self._running: Running | None = None
        self._deaths = 0
        self._due = 0.0
        self._owners: dict[str, _Owner] = {}
        self._lock = threading.RLock()
        scratch = Path(tempfile.mkdtemp(prefix="servery-triton-"))
        weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        self._models = _linked(artifact, scratch / "models", model) if is_model(artifact) else artifact
        self._backends = (
            installed.directory if installed.wheel is None else _with_stub(installed, installed.wheel.stub, scratch)
        )

    @classmethod
    def of(cls, repository: ModelRepository, installed: Installed, *, model: str) -> Server:
        """Return the one server of a repository; ``model`` is the name of an artifact that is a model itself."""
        with cls._opening:
            if repository not in cls._open:
                cls._open[repository] = cls(installed, repository.artifact, model)
            return cls._open[repository]

    def load(self, model: str, owner: object, overrides: Overrides) -> None:
        """Load a model, or load it again; whoever asked last owns it.

        Raises:
            LoadError: In Triton's own words.
        """
        running = self._up()
        with self._lock:
            before = self._owners.get(model)
            self._owners[model] = _Owner(owner, overrides)
        # Not under the lock: models load side by side, and those that are loaded answer on.
        try:
            self._load(running, model, overrides)
        except LoadError:
            with self._lock:
                self._owners = {name: one for name, one in {**self._owners, model: before}.items() if one is not None}
                self._rest()
            raise

    def _load(self, running: Running, model: str, overrides: Overrides) -> None:
        before = running.said()
        asked = pb.RepositoryModelLoadRequest(model_name=model)
        if overrides.configuration is not None:
            asked.parameters["config"].string_param = overrides.configuration
        for path, content in overrides.files.items():
            asked.parameters[f"file:{path}"].bytes_param = content
        try:
            running.stub.RepositoryModelLoad(asked, metadata=running.key)
        except grpc.RpcError as error:
            # What is wrong with a configuration is said in the log alone.
            logged = [line for line in running.said_since(before) if line not in _details(error)]
            raise LoadError(f"model {model!r}: tritonserver: {' | '.join([_details(error), *logged])}") from error

    def unload(self, model: str, owner: object) -> None:
        """Give a model back, unless somebody else has loaded it since; the last one ends the process."""
        with self._lock:
            known = self._owners.get(model)
            if known is None or known.model is not owner:
                return
            del self._owners[model]
            self._rest()
            if self._running is None:
                return
            try:
                self._running.stub.RepositoryModelUnload(
                    pb.RepositoryModelUnloadRequest(model_name=model), metadata=self._running.key
                )
            except grpc.RpcError as error:
                raise ModelError(f"model {model!r}: tritonserver: {_details(error)}") from error

    def _rest(self) -> None:
        """End the process where nobody has a model in it."""
        if self._running is not None and not self._owners:
            self._running.stop()
            self._running = None

    def described(self, model: str) -> tuple[config_pb.ModelConfig, tuple[str, ...]]:
        """Return a loaded model's completed configuration, and its versions, the highest last."""
        running = self._up()
        config = running.stub.ModelConfig(pb.ModelConfigRequest(name=model), metadata=running.key).config
        said = running.stub.ModelMetadata(pb.ModelMetadataRequest(name=model), metadata=running.key)
        return config, tuple(sorted(said.versions, key=int))

    def infer(self, requests: Iterable[pb.ModelInferRequest]) -> list[pb.ModelInferResponse | ModelError]:
        """Ask all at once, so that Triton may batch them; returns what each gets."""
        running = self._up()
        calls = [running.stub.ModelInfer.future(request, metadata=running.key) for request in requests]
        return [self._outcome(call.result) for call in calls]

    def stream(self, request: pb.ModelInferRequest) -> Iterator[pb.ModelInferResponse | ModelError]:
        """Yield each response to one request when it comes."""
        running = self._up()
        responses = running.stub.ModelStreamInfer(iter([request]), metadata=running.key)
        while True:
            found = self._outcome(lambda: next(responses, None))
            if found is None:
                return
            if isinstance(found, ModelError):
                yield found
                return
            yield ModelError(found.error_message) if found.error_message else found.infer_response

    def _outcome(self, result: Callable[[], _Answer]) -> _Answer | ModelError:
        try:
            return result()
        except grpc.RpcError as error:
            return ModelError(f"tritonserver: {_details(error)}", code=_CODES.get(error.code(), ErrorCode.INTERNAL))

    def _up(self) -> Running:
        """Return the process that runs, or one that is started for this.

        Raises:
            LoadError: It does not start, or a model that it had does not load again.
            Transient: It has died again and again, and is not started once more yet.
        """
        with self._lock:
            if self._running is not None and self._running.exit_code is None:
                return self._running
            if self._running is not None:
                self._bury(self._running)
            if (left := self._due - time.monotonic()) > 0:
                raise Transient(f"tritonserver died {self._deaths} times in a row", retry_after_seconds=left)
            self._running = running = Running.started(self._installed, self._models, self._backends)
            for model, owner in self._owners.items():
                self._load(running, model, owner.overrides)
            return running

    def _bury(self, dead: Running) -> None:
        logger.error("tritonserver died", extra={"exit_code": dead.exit_code, "said": " | ".join(dead.said())})
        now = time.monotonic()
        self._deaths = 1 if now - dead.since >= STEADY_SECONDS else self._deaths + 1
        self._due = now + delay_seconds(self._deaths)
        self._running = None
        dead.stop()


def delay_seconds(deaths: int) -> float:
    """Return how long nobody is started after so many deaths in a row: not at all, then twice as long each time."""
    return 0.0 if deaths <= 1 else min(_FIRST_SECONDS * 2.0 ** (deaths - 2), _LONGEST_SECONDS)


def _linked(model: Path, models: Path, name: str) -> Path:
    """Return a repository of one model, which is elsewhere."""
    models.mkdir()
    (models / name).symlink_to(model)
    return models


def _with_stub(installed: Installed, stub: Path, scratch: Path) -> Path:
    """Return folders of backends, of which that of the Python backend has its stub."""
    for name in installed.backends:
        folder = scratch / "backends" / name
        folder.mkdir(parents=True)
        for file in (installed.directory / name).iterdir():
            (folder / file.name).symlink_to(file)
        if name == "python":
            (folder / stub.name).symlink_to(stub)
    return scratch / "backends"


def _details(error: Any) -> str:
    return str(error.details())
