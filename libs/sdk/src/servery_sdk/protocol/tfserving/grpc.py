"""TensorFlow Serving's gRPC: messages to values and back. Needs protobuf, not a gRPC library.

Source: TensorFlow Serving, tensorflow_serving/apis/{predict,get_model_metadata,classification,regression}.proto.
"""

from __future__ import annotations

from collections.abc import Mapping

from servery_sdk.manifests import Json
from servery_sdk.protocol.errors import RequestError
from servery_sdk.protocol.tensors import InferRequest, InferResponse
from servery_sdk.protocol.tfserving import examples, tensors
from servery_sdk.protos.tensorflow import framework_pb2 as tf
from servery_sdk.protos.tensorflow_serving import apis_pb2 as pb
from servery_sdk.signatures import DEFAULT, PARAMETER, Signature, SignatureTensor

SIGNATURES = "signature_def"
"""The one field of metadata that there is."""

_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def version(spec: pb.ModelSpec) -> str | None:
    """Return the version that a request asks for; None where it takes the one that is served.

    Raises:
        RequestError: It asks by a label, of which there are none.
    """
    if spec.version_label:
        raise RequestError(f"version label {spec.version_label!r}: labels are not kept; ask by number")
    return str(spec.version.value) if spec.HasField("version") else None


def decode_predict(message: pb.PredictRequest) -> InferRequest:
    """Return the request in ``message``.

    Raises:
        RequestError: Names the input and what does not fit.
    """
    if not message.inputs:
        raise RequestError("the request has no inputs; send at least one tensor")
    return InferRequest(
        model=message.model_spec.name,
        version=version(message.model_spec),
        inputs=tuple(tensors.decoded(name, message.inputs[name]) for name in sorted(message.inputs)),
        outputs=tuple(message.output_filter),
        parameters=_parameters(message.model_spec),
    )


def encode_predict(request: InferRequest) -> pb.PredictRequest:
    """Return the message of ``request``."""
    return pb.PredictRequest(
        model_spec=_spec(request.model, request.version, str(request.parameters.get(PARAMETER, ""))),
        inputs={tensor.name: tensors.encoded(tensor) for tensor in request.inputs},
        output_filter=request.outputs,
    )


def encode_predicted(response: InferResponse, asked: pb.ModelSpec) -> pb.PredictResponse:
    """Return the message of ``response``."""
    return pb.PredictResponse(
        model_spec=answering(response, asked),
        outputs={output.name: tensors.encoded(output) for output in response.outputs},
    )


def decode_predicted(message: pb.PredictResponse) -> InferResponse:
    """Return the response in ``message``, its outputs sorted by name.

    Raises:
        RequestError: A tensor contradicts itself.
    """
    return InferResponse(
        model=message.model_spec.name,
        version=version(message.model_spec),
        outputs=tuple(tensors.decoded(name, message.outputs[name]) for name in sorted(message.outputs)),
    )


def decode_examples(spec: pb.ModelSpec, given: pb.Input) -> InferRequest:
    """Return the request of a Classify or Regress message.

    Raises:
        RequestError: It holds no examples.
    """
    listed = given.example_list_with_context
    found = list(given.example_list.examples or listed.examples)
    if not found:
        raise RequestError("the request has no examples; send at least one")
    if given.HasField("example_list_with_context"):
        for example in found:
            for name, feature in listed.context.features.feature.items():
                if name not in example.features.feature:
                    example.features.feature[name].CopyFrom(feature)
    serialized = [example.SerializeToString() for example in found]
    return examples.request(serialized, model=spec.name, version=version(spec), parameters=_parameters(spec))


def encode_classes(response: InferResponse, asked: pb.ModelSpec) -> pb.ClassificationResponse:
    """Return the message of a classifier's answer.

    Raises:
        RequestError: The answer is not one of a classifier.
    """
    classified = [
        pb.Classifications(classes=[pb.Class(label=label, score=score) for label, score in row])
        for row in examples.classes(response)
    ]
    result = pb.ClassificationResult(classifications=classified)
    return pb.ClassificationResponse(model_spec=answering(response, asked), result=result)


def encode_values(response: InferResponse, asked: pb.ModelSpec) -> pb.RegressionResponse:
    """Return the message of a regression's answer.

    Raises:
        RequestError: The answer is not one of a regression.
    """
    found = [pb.Regression(value=value) for value in examples.values(response)]
    return pb.RegressionResponse(model_spec=answering(response, asked), result=pb.RegressionResult(regressions=found))


def encode_metadata(model: str, served: str | None, signatures: Mapping[str, Signature]) -> pb.GetModelMetadataResponse:
    """Return the message that describes a model."""
    packed = pb.Packed(type_url=_TYPE_URL, value=signature_map(signatures).SerializeToString())
    return pb.GetModelMetadataResponse(model_spec=_spec(model, served, ""), metadata={SIGNATURES: packed})


def signature_map(signatures: Mapping[str, Signature]) -> pb.SignatureDefMap:
    """Return TensorFlow's message of ``signatures``."""
    return pb.SignatureDefMap(
        signature_def={
            name: tf.SignatureDef(
                inputs={put.name: _info(put) for put in signature.inputs},
                outputs={put.name: _info(put) for put in signature.outputs},
                method_name=signature.method,
            )
            for name, signature in signatures.items()
        }
    )


def answering(response: InferResponse, asked: pb.ModelSpec) -> pb.ModelSpec:
    """Return what an answer says that it is of."""
    return _spec(response.model, response.version, asked.signature_name or DEFAULT)


def _spec(model: str, number: str | None, signature: str) -> pb.ModelSpec:
    is_number = number is not None and number.isdigit()
    return pb.ModelSpec(
        name=model, version=pb.Version(value=int(number)) if number and is_number else None, signature_name=signature
    )


def _parameters(spec: pb.ModelSpec) -> Mapping[str, Json]:
    return {PARAMETER: spec.signature_name} if spec.signature_name else {}


def _info(put: SignatureTensor) -> tf.TensorInfo:
    dims = [tf.TensorShapeProto.Dim(size=length) for length in put.shape or ()]
    shape = tf.TensorShapeProto(dim=dims, unknown_rank=put.shape is None)
    return tf.TensorInfo(name=put.node, dtype=tensors.TYPES[put.datatype], tensor_shape=shape)
