"""A ``ModelInfer`` message of a form that came before says what it would have said alone; so does an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from drawn_requests import NAMES, assert_same, requests, tensors
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, RequestError, Tensor, batch, grpc
from servery_sdk.protocol.messages import Messages, encode_response
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb

FLOATS = st.sampled_from([Datatype.FP32, Datatype.FP64])
MEMBERS = {
    "a name": pb.ModelInferRequest(model_name="other"),
    "an id": pb.ModelInferRequest(id="7"),
    "an output": pb.ModelInferRequest(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="o")]),
    "an input": pb.ModelInferRequest(
        inputs=[pb.ModelInferRequest.InferInputTensor(name="y", datatype="FP32", shape=[0])]
    ),
    "a parameter": pb.ModelInferRequest(parameters={"p": pb.InferParameter(bool_param=True)}),
    "contents": pb.ModelInferRequest(raw_input_contents=[bytes(8)]),
}


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Mostly what a client writes: a request of one tensor; sometimes with members before or behind it."""
    request = draw(requests())
    if draw(st.booleans()):
        tensor = draw(tensors(draw(NAMES)))
        request = replace(request, inputs=(tensor,), parameters={})
    message = grpc.encode_request(request, raw=draw(st.booleans())).SerializeToString()
    for member in draw(st.lists(st.sampled_from(sorted(MEMBERS)), max_size=2)):
        more = MEMBERS[member].SerializeToString()
        message = more + message if draw(st.booleans()) else message + more
    return message


def outcome(decode: Callable[[bytes], tuple[InferRequest, bool]], message: bytes) -> tuple[InferRequest, bool] | str:
    try:
        return decode(message)
    except (RequestError, DecodeError) as error:
        return str(error)


def alone(message: bytes) -> tuple[InferRequest, bool]:
    parsed = pb.ModelInferRequest.FromString(message)
    return grpc.decode_request(parsed), bool(parsed.raw_input_contents)


def assert_equal(found: tuple[InferRequest, bool] | str, wanted: tuple[InferRequest, bool] | str) -> None:
    if isinstance(found, str) or isinstance(wanted, str):
        assert found == wanted
        return
    assert found[1] == wanted[1]
    assert_same(found[0].inputs, wanted[0].inputs)
    for attribute in ("model", "version", "id", "outputs", "parameters"):
        assert getattr(found[0], attribute) == getattr(wanted[0], attribute)
    assert batch.key(found[0]) == batch.key(wanted[0])
    for one, other in zip(found[0].inputs, wanted[0].inputs, strict=True):
        assert one.data.flags.writeable == other.data.flags.writeable


@given(st.lists(messages(), min_size=1, max_size=3), st.data())
def test_messages_of_known_forms_are_read_as_any_other(known: list[bytes], data: st.DataObject) -> None:
    decoder = Messages()
    for message in known * 3:
        assert_equal(outcome(decoder.decode, message), outcome(alone, message))
    for message in known:
        at = data.draw(st.integers(0, len(message)))
        piece = data.draw(st.binary(max_size=9))
        for other in (
            message[:at] + piece + message[at + len(piece) :],
            message[:at] + piece + message[at:],
            message[:at],
        ):
            assert_equal(outcome(decoder.decode, other), outcome(alone, other))


@given(FLOATS, st.booleans(), st.lists(st.floats(width=32), min_size=2, max_size=2), st.data())
def test_numbers_of_a_known_form_are_the_messages_own(
    datatype: Datatype, raw: bool, numbers: list[float], data: st.DataObject
) -> None:
    decoder = Messages()
    members = data.draw(st.lists(st.sampled_from(sorted(MEMBERS)), max_size=1))
    for values in ([1.5, 2.5], [1.5, 2.5], [3.5, 4.5], numbers):
        tensor = Tensor("x", np.array(values, datatype.dtype), datatype)
        message = grpc.encode_request(InferRequest("m", (tensor,)), raw=raw).SerializeToString()
        message += b"".join(MEMBERS[member].SerializeToString() for member in members)
        assert_equal(outcome(decoder.decode, message), outcome(alone, message))


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_what_stands_around_the_numbers_is_read_twice_and_no_more(raw: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, tensor = Messages(), Tensor("x", np.array([[1.5, 2.5]]), Datatype.FP64)
    message = grpc.encode_request(InferRequest("m", (tensor,), "1", "7", ("o",)), raw=raw).SerializeToString()
    decoder.decode(message)
    decoder.decode(message)
    wanted = alone(message)
    monkeypatch.setattr(grpc, "decode_request", None)
    assert_equal(decoder.decode(message), wanted)


def test_forms_of_messages_that_have_ids_of_their_own_are_not_kept() -> None:
    decoder, tensor = Messages(), Tensor("x", np.array([1.5]), Datatype.FP64)
    for number in range(1000):
        message = grpc.encode_request(InferRequest("m", (tensor,), None, str(number))).SerializeToString()
        assert decoder.decode(message)[0].id == str(number)
    assert not decoder._by_size
    assert len(decoder._seen) <= 64


@given(requests(), st.data())
def test_answer_is_written_as_any_other(request: InferRequest, data: st.DataObject) -> None:
    alone = (replace(request.inputs[0], name=data.draw(NAMES)),)
    response = InferResponse(
        data.draw(NAMES),
        data.draw(st.sampled_from([alone, request.inputs])),
        data.draw(st.none() | NAMES),
        data.draw(st.none() | st.just("7")),
    )
    for raw in (True, False):
        assert encode_response(response, raw=raw) == grpc.encode_response(response, raw=raw).SerializeToString()


@pytest.mark.parametrize("rows", [1, 99, 200], ids=["short", "just-short", "long"])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_answer_of_any_length_is_written_as_any_other(rows: int, raw: bool) -> None:
    response = InferResponse("m", (Tensor("o", np.arange(rows), Datatype.INT64),))
    assert encode_response(response, raw=raw) == grpc.encode_response(response, raw=raw).SerializeToString()


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_text_that_has_the_bytes_of_the_numbers_is_not_taken_for_them(raw: bool) -> None:
    decoder = Messages()
    numbers = Tensor("x", np.frombuffer(b"aaaaaaaa", "<f8"), Datatype.FP64)
    for number in ("aaaaaaaa", "aaaaaaaa", "bbbbbbbb"):
        message = grpc.encode_request(InferRequest("m", (numbers,), None, number), raw=raw).SerializeToString()
        assert_equal(decoder.decode(message), alone(message))
