"""The module that models import: Triton's names, types and errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from servery_runtime_triton.model import triton_python_backend_utils as pb_utils
from servery_sdk.errors import ErrorCode
from tritonclient import utils as theirs


@pytest.mark.parametrize("name", ["BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64"])
def test_types_are_those_of_tritons_client(name: str) -> None:
    number = pb_utils.numpy_to_triton_type(theirs.triton_to_np_dtype(name))
    assert pb_utils.triton_to_numpy_type(number) is pb_utils.triton_string_to_numpy(f"TYPE_{name}")
    assert np.dtype(pb_utils.triton_to_numpy_type(number)) == np.dtype(theirs.triton_to_np_dtype(name))


def test_texts_are_objects_and_unknown_types_nothing() -> None:
    assert pb_utils.triton_string_to_numpy("TYPE_STRING") is np.object_
    assert pb_utils.triton_string_to_numpy("TYPE_TEXT") is pb_utils.triton_to_numpy_type(0) is None
    assert pb_utils.Tensor("t", np.array(["ä", "b"])).as_numpy().tolist() == ["ä".encode(), b"b"]


def test_texts_are_serialized_as_tritons_client_does() -> None:
    texts = np.array([b"one", b"", b"three"], dtype=object)
    assert pb_utils.serialize_byte_tensor(texts).item() == theirs.serialize_byte_tensor(texts).item()
    raw = pb_utils.serialize_byte_tensor(texts).item()
    assert pb_utils.deserialize_bytes_tensor(raw).tolist() == texts.tolist()


@pytest.mark.parametrize(
    "hand_over", [lambda tensor: tensor, lambda tensor: tensor.to_dlpack()], ids=["object", "capsule"]
)
def test_memory_is_shared_through_dlpack(hand_over: Any) -> None:
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensor = pb_utils.Tensor.from_dlpack("other", hand_over(pb_utils.Tensor("one", data)))
    assert (tensor.name(), tensor.shape(), tensor.is_cpu()) == ("other", [2, 3], True)
    data[0, 0] = 7
    assert tensor.as_numpy()[0, 0] == 7


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        (pb_utils.TritonError.INVALID_ARG, ErrorCode.INVALID_ARGUMENT),
        (pb_utils.TritonError.NOT_FOUND, ErrorCode.NOT_FOUND),
        (pb_utils.TritonError.UNAVAILABLE, ErrorCode.UNAVAILABLE),
        (pb_utils.TritonError.INTERNAL, ErrorCode.INTERNAL),
        (pb_utils.TritonError.UNKNOWN, ErrorCode.INTERNAL),
    ],
)
def test_codes_of_errors_are_the_servers(code: int, wanted: ErrorCode) -> None:
    error = pb_utils.failure(pb_utils.TritonError("words", code))
    assert (str(error), error.code) == ("words", wanted)


def test_a_response_sender_ends_with_its_flag() -> None:
    sender = pb_utils.ResponseSender()
    with pytest.raises(pb_utils.TritonModelException, match="send takes a response, or flags"):
        sender.send()
    response = pb_utils.InferenceResponse([])
    sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
    assert sender.finished() == [response]
    with pytest.raises(pb_utils.TritonModelException, match="after the one flagged"):
        sender.send(response)


def test_a_completed_configuration_may_not_contradict_the_file() -> None:
    config = pb_utils.ModelConfig(pb_utils.pb.ModelConfig(max_batch_size=2))
    config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [3]})
    config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [3]})
    config.set_max_batch_size(9)
    assert (len(config.as_dict()["input"]), config.as_dict()["max_batch_size"]) == (1, 2)
    with pytest.raises(ValueError, match=r"x: config\.pbtxt says otherwise"):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [4]})
    with pytest.raises(ValueError, match="has no data_type, dims"):
        config.add_output({"name": "y"})
    config.set_model_transaction_policy({"decoupled": True})
    assert pb_utils.using_decoupled_model_transaction_policy(config.as_dict())


def test_names_that_are_not_here_say_who_serves() -> None:
    with pytest.raises(AttributeError, match="MetricFamily is Triton's, and not here"):
        pb_utils.MetricFamily  # noqa: B018  # the name itself is what is asked for
