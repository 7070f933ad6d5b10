"""TensorFlow Serving's gRPC services, which KServe calls protocol version ``grpc-v1``.

Source: TensorFlow Serving, tensorflow_serving/apis/{prediction_service,model_service}.proto.
"""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse, RequestError
from servery_sdk.protocol.tfserving import grpc as codec
from servery_sdk.protos.tensorflow_serving import apis_pb2 as pb
from servery_sdk.protos.tensorflow_serving import apis_pb2_grpc as stubs

from servery_predictor.dataplane import DataPlane
from servery_predictor.errors import GRPC
from servery_predictor.tfserving.models import signature_model, version_state

SERVICES = ("tensorflow.serving.PredictionService", "tensorflow.serving.ModelService")
PROTOCOL = "grpc-v1"


class PredictionServicer(stubs.PredictionServiceServicer):
    """``tensorflow.serving.PredictionService`` over one data plane."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def Predict(self, request: pb.PredictRequest, context: Any) -> pb.PredictResponse:  # noqa: N802  # the proto's name
        try:
            answer = await self._answer(codec.decode_predict(request))
        except ServeryError as failure:
            await _abort(context, failure)
        return codec.encode_predicted(answer, request.model_spec)

    async def Classify(self, request: pb.ClassificationRequest, context: Any) -> pb.ClassificationResponse:  # noqa: N802
        try:
            answer = await self._answer(codec.decode_examples(request.model_spec, request.input))
            return codec.encode_classes(answer, request.model_spec)
        except ServeryError as failure:
            await _abort(context, failure)

    async def Regress(self, request: pb.RegressionRequest, context: Any) -> pb.RegressionResponse:  # noqa: N802  # likewise
        try:
            answer = await self._answer(codec.decode_examples(request.model_spec, request.input))
            return codec.encode_values(answer, request.model_spec)
        except ServeryError as failure:
            await _abort(context, failure)

    async def GetModelMetadata(  # noqa: N802  # the proto's name
        self, request: pb.GetModelMetadataRequest, context: Any
    ) -> pb.GetModelMetadataResponse:
        name = request.model_spec.name
        try:
            if set(request.metadata_field) != {codec.SIGNATURES}:
                found = ", ".join(sorted(request.metadata_field)) or "none"
                raise RequestError(f'metadata_field: found {found}; the one there is: "{codec.SIGNATURES}"')
            version = codec.version(request.model_spec)
            signatures = signature_model(self._plane.repository, name, version).signatures()
            served = str(version_state(self._plane.repository.entry(name)).version)
        except ServeryError as failure:
            await _abort(context, failure)
        return codec.encode_metadata(name, served, signatures)

    async def _answer(self, asked: InferRequest) -> InferResponse:
        signature_model(self._plane.repository, asked.model, asked.version)
        return await self._plane.infer(asked, protocol=PROTOCOL)


class ModelServicer(stubs.ModelServiceServicer):
    """``tensorflow.serving.ModelService`` over one data plane."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def GetModelStatus(self, request: pb.GetModelStatusRequest, context: Any) -> pb.GetModelStatusResponse:  # noqa: N802
        try:
            entry = self._plane.repository.entry(request.model_spec.name, codec.version(request.model_spec))
        except ServeryError as failure:
            await _abort(context, failure)
        found = version_state(entry)
        status = pb.StatusProto(error_code=found.code.value[0], error_message=found.message)
        return pb.GetModelStatusResponse(
            model_version_status=[pb.ModelVersionStatus(version=found.version, state=found.state, status=status)]
        )


def add_services(server: grpc.aio.Server, plane: DataPlane) -> None:
    """Let ``server`` answer them."""
    stubs.add_PredictionServiceServicer_to_server(PredictionServicer(plane), server)  # type: ignore[no-untyped-call]  # generated
    stubs.add_ModelServiceServicer_to_server(ModelServicer(plane), server)  # type: ignore[no-untyped-call]  # generated


async def _abort(context: Any, failure: ServeryError) -> NoReturn:
    await context.abort(GRPC[failure.code], str(failure))
    raise AssertionError("abort raises")
