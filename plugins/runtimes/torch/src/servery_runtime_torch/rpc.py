"""TorchServe's gRPC API: what its REST API does, in the messages of its protos.

Source: TorchServe, "gRPC API", its ``inference.proto`` and ``management.proto``. Failures have gRPC's own statuses, as
they have under every other protocol here, where TorchServe says INTERNAL for most.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from google.protobuf.message import Message
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import v1
from servery_sdk.protos.torchserve import inference_pb2 as ask
from servery_sdk.protos.torchserve import management_pb2 as manage
from servery_sdk.routes import Answer, Asked, Call, Host, RpcService
from servery_sdk.serving import InputError

from servery_runtime_torch.inference import BODY, PROTOCOL, encoded, of_fields, of_instances
from servery_runtime_torch.management import Management
from servery_runtime_torch.multipart import Part

INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"

_WRAPPED_FIELDS = ("data", BODY)
"""In which of them a client puts a whole body."""

_STATUSES = {
    ErrorCode.INVALID_ARGUMENT: 3,
    ErrorCode.NOT_FOUND: 5,
    ErrorCode.NOT_READY: 14,
    ErrorCode.UNAVAILABLE: 14,
    ErrorCode.RESOURCE_EXHAUSTED: 8,
    ErrorCode.DEADLINE_EXCEEDED: 4,
    ErrorCode.UNIMPLEMENTED: 12,
    ErrorCode.INTERNAL: 13,
}
"""gRPC's numbers, where a message says them."""


class Inference:
    """The inference API over ``host``.

    Args:
        envelope: TorchServe's ``service_envelope``.
    """

    def __init__(self, host: Host, envelope: str) -> None:
        self._host, self._envelope = host, envelope

    def service(self) -> RpcService:
        """Return it as a service."""
        asked = ask.PredictionsRequest
        return RpcService(
            name=INFERENCE,
            calls=(
                Call(name="Ping", request=ask.Nothing, handle=self.ping),
                Call(name="Predictions", request=asked, handle=self.predictions),
                Call(name="StreamPredictions", request=asked, handle=self.stream, gives_stream=True),
                Call(
                    name="StreamPredictions2",
                    request=asked,
                    handle=self.sequence,
                    takes_stream=True,
                    gives_stream=True,
                ),
            ),
        )

    async def ping(self, _: ask.Nothing) -> ask.TorchServeHealthResponse:
        """Return what ``/ping`` says."""
        status = "Healthy" if self._host.is_ready else "Unhealthy"
        return ask.TorchServeHealthResponse(health=json.dumps({"status": status}, indent=2) + "\n")

    async def predictions(self, request: ask.PredictionsRequest) -> ask.PredictionResponse:
        """Return the handler's answer to one row: a text or bytes as they are, anything else as JSON.

        Raises:
            ServeryError: There is none.
        """
        if not request.model_name:
            raise InputError("Parameter model_name is required.")
        version = request.model_version or None
        name = self._host.model(request.model_name, version).name
        fields = dict(request.input)
        body = next((fields[field] for field in _WRAPPED_FIELDS if field in fields), b"")
        wrapped = of_instances(body, name, version, self._envelope)
        if wrapped is not None:
            answer = await self._host.infer(wrapped, protocol=PROTOCOL)
            return ask.PredictionResponse(prediction=v1.encode_response(answer))
        # A call without input is one, too: a handler may make something of nothing.
        parts = [Part(field, "", value) for field, value in fields.items()] or [Part(BODY, "", b"")]
        answer = await self._host.infer(of_fields(parts, name, version, self._envelope), protocol=PROTOCOL)
        return ask.PredictionResponse(prediction=encoded(answer).body)

    async def stream(self, request: ask.PredictionsRequest) -> AsyncIterator[ask.PredictionResponse]:
        """Yield the answer: handlers give one.

        Raises:
            ServeryError: There is none.
        """
        yield await self.predictions(request)

    async def sequence(self, requests: AsyncIterator[ask.PredictionsRequest]) -> AsyncIterator[ask.PredictionResponse]:
        """Yield an answer to each request, in order; one that fails does not end the others."""
        async for request in requests:
            try:
                if not request.sequence_id:
                    raise InputError("Parameter sequence_id is required.")
                answer = await self.predictions(request)
            except ServeryError as failure:
                status = ask.Status(code=_STATUSES[failure.code], message=str(failure))
                answer = ask.PredictionResponse(status=status)
            answer.sequence_id = request.sequence_id
            yield answer


class _Closed(ServeryError):
    """What REST answers with 405."""

    code = ErrorCode.UNIMPLEMENTED


_Read = Callable[[Any], tuple[dict[str, str], dict[str, str]]]
"""Path and query of the REST request that a message is."""


def management(found: Management) -> RpcService:
    """Return the management API over REST's."""
    calls: dict[str, tuple[type[Message], Callable[[Asked], Awaitable[Answer]], _Read]] = {
        "DescribeModel": (manage.DescribeModelRequest, found.describe, _model),
        "ListModels": (manage.ListModelsRequest, found.list, lambda asked: ({}, _given(asked))),
        "RegisterModel": (manage.RegisterModelRequest, found.register, lambda asked: ({}, _given(asked))),
        "ScaleWorker": (manage.ScaleWorkerRequest, found.scale, _model),
        "SetDefault": (manage.SetDefaultRequest, found.set_default, _version),
        "UnregisterModel": (manage.UnregisterModelRequest, found.delete, _model),
    }
    return RpcService(
        name=MANAGEMENT,
        calls=tuple(
            Call(name=name, request=kind, handle=_managed(handle, read)) for name, (kind, handle, read) in calls.items()
        ),
    )


def _managed(handle: Callable[[Asked], Awaitable[Answer]], read: _Read) -> Callable[[Any], Any]:
    async def managed(asked: Any) -> manage.ManagementResponse:
        path, query = read(asked)
        answer = await handle(Asked(path=path, query=query))
        document = json.loads(answer.body)
        if answer.status != 200:
            raise _Closed(document["message"])
        # REST wraps a sentence in an object, here it stands alone.
        is_sentence = isinstance(document, dict) and document.keys() == {"status"}
        return manage.ManagementResponse(msg=document["status"] if is_sentence else answer.body.decode())

    return managed


def _given(asked: Any) -> dict[str, str]:
    return {
        field.name: str(value).lower() if isinstance(value, bool) else str(value) for field, value in asked.ListFields()
    }


def _model(asked: Any) -> tuple[dict[str, str], dict[str, str]]:
    query = _given(asked)
    names = {"model": query.pop("model_name", ""), "version": query.pop("model_version", "")}
    return {name: value for name, value in names.items() if name == "model" or value}, query


def _version(asked: Any) -> tuple[dict[str, str], dict[str, str]]:
    return {"model": asked.model_name, "version": asked.model_version}, {}
