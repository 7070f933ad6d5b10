from __future__ import annotations

import json
from typing import Any

import pytest
from servery_sdk.protocol import Datatype, InferRequest, RequestError, v1

TABLE = {"a": (Datatype.FP64, [1.5, 2.0]), "b": (Datatype.BYTES, [b"x", b"y"])}


def decoded(body: Any) -> InferRequest:
    return v1.decode_request(json.dumps(body).encode(), model="m")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"dataframe_split": {"columns": ["a", "b"], "data": [[1.5, "x"], [2, "y"]]}}, id="split"),
        pytest.param(
            {"dataframe_split": {"index": [7, 8], "columns": ["a", "b"], "data": [[1.5, "x"], [2.0, "y"]]}}, id="index"
        ),
        pytest.param({"dataframe_records": [{"a": 1.5, "b": "x"}, {"b": "y", "a": 2.0}]}, id="records"),
    ],
)
def test_mlflows_tables_become_a_tensor_per_column(body: Any) -> None:
    request = decoded(body)
    assert {tensor.name: (tensor.datatype, tensor.data.tolist()) for tensor in request.inputs} == TABLE
    assert request.parameters == {"content_type": "pd"}


def test_mlflows_params_are_parameters() -> None:
    body = {"dataframe_records": [{"a": 1}], "params": {"top": 3}}
    assert decoded(body).parameters == {"content_type": "pd", "top": 3}
    assert decoded({"instances": [1], "params": {"top": 3}}).parameters == {"top": 3}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"dataframe_split": [[1]]}, '"dataframe_split" must be an object with "columns"'),
        ({"dataframe_split": {"data": [[1]]}}, '"dataframe_split" must be an object with "columns"'),
        ({"dataframe_split": {"columns": ["a"], "data": []}}, '"dataframe_split" must be an object with "columns"'),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "names a column twice: a, a"),
        (
            {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3]]}},
            r"data\[1\] must have an element for each column: a, b",
        ),
        ({"dataframe_records": []}, '"dataframe_records" is empty'),
        ({"dataframe_records": {}}, '"dataframe_records" must be a list'),
        (
            {"dataframe_records": [{"a": 1}, {"b": 1}]},
            r"dataframe_records\[1\] must have the keys of dataframe_records\[0\]: a",
        ),
        ({"instances": [1], "inputs": [1]}, 'a v1 request has either "instances" or "inputs"'),
    ],
)
def test_what_is_no_table_is_refused_where_it_is_wrong(body: Any, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        decoded(body)
