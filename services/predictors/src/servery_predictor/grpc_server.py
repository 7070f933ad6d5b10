"""The Open Inference Protocol over gRPC, with health and reflection."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from google.protobuf import json_format
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from servery_sdk.documents import Document
from servery_sdk.errors import ServeryError
from servery_sdk.model import ModelState, Protocol
from servery_sdk.protocol import grpc as codec
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2_grpc as stubs
from servery_sdk.protos.pool import POOL
from servery_sdk.runtimes import VERSION

from servery_predictor.dataplane import DataPlane
from servery_predictor.errors import GRPC
from servery_predictor.tfserving import grpc as tfserving

SERVICE = "inference.GRPCInferenceService"


def server_live(_: pb.ServerLiveRequest, plane: DataPlane) -> pb.ServerLiveResponse:
    return pb.ServerLiveResponse(live=True)


def server_ready(_: pb.ServerReadyRequest, plane: DataPlane) -> pb.ServerReadyResponse:
    return pb.ServerReadyResponse(ready=plane.ready)


def server_metadata(_: pb.ServerMetadataRequest, plane: DataPlane) -> pb.ServerMetadataResponse:
    return pb.ServerMetadataResponse(name="servery", version=VERSION, extensions=["model_repository"])


async def model_ready(request: pb.ModelReadyRequest, plane: DataPlane) -> pb.ModelReadyResponse:
    return pb.ModelReadyResponse(ready=await plane.repository.is_ready(request.name, request.version or None))


def model_metadata(request: pb.ModelMetadataRequest, plane: DataPlane) -> pb.ModelMetadataResponse:
    metadata = plane.repository.ready(request.name, request.version or None).metadata
    assert metadata is not None
    return codec.encode_metadata(metadata)


class Servicer(stubs.GRPCInferenceServiceServicer):
    """``inference.GRPCInferenceService`` over one data plane."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def ServerLive(self, request: Any, context: Any) -> pb.ServerLiveResponse:  # noqa: N802  # the proto's name
        return server_live(request, self._plane)

    async def ServerReady(self, request: Any, context: Any) -> pb.ServerReadyResponse:  # noqa: N802  # the proto's name
        return server_ready(request, self._plane)

    async def ServerMetadata(self, request: Any, context: Any) -> pb.ServerMetadataResponse:  # noqa: N802  # likewise
        return server_metadata(request, self._plane)

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Any) -> pb.ModelReadyResponse:  # noqa: N802
        try:
            return await model_ready(request, self._plane)
        except ServeryError as failure:
            await _abort(context, failure)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:  # noqa: N802
        try:
            return model_metadata(request, self._plane)
        except ServeryError as failure:
            await _abort(context, failure)

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Any) -> pb.ModelConfigResponse:  # noqa: N802
        try:
            found = self._plane.repository.configuration(request.name, request.version or None)
        except ServeryError as failure:
            await _abort(context, failure)
        answer = pb.ModelConfigResponse()
        json_format.ParseDict({"config": found}, answer)
        return answer

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:  # noqa: N802
        try:
            if self._plane.repository.takes_documents(request.model_name):
                return await self._reply(request, context)
            answer = await self._plane.infer(codec.decode_request(request), protocol="grpc-v2")
        except ServeryError as failure:
            await _abort(context, failure)
        # A client that sends typed contents reads typed contents.
        return codec.encode_response(answer, raw=bool(request.raw_input_contents))

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

    async def RepositoryModelLoad(self, request: Any, context: Any) -> pb.RepositoryModelLoadResponse:  # noqa: N802
        name = request.model_name or request.repository_or_model_name
        try:
            await self._plane.changes.load(name)
        except ServeryError as failure:
            await _abort(context, failure)
        return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def RepositoryModelUnload(self, request: Any, context: Any) -> pb.RepositoryModelUnloadResponse:  # noqa: N802
        name = request.model_name or request.repository_or_model_name
        try:
            await self._plane.changes.unload(name)
        except ServeryError as failure:
            await _abort(context, failure)
        return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)


async def _abort(context: Any, failure: ServeryError) -> NoReturn:
    await context.abort(GRPC[failure.code], str(failure))
    raise AssertionError("abort raises")


class GrpcServer:
    """``grpcio``'s server of every call; its address is bound once it is made.

    Args:
        address: ``host:port``, or ``unix:`` and a path.
        is_shared: Whether other processes serve the same port.

    Attributes:
        port: Of ``host:port``.
    """

    def __init__(self, plane: DataPlane, *, address: str, max_message_bytes: int, is_shared: bool = False) -> None:
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.max_receive_message_length", max_message_bytes),
                # Two servers that share a port by accident would each get half of the requests.
                ("grpc.so_reuseport", int(is_shared)),
            ]
        )
        stubs.add_GRPCInferenceServiceServicer_to_server(Servicer(plane), self._server)  # type: ignore[no-untyped-call]  # generated
        tfserving.add_services(self._server, plane)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # only where asyncio is
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, *tfserving.SERVICES, reflection.SERVICE_NAME), self._server, POOL)
        self.port: int = self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Accept calls."""
        await self._server.start()
        await self.set_ready(ready=True)

    async def set_ready(self, *, ready: bool) -> None:
        """Tell health checks."""
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", SERVICE, *tfserving.SERVICES):
            await self._health.set(service, status)

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more and finish what is in flight."""
        await self._server.stop(drain_seconds)
