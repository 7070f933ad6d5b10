"""The Open Inference Protocol over gRPC, with health and reflection."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from servery_sdk.documents import Document
from servery_sdk.errors import ServeryError
from servery_sdk.model import ModelState, Protocol
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.protocol import grpc as codec
from servery_sdk.protocol.shared import SharedRequest
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2_grpc as stubs
from servery_sdk.protos.pool import POOL
from servery_sdk.routes import RpcService
from servery_sdk.runtimes import VERSION

from servery_predictor import model_repository, overriding
from servery_predictor.dataplane import DataPlane, Parts
from servery_predictor.errors import GRPC
from servery_predictor.extensions.statistics import statistics
from servery_predictor.grpc_messages import Readable
from servery_predictor.runtime_calls import add_services
from servery_predictor.tfserving import grpc as tfserving

SERVICE = "inference.GRPCInferenceService"

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")

_STREAM_REQUESTS = 256
"""Of one stream that are asked at a time; who sends more waits."""

_FINAL = "triton_final_response"
_EMPTY_FINAL = "triton_enable_empty_final_response"
"""What Triton's clients send and read to know the last response to a request."""


def server_live(_: pb.ServerLiveRequest, plane: DataPlane) -> pb.ServerLiveResponse:
    return pb.ServerLiveResponse(live=plane.live)


def server_ready(_: pb.ServerReadyRequest, plane: DataPlane) -> pb.ServerReadyResponse:
    return pb.ServerReadyResponse(ready=plane.ready)


def server_metadata(_: pb.ServerMetadataRequest, plane: DataPlane) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name="servery", version=VERSION, extensions=plane.offered.names(is_rest=False))


async def model_ready(request: pb.ModelReadyRequest, plane: DataPlane) -> pb.ModelReadyResponse:
    return pb.ModelReadyResponse(ready=await plane.repository.is_ready(request.name, request.version or None))


def model_metadata(request: pb.ModelMetadataRequest, plane: DataPlane) -> pb.ModelMetadataResponse:
    metadata = plane.repository.ready(request.name, request.version or None).metadata
    assert metadata is not None
    return codec.encode_metadata(metadata)


def _told(
    handler: Callable[[Servicer, _Request, Any], Awaitable[_Answer]],
) -> Callable[[Servicer, _Request, Any], Awaitable[_Answer]]:
    """Return ``handler`` with our errors told as statuses."""

    @functools.wraps(handler)
    async def told(servicer: Servicer, request: _Request, context: Any) -> _Answer:
        try:
            return await handler(servicer, request, context)
        except ServeryError as failure:
            await _abort(context, failure)

    return told


class Servicer(stubs.GRPCInferenceServiceServicer):
    """``inference.GRPCInferenceService`` over one data plane."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._memory = plane.offered.shared_memory

    async def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:  # noqa: N802  # the proto's name
        return server_live(request, self._plane)

    async def ServerReady(self, request: Any, context: Any) -> pb.ServerReadyResponse:  # noqa: N802  # the proto's name
        return server_ready(request, self._plane)

    async def ServerMetadata(self, request: Any, context: Any) -> pb.ServerMetadataResponse:  # noqa: N802  # likewise
        return server_metadata(request, self._plane)

    @_told
    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:  # noqa: N802
        return await model_ready(request, self._plane)

    @_told
    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:  # noqa: N802
        return model_metadata(request, self._plane)

    @_told
    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Any) -> pb.ModelConfigResponse:  # noqa: N802
        found = self._plane.repository.configuration(request.name, request.version or None)
        answer = pb.ModelConfigResponse()
        json_format.ParseDict({"config": found}, answer)
        return answer

    @_told
    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:  # noqa: N802
        if self._plane.repository.takes_documents(request.model_name):
            return await self._reply(request, context)
        asked = decoded(request, self._plane)
        return encoded(await self._plane.infer(asked, protocol="grpc-v2"), asked, request, self._plane)

    async def ModelStreamInfer(  # noqa: N802
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Any
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        # Each request is asked when it comes, so that they batch; answers go in the order of requests.
        coming: asyncio.Queue[_Streamed | None] = asyncio.Queue(_STREAM_REQUESTS)

        async def read() -> None:
            try:
                async for request in requests:
                    await coming.put(_Streamed(request, self._plane))
            finally:
                await coming.put(None)

        reading = asyncio.create_task(read(), name="stream")
        streamed: _Streamed | None = None
        try:
            while (streamed := await coming.get()) is not None:
                async for response in streamed.responses():
                    yield response
        finally:
            reading.cancel()
            while streamed is not None or not coming.empty():
                if streamed is not None:
                    streamed.cancel()
                streamed = None if coming.empty() else coming.get_nowait()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    @_told
    async def ModelStatistics(self, request: Any, context: Any) -> pb.ModelStatisticsResponse:  # noqa: N802
        found = statistics(self._plane.repository, self._plane.metrics, request.name, request.version or None)
        return json_format.ParseDict(found, pb.ModelStatisticsResponse())

    async def _reply(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        document = Document(
            model=request.model_name,
            wire=Protocol.GRPC_V2,
            body=request.SerializeToString(),
            headers=dict(context.invocation_metadata() or ()),
        )
        reply = await self._plane.reply(document, version=request.model_version or None)
        assert isinstance(reply.body, bytes)
        return pb.ModelInferResponse.FromString(reply.body)

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Any) -> pb.RepositoryIndexResponse:  # noqa: N802
        entry = pb.RepositoryIndexResponse.ModelIndex
        return pb.RepositoryIndexResponse(
            models=[
                entry(
                    name=e.name,
                    version=version,
                    state="READY" if e.state is ModelState.LOADED else "UNAVAILABLE",
                    reason=e.reason,
                )
                for e in self._plane.repository.entries()
                for version in e.versions or ("",)
                if not request.ready or e.state is ModelState.LOADED
            ]
        )

    @_told
    async def RepositoryModelLoad(self, request: Any, context: Any) -> pb.RepositoryModelLoadResponse:  # noqa: N802
        name = request.model_name or request.repository_or_model_name
        await self._plane.load(name, overriding.from_message(request.parameters))
        return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    @_told
    async def RepositoryModelUnload(self, request: Any, context: Any) -> pb.RepositoryModelUnloadResponse:  # noqa: N802
        name = request.model_name or request.repository_or_model_name
        await self._plane.changes.unload(name)
        return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)

    @_told
    async def SystemSharedMemoryStatus(  # noqa: N802
        self, request: Any, context: Any
    ) -> pb.SystemSharedMemoryStatusResponse:
        regions = self._memory.status(request.name)
        return json_format.ParseDict(
            {"regions": {region["name"]: region for region in regions}}, pb.SystemSharedMemoryStatusResponse()
        )

    @_told
    async def SystemSharedMemoryRegister(  # noqa: N802
        self, request: Any, context: Any
    ) -> pb.SystemSharedMemoryRegisterResponse:
        self._memory.register_system(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    @_told
    async def SystemSharedMemoryUnregister(  # noqa: N802
        self, request: Any, context: Any
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        self._memory.unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    @_told
    async def CudaSharedMemoryStatus(self, request: Any, context: Any) -> pb.CudaSharedMemoryStatusResponse:  # noqa: N802
        regions = self._memory.status(request.name, is_cuda=True)
        return json_format.ParseDict(
            {"regions": {region["name"]: region for region in regions}}, pb.CudaSharedMemoryStatusResponse()
        )

    @_told
    async def CudaSharedMemoryRegister(self, request: Any, context: Any) -> pb.CudaSharedMemoryRegisterResponse:  # noqa: N802
        self._memory.register_cuda(request.name, request.raw_handle, request.device_id, request.byte_size)
        return pb.CudaSharedMemoryRegisterResponse()

    @_told
    async def CudaSharedMemoryUnregister(  # noqa: N802
        self, request: Any, context: Any
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        self._memory.unregister(request.name, is_cuda=True)
        return pb.CudaSharedMemoryUnregisterResponse()

    @_told
    async def TraceSetting(self, request: Any, context: Any) -> pb.TraceSettingResponse:  # noqa: N802
        tracer = self._plane.offered.tracer
        if request.model_name:
            self._plane.repository.entry(request.model_name)
        if request.settings:
            changes = {name: list(setting.value) or None for name, setting in request.settings.items()}
            tracer.change(changes, request.model_name)
        settings = {name: {"value": value} for name, value in tracer.settings(request.model_name).items()}
        return json_format.ParseDict({"settings": settings}, pb.TraceSettingResponse())

    @_told
    async def LogSettings(self, request: Any, context: Any) -> pb.LogSettingsResponse:  # noqa: N802
        logs = self._plane.offered.logs
        if request.settings:
            logs.change(
                {
                    name: getattr(setting, choice)
                    for name, setting in request.settings.items()
                    if (choice := setting.WhichOneof("parameter_choice"))
                }
            )
        kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
        settings = {name: {kinds[type(value)]: value} for name, value in logs.settings().items()}
        return json_format.ParseDict({"settings": settings}, pb.LogSettingsResponse())


class _Streamed:
    """One request of a stream."""

    def __init__(self, request: pb.ModelInferRequest, plane: DataPlane) -> None:
        self._request, self._plane = request, plane
        self._parts: Parts | None = None
        try:
            asked = decoded(request, plane)
        except ServeryError as failure:
            self._failure = failure
            return
        parameters = dict(asked.parameters)
        self._wants_end = bool(parameters.pop(_EMPTY_FINAL, False))
        self._asked = replace(asked, parameters=parameters)
        self._parts = plane.stream(self._asked, protocol="grpc-v2")

    async def responses(self) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Yield what is sent for it."""
        if self._parts is None:
            yield self._told(self._failure)
            return
        async for outcome, is_last in self._parts:
            if isinstance(outcome, ServeryError):
                yield self._told(outcome)
            elif outcome is not None or self._wants_end:
                whole = outcome or InferResponse(model=self._asked.model, id=self._asked.id, outputs=())
                try:
                    answer = encoded(whole, self._asked, self._request, self._plane)
                except ServeryError as failure:
                    yield self._told(failure)
                    continue
                answer.parameters[_FINAL].bool_param = is_last
                yield pb.ModelStreamInferResponse(infer_response=answer)

    def _told(self, failure: ServeryError) -> pb.ModelStreamInferResponse:
        # Whose request it was: a client has several in one stream.
        known = pb.ModelInferResponse(model_name=self._request.model_name, id=self._request.id)
        return pb.ModelStreamInferResponse(error_message=str(failure) or failure.code, infer_response=known)

    def cancel(self) -> None:
        """Want no more."""
        if self._parts is not None:
            self._parts.cancel()


def decoded(request: pb.ModelInferRequest, plane: DataPlane) -> InferRequest:
    """Return the request that a message spells.

    Raises:
        ServeryError: It spells none, or shared memory is not there.
    """
    memory = plane.offered.shared_memory
    asked = codec.decode_request(request, regions=memory)
    memory.check(asked)
    return asked


def encoded(
    answer: InferResponse, asked: InferRequest, request: pb.ModelInferRequest, plane: DataPlane
) -> pb.ModelInferResponse:
    """Return the message of an answer.

    Raises:
        ServeryError: An output does not fit its shared memory.
    """
    placed = plane.offered.shared_memory.put(answer, asked) if isinstance(asked, SharedRequest) else None
    # A client that sends typed contents reads typed contents.
    return codec.encode_response(answer, raw=bool(request.raw_input_contents), placed=placed)


async def _abort(context: Any, failure: ServeryError) -> NoReturn:
    await context.abort(GRPC[failure.code], str(failure))
    raise AssertionError("abort raises")


class GrpcServer:
    """``grpcio``'s server of every call; its address is bound once it is made.

    Args:
        address: ``host:port``, or ``unix:`` and a path.
        is_shared: Whether other processes serve the same port.
        services: The runtime's own.

    Attributes:
        port: Of ``host:port``.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        address: str,
        max_message_bytes: int,
        is_shared: bool = False,
        services: Sequence[RpcService] = (),
    ) -> None:
        self._server = grpc.aio.server(
            interceptors=(Readable(),),
            options=[
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.max_receive_message_length", max_message_bytes),
                # Two servers that share a port by accident would each get half of the requests.
                ("grpc.so_reuseport", int(is_shared)),
            ],
        )
        stubs.add_GRPCInferenceServiceServicer_to_server(Servicer(plane), self._server)  # type: ignore[no-untyped-call]  # generated
        tfserving.add_services(self._server, plane)
        model_repository.add_service(self._server, plane)
        add_services(self._server, services)
        self._names = (SERVICE, *tfserving.SERVICES, model_repository.SERVICE, *(service.name for service in services))
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # only where asyncio is
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((*self._names, reflection.SERVICE_NAME), self._server, POOL)
        self.port: int = self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Accept calls."""
        await self._server.start()
        await self.set_ready(ready=True)

    async def set_ready(self, *, ready: bool) -> None:
        """Tell health checks."""
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *self._names):
            await self._health.set(service, status)

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more and finish what is in flight."""
        await self._server.stop(drain_seconds)
