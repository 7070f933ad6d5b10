"""Codecs invert, split undoes merge, and no bytes make a decoder raise anything but a RequestError."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_requests import NAMES, SHAPES, assert_same, requests, tensors
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, RequestError, Tensor, batch, grpc, v1, v2


@given(requests(finite=True, json=True))
def test_v2_json_decodes_what_it_encodes(request: InferRequest) -> None:
    encoded = v2.encode_request(request)
    decoded = v2.decode_request(encoded.body, model="m", json_length=encoded.json_length)
    assert_same(decoded.inputs, request.inputs)
    assert (decoded.id, decoded.parameters) == (request.id, request.parameters)


@given(requests())
def test_v2_binary_decodes_what_it_encodes(request: InferRequest) -> None:
    encoded = v2.encode_request(request, binary=True)
    decoded = v2.decode_request(encoded.body, model="m", json_length=encoded.json_length)
    assert_same(decoded.inputs, request.inputs)


@given(requests())
def test_v2_answers_in_bytes_when_asked(request: InferRequest) -> None:
    response = InferResponse(model="m", outputs=request.inputs)
    encoded = v2.encode_response(response, replace(request, parameters={v2.BINARY_OUTPUTS: True}))
    assert_same(v2.decode_response(encoded.body, json_length=encoded.json_length).outputs, request.inputs)


@pytest.mark.parametrize("binary", [True, False], ids=["bytes", "json"])
@given(request=requests(finite=True, json=True))
def test_v2_answer_of_one_output_is_written_as_any_other(request: InferRequest, binary: bool) -> None:
    asked = replace(request, parameters={v2.BINARY_OUTPUTS: True} if binary else {})
    alone = InferResponse(model="m", outputs=request.inputs[:1])
    (one, one_json), (other, other_json) = [
        v2.encode_response(answer, asked) for answer in (alone, replace(alone, id="one"))
    ]
    said = json.loads(other[:other_json])
    assert said.pop("id") == "one"
    assert json.loads(one[:one_json]) == said
    assert (one_json is None) == (other_json is None)
    if one_json is not None:
        assert one[one_json:] == other[other_json:]


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@given(request=requests())
def test_grpc_decodes_what_it_encodes(request: InferRequest, raw: bool) -> None:
    decoded = grpc.decode_request(grpc.encode_request(request, raw=raw))
    assert_same(decoded.inputs, request.inputs)
    assert (decoded.id, decoded.parameters) == (request.id, request.parameters)
    response = grpc.decode_response(grpc.encode_response(InferResponse(model="m", outputs=request.inputs), raw=raw))
    assert_same(response.outputs, request.inputs)


@given(npst.arrays("<f8", SHAPES, elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_v1_predictions_are_the_instances_of_an_echo(data: np.ndarray[Any, Any]) -> None:
    response = InferResponse(model="m", outputs=(Tensor(name="o", data=data, datatype=Datatype.FP64),))
    body = v1.encode_response(response).replace(b'"predictions"', b'"instances"')
    assert np.array_equal(v1.decode_request(body, model="m").inputs[0].data, data)


@pytest.mark.parametrize("letter", ["l", "q"], ids=["long", "long-long"])
def test_v1_rows_hold_either_of_numpys_types_of_eight_byte_integers(letter: str) -> None:
    data = np.array([1, 2], dtype=letter)
    outputs = tuple(Tensor(name=name, data=data, datatype=Datatype.of(data)) for name in "ab")
    rows = json.loads(v1.encode_response(InferResponse(model="m", outputs=outputs)))
    assert rows == {"predictions": [{"a": 1, "b": 1}, {"a": 2, "b": 2}]}


def test_v1_names_an_only_output_in_every_row_where_the_model_asks_for_it() -> None:
    outputs = (Tensor(name="y", data=np.array([1.5, 2.5]), datatype=Datatype.FP64),)
    merged = InferResponse(model="m", outputs=outputs, rows_are_objects=True)
    assert json.loads(v1.encode_response(merged)) == {"predictions": [{"y": 1.5}, {"y": 2.5}]}
    bodies = [json.loads(v1.encode_response(part)) for part in batch.split(merged, (0, 1, 2))]
    assert bodies == [{"predictions": [{"y": 1.5}]}, {"predictions": [{"y": 2.5}]}]


@given(st.data())
def test_split_undoes_merge(data: st.DataObject) -> None:
    one = data.draw(requests())
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    many = [
        replace(one, id=str(index), inputs=tuple(replace(t, data=t.data[:1].repeat(rows, axis=0)) for t in one.inputs))
        for index, rows in enumerate(lengths)
    ]
    merged = batch.merge(many, max_batch_rows=99)
    assert merged.offsets[-1] == sum(lengths)
    parts = batch.split(InferResponse(model="m", outputs=merged.request.inputs), merged.offsets)
    for part, request in zip(parts, many, strict=True):
        assert_same(part.outputs, request.inputs)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "instances",
                    "inputs",
                    "outputs",
                    "name",
                    "shape",
                    "datatype",
                    "data",
                    "parameters",
                    "b64",
                    "id",
                    "binary_data_size",
                    "binary_data",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("decode", [v1.decode_request, v2.decode_request], ids=["v1", "v2"])
@given(document=JSON, garbage=st.none() | st.binary(max_size=20))
def test_decoder_raises_nothing_but_a_request_error(
    decode: Callable[..., InferRequest], document: Any, garbage: bytes | None
) -> None:
    body = json.dumps(document).encode() if garbage is None else garbage
    with contextlib.suppress(RequestError):
        assert decode(body, model="m").inputs


V2_TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from("ab"),
        "shape": st.lists(st.integers(-1, 3) | st.just(2**62), max_size=3),
        "datatype": st.sampled_from([*Datatype, "FP8", 3]),
    },
    optional={"data": JSON, "parameters": st.fixed_dictionaries({"binary_data_size": st.integers(-1, 30)})},
)


@given(st.lists(V2_TENSOR, max_size=2), st.binary(max_size=30))
def test_v2_tensors_that_contradict_themselves_are_a_request_error(inputs: list[Any], raw: bytes) -> None:
    text = json.dumps({"inputs": inputs}).encode()
    with contextlib.suppress(RequestError):
        decoded = v2.decode_request(text + raw, model="m", json_length=len(text))
        assert all(
            list(tensor.data.shape) == given["shape"] for tensor, given in zip(decoded.inputs, inputs, strict=True)
        )


@given(st.data())
def test_v2_answer_of_one_output_is_what_it_would_be_among_others(data: st.DataObject) -> None:
    request = data.draw(requests())
    output = data.draw(tensors(data.draw(NAMES)))
    version, binary = data.draw(st.none() | NAMES), data.draw(st.booleans())
    asked = replace(request, parameters={v2.BINARY_OUTPUTS: binary})
    alone = v2.encode_response(InferResponse("m", (output,), version), asked)
    # With a second output it is written as a whole, tensor by tensor.
    other = Tensor("other" + output.name, np.zeros(1), Datatype.FP64)
    both = v2.encode_response(
        InferResponse("m", (output, other), version),
        replace(asked, parameters={v2.BINARY_OUTPUT: {output.name: binary}}),
    )
    wanted = json.loads(both.body[: both.json_length])
    del wanted["outputs"][1]
    assert list(json.loads(alone.body[: alone.json_length])["outputs"][0]) == list(wanted["outputs"][0])
    assert json.loads(alone.body[: alone.json_length]) == wanted
    assert (alone.json_length is None) == (both.json_length is None)
    if both.json_length is not None:
        assert alone.body[alone.json_length :] == both.body[both.json_length :]
