"""``tf.train.Example``: what signatures that classify and regress take, and what they answer.

Source: tensorflow/core/example/example.proto; TensorFlow Serving, "RESTful API" (Classify and Regress), servables/
tensorflow/{classifier,regressor}.cc.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from servery_sdk.manifests import Json
from servery_sdk.protocol import elements, v1
from servery_sdk.protocol.datatypes import Datatype
from servery_sdk.protocol.errors import RequestError
from servery_sdk.protocol.tensors import InferRequest, InferResponse, Tensor
from servery_sdk.protos.tensorflow import framework_pb2 as pb

INPUT = "inputs"
CLASSES, SCORES, VALUES = "classes", "scores", "outputs"
"""The names that such signatures give to what they take and answer."""

_LISTS = {
    Datatype.INT64: "int64_list",
    Datatype.BOOL: "int64_list",
    Datatype.FP64: "float_list",
    Datatype.BYTES: "bytes_list",
}


def serialized(features: Mapping[str, Json], *, where: str) -> bytes:
    """Return the message of one example.

    Args:
        features: Each a value or a list: integers, numbers, or texts and ``{"b64": …}``.
        where: Of the example in its request, for messages.

    Raises:
        RequestError: A feature is none of these.
    """
    example = pb.Example()
    for name, value in features.items():
        tensor = v1.tensor(f"{where}.{name}", value if isinstance(value, list) else [value])
        field = _LISTS.get(tensor.datatype)
        if field is None or tensor.data.ndim != 1:
            raise RequestError(f"{where}.{name}: a feature is a value or a flat list; found {value!r:.80}")
        feature = example.features.feature[name]
        # Set, although it be empty.
        getattr(feature, field).SetInParent()
        getattr(feature, field).value.extend(tensor.data.tolist())
    return example.SerializeToString()


def request(
    messages: Sequence[bytes], *, model: str, version: str | None, parameters: Mapping[str, Json]
) -> InferRequest:
    """Return the request of serialized examples, a row each."""
    tensor = Tensor(name=INPUT, data=elements.objects(list(messages)), datatype=Datatype.BYTES)
    return InferRequest(model=model, version=version, inputs=(tensor,), parameters=parameters)


def classes(response: InferResponse) -> list[list[list[Json]]]:
    """Return ``[label, score]`` of each class of each example; a label that the model does not give is empty, a score 0.

    Raises:
        RequestError: The answer is not one of a classifier.
    """
    labels, scores = (_rows(response, name) for name in (CLASSES, SCORES))
    shapes = {found.data.shape for found in (labels, scores) if found is not None}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise _not(response, f"{CLASSES!r} or {SCORES!r}, [examples, classes]")
    count, width = shapes.pop()
    texts = elements.to_json(labels.data) if labels is not None else [[""] * width] * count
    numbers = scores.data.tolist() if scores is not None else [[0.0] * width] * count
    return [[[text, number] for text, number in zip(*row, strict=True)] for row in zip(texts, numbers, strict=True)]


def values(response: InferResponse) -> list[float]:
    """Return the number of each example.

    Raises:
        RequestError: The answer is not one of a regression.
    """
    found = _rows(response, VALUES)
    if found is None or found.data.shape not in {found.data.shape[:1], (*found.data.shape[:1], 1)}:
        raise _not(response, f"{VALUES!r}, [examples] or [examples, 1]")
    return [float(value) for value in found.data.ravel()]


def _rows(response: InferResponse, name: str) -> Tensor | None:
    return next((output for output in response.outputs if output.name == name), None)


def _not(response: InferResponse, wanted: str) -> RequestError:
    found = {output.name: list(output.data.shape) for output in response.outputs}
    return RequestError(f"the signature answers {found}; such a call needs {wanted}")
