"""A body of a form that came before says what it would have said alone: the same request, or the same error."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from drawn_requests import assert_same, requests
from hypothesis import given
from hypothesis import strategies as st
from servery_sdk.protocol import InferRequest, RequestError, batch, v2
from servery_sdk.protocol.forms import Forms

DATATYPES = st.sampled_from(["FP64", "FP32", "INT64", "UINT8", "BOOL", "BYTES"])
NUMBERS = st.integers(-2, 300) | st.integers(2**62, 2**65) | st.floats(-4, 4) | st.booleans()
VALUES = st.recursive(NUMBERS | st.sampled_from([None, "a", '"data":', "]"]), lambda inner: st.lists(inner, max_size=3))
LISTS = st.sampled_from([[1, 2], [1.5, 2], [[1], [2]], [[0.5], [1]], [], [[]]]) | st.lists(
    NUMBERS, min_size=2, max_size=2
)
NOT_JSON = st.sampled_from(["", "[1,2", "1]", "[1,2],", "[1,2]}", '[1],"data":[2]', "[1 2]", "NaN", "[1,2]//"])
NAMES = st.sampled_from(["x", "data", '"data":', '"data":[1]', "]}"])
SPACES = st.sampled_from(["", " ", "\n\t"])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Bodies of one tensor, with ``<data>`` where its numbers stand: members in any order, some twice, some strange."""
    space = draw(SPACES)
    shape = draw(st.sampled_from([[2], [2, 1], [1, 2], [0], []]))
    tensor = [("name", draw(NAMES)), ("shape", shape), ("datatype", draw(DATATYPES))]
    tensor += draw(
        st.lists(st.sampled_from([("data", [1, 2]), ("parameters", {"data": 1}), ("more", "[")]), max_size=2)
    )
    members = [f'"{key}":{space}{json.dumps(value)}' for key, value in tensor]
    members.insert(draw(st.integers(0, len(members))), f'"data":{space}<data>{space}')
    inputs = [f"{{{', '.join(draw(st.permutations(members)))}}}"]
    inputs += draw(st.sampled_from([[], [], ['{"name":"y","shape":[1],"datatype":"FP64","data":[1]}']]))
    outer = [f'"inputs":{space}[{",".join(inputs)}]']
    more = [
        '"id":"7"',
        '"parameters":{"data":[1]}',
        '"outputs":[{"name":"o","parameters":{"binary_data":true}}]',
        '"data":[2]',
    ]
    outer += draw(st.lists(st.sampled_from(more), unique=True, max_size=3))
    return f"{space}{{{','.join(draw(st.permutations(outer)))}}}{space}"


def outcome(decode: Callable[..., InferRequest], *arguments: Any, **options: Any) -> InferRequest | str:
    try:
        return decode(*arguments, **options)
    except RequestError as error:
        return str(error)


def assert_equal(found: InferRequest | str, wanted: InferRequest | str) -> None:
    if isinstance(found, str) or isinstance(wanted, str):
        assert found == wanted
        return
    assert_same(found.inputs, wanted.inputs)
    for attribute in ("model", "version", "id", "outputs", "parameters"):
        assert getattr(found, attribute) == getattr(wanted, attribute)
    assert batch.key(found) == batch.key(wanted)


@given(
    texts(),
    st.lists(LISTS | VALUES, max_size=2),
    st.lists(LISTS.map(json.dumps) | VALUES.map(json.dumps) | NOT_JSON, min_size=1),
)
def test_json_of_a_known_form_is_read_as_any_other(text: str, before: list[Any], data: list[str]) -> None:
    forms = Forms(model="m", version="1")
    for one in [*(json.dumps(value) for value in before), *["[1, 2]", "[[1], [2]]", "[[1, 2]]"] * 3, *data]:
        body = text.replace("<data>", one).encode()
        assert_equal(outcome(forms.decode, body), outcome(v2.decode_request, body, model="m", version="1"))


@given(requests(), st.binary(max_size=80), st.integers(0, 400), st.booleans())
def test_bytes_of_a_known_form_are_read_as_any_other(request: InferRequest, raw: bytes, length: int, cut: bool) -> None:
    forms = Forms(model="m")
    body, json_length = v2.encode_request(request, binary=True)
    assert json_length is not None
    behind = len(body) - json_length
    others = [body[:json_length] + (raw * (behind + 1))[: behind if cut else None] if raw else body, body + raw]
    cases = [(body, json_length)] * 3 + [(other, json_length) for other in others]
    for one, size in [*cases, (body, length), (body[:length], json_length), (body, None), (body[:json_length], None)]:
        wanted = outcome(v2.decode_request, one, model="m", json_length=size)
        assert_equal(outcome(forms.decode, one, size), wanted)


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_what_stands_around_the_numbers_is_read_twice_and_no_more(
    binary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = {"name": "x", "shape": [2], "datatype": "FP64"}
    head = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 16}}]})
    body = head + bytes(16) if binary else orjson.dumps({"inputs": [{**tensor, "data": [0, 1.5]}], "id": "7"})
    forms, length = Forms(model="m"), len(head) if binary else None
    first = forms.decode(body, length)
    forms.decode(body, length)
    monkeypatch.setattr(v2, "decode_request", None)
    found = forms.decode(body, length)
    assert_equal(found, first)
    assert found.parameters is not forms.decode(body, length).parameters


def test_forms_of_requests_that_have_ids_of_their_own_are_not_kept() -> None:
    forms = Forms(model="m")
    for number in range(1000):
        body = b'{"id":"%d","inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[%d]}]}' % (number, number)
        assert forms.decode(body).inputs[0].data.tolist() == [number]
    assert len(forms._known) <= 64
