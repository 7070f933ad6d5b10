"""TensorFlow Serving's words over a model with signatures, which here is numpy's."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from servery_http.client import Client
from servery_predictor.metrics import Metrics
from servery_predictor.server import Predictor
from servery_predictor.settings import Settings
from servery_sdk import plugins
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor
from servery_sdk.protos.tensorflow import framework_pb2 as tf
from servery_sdk.protos.tensorflow_serving import apis_pb2 as pb
from servery_sdk.protos.tensorflow_serving import apis_pb2_grpc as stubs
from servery_sdk.serving import InputError, LoadError
from servery_sdk.signatures import CLASSIFY, DEFAULT, REGRESS, Signature, SignatureTensor

M = "/v1/models/flowers"


def port(name: str, datatype: Datatype, shape: tuple[int, ...] | None) -> SignatureTensor:
    return SignatureTensor(name=name, node=f"{name}:0", datatype=datatype, shape=shape)


IMAGES = port("image_bytes", Datatype.BYTES, (-1,))
KEYS = port("key", Datatype.BYTES, (-1,))
EXAMPLES = port("inputs", Datatype.BYTES, (-1,))
SIGNATURES = {
    DEFAULT: Signature(inputs=(IMAGES, KEYS), outputs=(KEYS, port("size", Datatype.INT64, (-1,)))),
    "thumbnail": Signature(inputs=(IMAGES,), outputs=(port("small_bytes", Datatype.BYTES, (-1,)),)),
    "total": Signature(inputs=(port("x", Datatype.FP32, None),), outputs=(port("total", Datatype.FP32, ()),)),
    "classes": Signature(
        inputs=(EXAMPLES,),
        outputs=(port("classes", Datatype.BYTES, (-1, 2)), port("scores", Datatype.FP32, (-1, 2))),
        method=CLASSIFY,
    ),
    "value": Signature(inputs=(EXAMPLES,), outputs=(port("outputs", Datatype.FP32, (-1, 1)),), method=REGRESS),
}


class Flowers:
    """Sizes of files, their first bytes, sums, and what ``tf.Example`` messages say."""

    batchable = False

    def load(self, artifact: Path) -> None:
        if not artifact.is_dir():
            raise LoadError(f"{artifact}: no such directory")

    def metadata(self) -> ModelMetadata:
        return ModelMetadata(name="", platform="numpy", versions=("7",))

    def signatures(self) -> Mapping[str, Signature]:
        return SIGNATURES

    def predict(self, request: InferRequest) -> InferResponse:
        asked = request.parameters.get("signature_name", DEFAULT)
        if asked not in SIGNATURES:
            raise InputError(f"signature_name {asked!r}: has {', '.join(sorted(SIGNATURES))}")
        found = {tensor.name: tensor.data for tensor in request.inputs}
        data = next(iter(found.values()))
        match asked:
            case "thumbnail":
                outputs = {"small_bytes": np.array([file[:2] for file in data], dtype=object)}
            case "total":
                outputs = {"total": np.float32(data.sum())}
            case "classes":
                labels = [[name.encode() for name in sorted(tf.Example.FromString(e).features.feature)] for e in data]
                outputs = {"classes": np.array(labels, dtype=object), "scores": np.full((len(data), 2), 0.5, "f4")}
            case "value":
                features = [tf.Example.FromString(e).features.feature for e in data]
                sums = [f["a"].float_list.value[0] + f["n"].int64_list.value[0] for f in features]
                outputs = {"outputs": np.array(sums, dtype=np.float32)[:, None]}
            case _:
                outputs = {"key": found["key"], "size": np.array([len(file) for file in found["image_bytes"]])}
        tensors = [Tensor(name=n, data=np.asarray(d), datatype=Datatype.of(np.asarray(d))) for n, d in outputs.items()]
        return InferResponse(model=request.model, version="7", outputs=tuple(tensors))


BOTH_FRONTS = pytest.mark.parametrize("predictor", ["fast", "grpcio"], indirect=True)


@pytest.fixture
async def predictor(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Predictor]:
    runtime = replace(plugins.load().runtimes["servery-python"], model_class=f"{__name__}:Flowers")
    settings = Settings(
        runtime="python",
        model_name="flowers",
        model_dir=tmp_path,
        host="127.0.0.1",
        http_port=0,
        grpc_port=0,
        grpc_front=getattr(request, "param", "grpcio"),
    )
    predictor = Predictor(settings, runtime, Metrics(CollectorRegistry()))
    await predictor.start()
    yield predictor
    await predictor.stop()


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


ROWS = [{"image_bytes": b64(b"\xff\xd8\xff"), "key": "   1"}, {"image_bytes": b64(b"\x89P"), "key": "   2"}]
COLUMNS = {name: [row[name] for row in ROWS] for name in ("image_bytes", "key")}
PREDICTED = [{"key": "   1", "size": 3}, {"key": "   2", "size": 2}]


@pytest.mark.parametrize("path", [f"{M}:predict", f"{M}/versions/7:predict"])
async def test_rows_are_answered_by_rows_and_columns_by_columns(rest: Any, path: str) -> None:
    assert await rest(path, {"instances": ROWS}) == (200, {"predictions": PREDICTED})
    assert await rest(path, {"inputs": COLUMNS}) == (200, {"outputs": {"key": ["   1", "   2"], "size": [3, 2]}})


async def test_a_single_output_goes_without_its_name_and_bytes_as_base64(rest: Any) -> None:
    body = {"signature_name": "thumbnail", "instances": [b64(b"\xff\xd8\xff")]}
    assert await rest(f"{M}:predict", body) == (200, {"predictions": [b64(b"\xff\xd8")]})
    body = {"signature_name": "thumbnail", "inputs": {"image_bytes": [b64(b"\xff\xd8\xff")]}}
    assert await rest(f"{M}:predict", body) == (200, {"outputs": [b64(b"\xff\xd8")]})


async def test_values_without_axes_go_in_and_out_in_columns(rest: Any) -> None:
    for inputs in ({"x": 2.5}, 2.5, [1.0, 1.5], {"x": [[1.0], [1.5]]}):
        assert await rest(f"{M}:predict", {"signature_name": "total", "inputs": inputs}) == (200, {"outputs": 2.5})
    status, answer = await rest(f"{M}:predict", {"signature_name": "total", "instances": [1.0, 1.5]})
    assert (status, "outputs have no rows in common: {'total': []}" in answer["error"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (f"{M}/versions/8:predict", {"instances": ROWS}, 404, "has no version '8'"),
        ("/v1/models/q/versions/7:predict", {"instances": ROWS}, 404, "Model with name q does not exist"),
        (f"{M}:predict", {"instances": ROWS, "signature_name": "q"}, 400, "signature_name 'q': has classes, "),
        (f"{M}:predict", {"instances": ROWS, "signature_name": 3}, 400, '"signature_name" must be a string, found 3'),
        (f"{M}:predict", {"instances": ROWS, "inputs": COLUMNS}, 400, 'either "instances" or "inputs"'),
        (f"{M}:predict", {"inputs": {}}, 400, '"inputs" is empty'),
        (f"{M}:predict", {"inputs": {"x": None}}, 400, "input 'x'"),
        (f"{M}:predict", b"{", 400, "the body is not JSON"),
        (f"{M}:classify", {"examples": []}, 400, '"examples" must be a list of at least one object'),
        (f"{M}:classify", {"examples": [3]}, 400, "examples[0] must be an object of features"),
        (f"{M}:classify", {"examples": [{"a": [[1]]}]}, 400, "examples[0].a: a feature is a value or a flat list"),
        (f"{M}:classify", {"examples": [{}], "context": 3}, 400, '"context" must be an object'),
        (f"{M}:classify", {"examples": [{"n": 1, "a": 2.0}], "signature_name": "value"}, 400, "such a call needs 'cl"),
        (f"{M}:regress", {"examples": [{"n": 1, "a": 2.0}], "signature_name": "classes"}, 400, "needs 'outputs', [ex"),
    ],
)
async def test_what_is_wrong_is_said(rest: Any, path: str, body: Any, status: int, words: str) -> None:
    found, answer = await rest(path, body)
    assert (found, words in answer["error"]) == (status, True), answer


async def test_examples_are_classified_and_measured(rest: Any) -> None:
    body = {"signature_name": "classes", "context": {"a": "x"}, "examples": [{"b": [1, 2]}, {"a": [], "c": b64(b"y")}]}
    halves = [[["a", 0.5], ["b", 0.5]], [["a", 0.5], ["c", 0.5]]]
    assert await rest(f"{M}:classify", body) == (200, {"result": halves})
    body = {"signature_name": "value", "context": {"a": 0.5}, "examples": [{"n": 1}, {"n": [2]}]}
    assert await rest(f"{M}/versions/7:regress", body) == (200, {"result": [1.5, 2.5]})


async def test_a_models_state_is_told_beside_kserves_words(rest: Any) -> None:
    state = {"version": "7", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert await rest(M) == (200, {"name": "flowers", "ready": True, "model_version_status": [state]})
    assert await rest(f"{M}/versions/7") == (200, {"model_version_status": [state]})
    assert (await rest(f"{M}/versions/8"))[0] == 404


@pytest.mark.parametrize("path", [f"{M}/metadata", f"{M}/versions/7/metadata"])
async def test_signatures_are_told_in_tensorflows_own_form(rest: Any, path: str) -> None:
    status, answer = await rest(path)
    assert (status, answer["model_spec"]) == (200, {"name": "flowers", "signature_name": "", "version": "7"})
    told = answer["metadata"]["signature_def"]["signature_def"]
    assert sorted(told) == sorted(SIGNATURES)
    assert told["thumbnail"] == {
        "inputs": {
            "image_bytes": {
                "dtype": "DT_STRING",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                "name": "image_bytes:0",
            }
        },
        "outputs": {
            "small_bytes": {
                "dtype": "DT_STRING",
                "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False},
                "name": "small_bytes:0",
            }
        },
        "method_name": "tensorflow/serving/predict",
    }
    assert told["total"]["inputs"]["x"]["tensor_shape"] == {"dim": [], "unknown_rank": True}


@pytest.fixture
async def channel(predictor: Predictor) -> AsyncIterator[grpc.aio.Channel]:
    assert predictor.grpc is not None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{predictor.grpc.port}") as channel:
        yield channel


@pytest.fixture
def predictions(channel: grpc.aio.Channel) -> stubs.PredictionServiceStub:
    return stubs.PredictionServiceStub(channel)


def spec(signature: str = "", name: str = "flowers", version: int | None = None) -> pb.ModelSpec:
    number = None if version is None else pb.Version(value=version)
    return pb.ModelSpec(name=name, signature_name=signature, version=number)


def strings(*elements: bytes) -> tf.TensorProto:
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=len(elements))])
    return tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape, string_val=elements)


INPUTS = {"image_bytes": strings(b"\xff\xd8\xff", b"\x89P"), "key": strings(b"1", b"2")}


@BOTH_FRONTS
async def test_grpc_predicts(predictions: Any) -> None:
    answer = await predictions.Predict(pb.PredictRequest(model_spec=spec(version=7), inputs=INPUTS))
    assert answer.model_spec == spec("serving_default", version=7)
    assert answer.outputs["key"] == strings(b"1", b"2")
    assert list(answer.outputs["size"].int64_val) == [3, 2]


async def test_grpc_answers_what_the_filter_names(predictions: Any) -> None:
    answer = await predictions.Predict(pb.PredictRequest(model_spec=spec(), inputs=INPUTS, output_filter=["size"]))
    assert list(answer.outputs) == ["size"]


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (pb.PredictRequest(model_spec=spec(name="q"), inputs=INPUTS), "NOT_FOUND", "Model with name q does not exist"),
        (pb.PredictRequest(model_spec=spec(version=8), inputs=INPUTS), "NOT_FOUND", "no version '8'"),
        (pb.PredictRequest(model_spec=spec("q"), inputs=INPUTS), "INVALID_ARGUMENT", "signature_name 'q': has"),
        (pb.PredictRequest(model_spec=spec()), "INVALID_ARGUMENT", "the request has no inputs"),
        (
            pb.PredictRequest(model_spec=pb.ModelSpec(name="flowers", version_label="best"), inputs=INPUTS),
            "INVALID_ARGUMENT",
            "version label 'best'",
        ),
        (
            pb.PredictRequest(model_spec=spec(), inputs={"x": tf.TensorProto(dtype=tf.DT_FLOAT, float_val=[1, 2])}),
            "INVALID_ARGUMENT",
            r"input 'x': shape [] has 1 elements, float_val holds 2",
        ),
        (
            pb.PredictRequest(model_spec=spec(), inputs={"x": tf.TensorProto(float_val=[1])}),
            "INVALID_ARGUMENT",
            "input 'x': type 0 is not carried; one of DT_FLOAT, ",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_grpc_says_what_is_wrong(predictions: Any, asked: Any, code: str, words: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await predictions.Predict(asked)
    assert refused.value.code().name == code
    assert words in refused.value.details()


async def test_grpc_classifies_and_measures_examples(predictions: Any) -> None:
    def example(**features: float) -> tf.Example:
        made = tf.Example()
        for name, value in features.items():
            if isinstance(value, int):
                made.features.feature[name].int64_list.value.append(value)
            else:
                made.features.feature[name].float_list.value.append(value)
        return made

    listed = pb.Input(
        example_list_with_context=pb.ExampleListWithContext(
            examples=[example(n=1), example(n=2)], context=example(a=0.5)
        )
    )
    answer = await predictions.Regress(pb.RegressionRequest(model_spec=spec("value"), input=listed))
    assert [found.value for found in answer.result.regressions] == [1.5, 2.5]
    answer = await predictions.Classify(pb.ClassificationRequest(model_spec=spec("classes"), input=listed))
    assert [[one.label for one in found.classes] for found in answer.result.classifications] == [["a", "n"]] * 2
    for call, kind in ((predictions.Regress, pb.RegressionRequest), (predictions.Classify, pb.ClassificationRequest)):
        with pytest.raises(grpc.aio.AioRpcError, match="the request has no examples"):
            await call(kind(model_spec=spec("value")))


@BOTH_FRONTS
async def test_grpc_tells_signatures_and_state(predictions: Any, channel: grpc.aio.Channel) -> None:
    asked = pb.GetModelMetadataRequest(model_spec=spec(), metadata_field=["signature_def"])
    answer = await predictions.GetModelMetadata(asked)
    packed = answer.metadata["signature_def"]
    assert (answer.model_spec, packed.type_url) == (
        spec(version=7),
        "type.googleapis.com/tensorflow.serving.SignatureDefMap",
    )
    assert sorted(pb.SignatureDefMap.FromString(packed.value).signature_def) == sorted(SIGNATURES)
    with pytest.raises(grpc.aio.AioRpcError, match="metadata_field: found none"):
        await predictions.GetModelMetadata(pb.GetModelMetadataRequest(model_spec=spec()))
    models: Any = stubs.ModelServiceStub(channel)
    (state,) = (await models.GetModelStatus(pb.GetModelStatusRequest(model_spec=spec()))).model_version_status
    assert (state.version, state.state, state.status.error_code) == (7, pb.ModelVersionStatus.AVAILABLE, 0)


@BOTH_FRONTS
async def test_services_are_among_the_healthy(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    asked = health_pb2.HealthCheckRequest(service="tensorflow.serving.PredictionService")
    assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING


async def test_a_model_that_is_unloaded_is_not_available(
    predictor: Predictor, rest: Any, channel: grpc.aio.Channel
) -> None:
    await predictor.repository.unload("flowers")
    assert (await rest(f"{M}/versions/7:predict", {"instances": ROWS}))[0] == 503
    models: Any = stubs.ModelServiceStub(channel)
    (state,) = (await models.GetModelStatus(pb.GetModelStatusRequest(model_spec=spec()))).model_version_status
    assert state.state == pb.ModelVersionStatus.START


async def test_a_model_without_signatures_does_not_speak_tensorflow(start: Any, iris: Path, client: Client) -> None:
    other = await start(iris)
    answer = await client.request("POST", f"{other.http.url}/v1/models/iris:classify", body=b'{"examples": [{"a": 1}]}')
    assert (answer.status, b"has no signatures" in answer.body) == (501, True)
    answer = await client.request(
        "POST", f"{other.http.url}/v1/models/iris:predict", body=b'{"inputs": [[6.8, 2.8, 4.8, 1.4]]}'
    )
    assert answer.body == b'{"predictions":[1]}'
    assert other.grpc is not None
    async with grpc.aio.insecure_channel(f"127.0.0.1:{other.grpc.port}") as channel:
        predictions: Any = stubs.PredictionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await predictions.Predict(pb.PredictRequest(model_spec=spec(name="iris"), inputs=INPUTS))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
