"""A model of a repository, run by NVIDIA's ``tritonserver``: requests are handed on, batching is Triton's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.manifests import Json
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata, grpc
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.triton import model_config_pb2 as config_pb
from servery_sdk.serving import InputError, LoadError, Overrides, Scheduling, Send

from servery_runtime_triton.model import config as configs
from servery_runtime_triton.model.decoupled import collected
from servery_runtime_triton.model.failures import ModelError
from servery_runtime_triton.model.repository import ModelRepository
from servery_runtime_triton.model.signature import Signature, signature
from servery_runtime_triton.model.tritonserver.installed import Installed
from servery_runtime_triton.model.tritonserver.server import Server

CALLS = 32
"""At once: Triton has the queue, and ours must never be the one that waits."""

_FINAL = "triton_final_response"


class ForwardedModel:
    """One model that ``tritonserver`` has loaded."""

    gathers = True

    def __init__(
        self, name: str | None, repository: ModelRepository, installed: Installed, overrides: Overrides
    ) -> None:
        self._name = name or ""
        self._overrides = overrides
        self._repository = repository
        self._installed = installed
        self._server: Server | None = None
        self._config = config_pb.ModelConfig()
        self._signature = Signature(model="", max_batch_size=0, inputs={}, outputs={})
        self.versions: tuple[str, ...] = ()
        self.is_decoupled = False
        self.batchable = False
        self.is_sequenced = False

    def load(self) -> None:
        """Let ``tritonserver`` load it.

        Raises:
            LoadError: Says the directory and Triton's own words.
        """
        directory = self._repository.directory(self._name or None)
        if not self._name:
            try:
                self._name = configs.read(directory).name or directory.name
            except LoadError:
                # Triton may know more fields than we do.
                self._name = directory.name
        server = Server.of(self._repository, self._installed, model=self._name)
        try:
            server.load(self._name, self, self._overrides)
        except LoadError as error:
            raise LoadError(f"{directory}: {error}") from error
        self._server = server
        self._config, self.versions = server.described(self._name)
        self._signature = signature(self._config)
        self.is_sequenced = self._config.HasField("sequence_batching")
        self.is_decoupled = self._config.model_transaction_policy.decoupled
        self.batchable = self._config.max_batch_size > 0 and self._config.HasField("dynamic_batching")

    @property
    def _asked(self) -> Server:
        assert self._server is not None, "load it first"
        return self._server

    def predict_many(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse | ServeryError]:
        """Answer each request."""
        if self.is_decoupled:
            return [self._collected(request) for request in requests]
        answers = self._asked.infer(self._message(request) for request in requests)
        return [self._answer(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def _collected(self, request: InferRequest) -> InferResponse | ServeryError:
        responses: list[InferResponse] = []
        for answer, _ in self._responses(request):
            if isinstance(answer, ServeryError):
                return answer
            if answer is not None:
                responses.append(answer)
        return collected(request, responses, version=request.version or self.versions[-1])

    def stream(self, request: InferRequest, send: Send) -> None:
        """Give every response to ``send`` as it comes."""
        for answer, is_last in self._responses(request):
            send(answer, is_last)

    def _responses(self, request: InferRequest) -> Iterator[tuple[InferResponse | ServeryError | None, bool]]:
        for found in self._asked.stream(self._message(request)):
            is_last = False
            if not isinstance(found, ModelError):
                is_last = found.parameters[_FINAL].bool_param
                del found.parameters[_FINAL]
                if is_last and not found.outputs:
                    yield None, True
                    continue
            yield self._answer(request, found), is_last

    def _message(self, request: InferRequest) -> pb.ModelInferRequest:
        # An only model is asked by the service's name as well.
        return grpc.encode_request(replace(request, model=self._name))

    def _answer(
        self, request: InferRequest, answer: pb.ModelInferResponse | ModelError
    ) -> InferResponse | ServeryError:
        if not isinstance(answer, ModelError):
            return replace(grpc.decode_response(answer), model=request.model)
        if answer.code is ErrorCode.INVALID_ARGUMENT:
            # Only now: what Triton takes is right, also where we would not have known it.
            try:
                self._signature.checked(request)
            except InputError as error:
                return error
        return ModelError(f"model {self._name!r}: {answer}", code=answer.code)

    def metadata(self) -> ModelMetadata:
        """Return what the completed configuration says."""
        inputs, outputs = self._signature.metadata()
        platform = configs.platform_of(self._config, self._config.backend)
        return ModelMetadata(name="", platform=platform, versions=self.versions, inputs=inputs, outputs=outputs)

    def configuration(self) -> Mapping[str, Json]:
        """Return the configuration as Triton has completed it."""
        return configs.as_json(self._config)

    def scheduling(self) -> Scheduling:
        """Return that everything is to be handed on: Triton has queues and batches of its own."""
        return Scheduling(max_rows=self._config.max_batch_size or None, parallel_calls=CALLS)

    def close(self) -> None:
        """Let ``tritonserver`` unload it; the last model ends it."""
        if self._server is not None:
            self._server.unload(self._name, self)
