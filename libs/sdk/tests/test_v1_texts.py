"""Texts in v1 bodies, which are told by the first of them."""

from __future__ import annotations

import json

import pytest
from servery_sdk.protocol import Datatype, RequestError, v1


def decoded(instances: list[object]) -> object:
    (tensor,) = v1.decode_request(json.dumps({"instances": instances}).encode(), model="m").inputs
    assert tensor.datatype is Datatype.BYTES
    return tensor.data.tolist()


def test_texts_and_base64_are_bytes_of_one_input() -> None:
    assert decoded(["é", "", {"b64": "AP8="}]) == ["é".encode(), b"", b"\x00\xff"]


def test_rows_of_texts_keep_their_shape() -> None:
    assert decoded([["a", "b"], ["c", "d"]]) == [[b"a", b"b"], [b"c", b"d"]]


@pytest.mark.parametrize(
    "other", [1, None, True, ["b"], {"c": "d"}], ids=["number", "null", "boolean", "list", "object"]
)
def test_what_is_no_text_is_refused_among_texts(other: object) -> None:
    with pytest.raises(RequestError, match=f"input 'input-0': .* found {type(other).__name__} among them"):
        decoded(["a", other])
