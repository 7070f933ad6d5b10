"""A model of a repository, run by Servery's own backends in this process."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import LoadError, Overrides, Scheduling, Send

from servery_runtime_triton.model import config as configs
from servery_runtime_triton.model.backends import Backend, BackendModule, Place, StreamingBackend, backend
from servery_runtime_triton.model.decoupled import collected
from servery_runtime_triton.model.instances import Instances
from servery_runtime_triton.model.repository import ModelRepository, chosen, numbered
from servery_runtime_triton.model.sequences import Sequences
from servery_runtime_triton.model.signature import Signature, signature
from servery_runtime_triton.model.warmup import warm

logger = logging.getLogger(__name__)

_MICROSECONDS = 1_000_000
_NONE = Overrides()
_UNUSED = {"batch_input", "batch_output", "model_repository_agents", "response_cache"}


class OwnModel:
    """One model of a repository, in the versions that its policy serves.

    Args:
        name: Of its directory; None for a repository of one model, or for the directory of a model.
        repository: Where it is, and whose other models it may call.
        overrides: What it is loaded with in place of what is there.
    """

    def __init__(self, name: str | None, repository: ModelRepository, overrides: Overrides = _NONE) -> None:
        self._name = name
        self._repository = repository
        self._overrides = overrides
        self._config = pb.ModelConfig()
        self._platform = ""
        self._signature = Signature(model="", max_batch_size=0, inputs={}, outputs={})
        self._instances: dict[str, Instances] = {}
        self._sequences: dict[str, Sequences] = {}
        self.versions: tuple[str, ...] = ()
        self.is_decoupled = False
        self.batchable = False
        self.gathers = False
        self.is_sequenced = False

    def load(self) -> None:
        """Read the configuration, let the model's file complete it, and load every version that is to be served.

        Raises:
            LoadError: Says the file and what is wrong with it.
        """
        directory = self._repository.directory(self._name)
        if self._overrides.files:
            directory = self._written(directory.name)
        if self._overrides.configuration is None:
            config = configs.read(directory)
        else:
            config = configs.from_json(self._overrides.configuration, model=self._name or directory.name)
        if self._name is not None and config.name not in ("", self._name):
            raise LoadError(
                f"{directory / configs.FILE}: name {config.name!r} is not that of the folder: {self._name!r}"
            )
        config.name = config.name or self._name or directory.name
        name = configs.backend_of(config, directory)
        self._platform = configs.platform_of(config, name)
        config.backend = "" if name == "ensemble" else name
        found = tuple(path.name for path in numbered(directory))
        if name == "ensemble" and not found:
            # An ensemble's version is an empty folder, which git and object stores do not keep.
            found = ("1",)
        self.versions = chosen(config.version_policy, found, where=directory)
        module = backend(name, model=config.name)
        module.complete(config, directory / self.versions[-1])
        _settle(config)
        self._config = config
        self._signature = signature(config)
        self.is_sequenced = config.HasField("sequence_batching")
        self.is_decoupled = config.model_transaction_policy.decoupled
        places = {
            version: Place(
                name=config.name,
                version=version,
                model=directory,
                files=directory / version,
                repository=self._repository,
            )
            for version in self.versions
        }
        try:
            for version, place in places.items():
                made = self._made(module, place)
                self._instances[version] = Instances(place.name, made)
                warm(self._config, directory, self._signature, self._instances[version].distinct)
                if self.is_sequenced:
                    self._sequences[version] = Sequences(self._config, made)
        except LoadError:
            self.close()
            raise
        self.gathers = self._instances[self.versions[-1]].gathers or bool(self._sequences)
        # One that gathers is given several requests only where it says so: its own code has to expect them. The others
        # promise a batch axis with max_batch_size.
        self.batchable = bool(self._sequences) or (
            config.max_batch_size > 0 and (not self.gathers or config.HasField("dynamic_batching"))
        )
        self._repository.enter(config.name, self)

    def _written(self, name: str) -> Path:
        """Return a directory that holds the files that it is loaded with, as long as this is there."""
        folder = Path(tempfile.mkdtemp(prefix="servery-triton-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        for path, content in self._overrides.files.items():
            file = folder / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return folder / name

    def _made(self, module: BackendModule, place: Place) -> list[Backend]:
        count = _count(self._config)
        made = [module.make(self._config, place)]
        try:
            while len(made) < count:
                made.append(made[0] if made[0].instances_share else module.make(self._config, place))
        except LoadError:
            for instance in made:
                instance.close()
            raise
        return made

    def predict_many(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ServeryError]:
        """Answer requests of one version, each with what is wrong with it, or with all responses behind one another."""
        return [
            responses
            if isinstance(responses, ServeryError)
            else collected(request, responses, version=self._version(request))
            for request, responses in zip(requests, self._responses(requests), strict=True)
        ]

    def responses(self, request: InferRequest) -> Sequence[InferResponse]:
        """Return every response to one request.

        Raises:
            InputError: The request does not fit the model.
            ModelError: The model said no.
        """
        (responses,) = self._responses([request])
        if isinstance(responses, ServeryError):
            raise responses
        return responses

    def stream(self, request: InferRequest, send: Send) -> None:
        """Give every response to ``send`` as the model sends it.

        Raises:
            InputError: The request does not fit the model.
            ModelError: The model said no.
        """
        checked = self._signature.checked(request)
        version = self._version(request)

        def pass_on(answer: InferResponse | ServeryError | None, is_last: bool) -> None:
            send(self._finished(answer, version) if isinstance(answer, InferResponse) else answer, is_last)

        if version in self._sequences:
            (answers,) = self._sequences[version].execute([checked])
        else:
            with self._instances[version].lent() as instance:
                if isinstance(instance, StreamingBackend):
                    instance.stream(checked, pass_on)
                    return
                (answers,) = instance.execute([checked])
        for answer in [answers] if isinstance(answers, ServeryError) else answers:
            pass_on(answer, False)

    def _responses(self, requests: Sequence[InferRequest]) -> Sequence[Sequence[InferResponse] | ServeryError]:
        answers: list[Sequence[InferResponse] | ServeryError] = []
        fitting: list[InferRequest] = []
        for request in requests:
            try:
                fitting.append(self._signature.checked(request))
                answers.append(())
            except ServeryError as error:
                answers.append(error)
        if fitting:
            executed = iter(self._executed(fitting))
            answers = [answer if isinstance(answer, ServeryError) else next(executed) for answer in answers]
        return answers

    def _executed(self, requests: Sequence[InferRequest]) -> Sequence[Sequence[InferResponse] | ServeryError]:
        # Requests of one call have one version: what differs is not gathered.
        version = self._version(requests[0])
        if version in self._sequences:
            found = self._sequences[version].execute(requests)
        else:
            with self._instances[version].lent() as instance:
                found = instance.execute(requests)
        return [
            answer if isinstance(answer, ServeryError) else [self._finished(part, version) for part in answer]
            for answer in found
        ]

    def _version(self, request: InferRequest) -> str:
        return request.version or self.versions[-1]

    def _finished(self, response: InferResponse, version: str) -> InferResponse:
        return InferResponse(
            model=response.model,
            version=version,
            id=response.id,
            outputs=response.outputs,
            parameters=response.parameters,
        )

    def metadata(self) -> ModelMetadata:
        """Return what the completed configuration says."""
        inputs, outputs = self._signature.metadata()
        return ModelMetadata(name="", platform=self._platform, versions=self.versions, inputs=inputs, outputs=outputs)

    def configuration(self) -> Mapping[str, Json]:
        """Return the completed configuration."""
        return configs.as_json(self._config)

    def scheduling(self) -> Scheduling:
        """Return what ``dynamic_batching`` and ``instance_group`` say."""
        batching = self._config.dynamic_batching
        if self._sequences:
            # In the order in which they came, in one thread: a later request of a sequence may not overtake.
            return Scheduling(max_rows=self._config.max_batch_size * _count(self._config) or None, together=True)
        return Scheduling(
            max_rows=self._config.max_batch_size or None,
            preferred_rows=tuple(batching.preferred_batch_size),
            max_delay_seconds=batching.max_queue_delay_microseconds / _MICROSECONDS,
            max_requests=batching.default_queue_policy.max_queue_size or None,
            parallel_calls=_count(self._config),
        )

    def close(self) -> None:
        """Let nobody call it any more, and finalize its instances."""
        self._repository.leave(self._config.name, self)
        for instances in self._instances.values():
            instances.close()


def _count(config: pb.ModelConfig) -> int:
    return sum(max(1, group.count) for group in config.instance_group if not group.passive) or 1


def _settle(config: pb.ModelConfig) -> None:
    """Check what is the same for every backend, and say what is not done.

    Raises:
        LoadError: It cannot be served so.
    """
    if not config.output:
        raise LoadError(
            f"model {config.name!r}: {configs.FILE} names no outputs, and backend {config.backend!r} does not"
        )
    if too_large := [n for n in config.dynamic_batching.preferred_batch_size if not 0 < n <= config.max_batch_size]:
        raise LoadError(
            f"model {config.name!r}: preferred_batch_size {too_large}: "
            f"must be 1 to max_batch_size ({config.max_batch_size})"
        )
    for field in sorted({field.name for field, _ in config.ListFields()} & _UNUSED):
        logger.warning("configuration changes nothing", extra={"model": config.name, "field": field})
