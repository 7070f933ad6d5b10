"""Rows and columns, and the one file that holds a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servery_sdk import tabular
from servery_sdk.artifacts import model_file
from servery_sdk.protocol import Datatype, InferRequest, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.tabular import Features

NAMED = Features(owner="Model", names=("a", "b"), count=2)
BARE = Features(owner="Model", count=2)


def request(**inputs: Any) -> InferRequest:
    arrays = {name: np.asarray(data) for name, data in inputs.items()}
    return InferRequest(
        model="m",
        inputs=tuple(Tensor(name=name, data=data, datatype=Datatype.of(data)) for name, data in arrays.items()),
    )


def test_columns_come_in_the_order_of_fitting() -> None:
    assert list(NAMED.of(request(b=[2.0], a=[1.0]))) == ["a", "b"]


def test_columns_of_a_model_without_names_stay_as_they_were_sent() -> None:
    assert list(BARE.of(request(y=[2.0], x=[1.0]))) == ["y", "x"]


def test_a_column_may_have_a_second_axis_of_one() -> None:
    found = NAMED.of(request(a=[[1.0], [2.0]], b=[3.0, 4.0]))
    assert isinstance(found, dict)
    assert tabular.stacked(found).tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_one_matrix_holds_all_features() -> None:
    found = NAMED.of(request(x=[[1.0, 2.0]]))
    assert not isinstance(found, dict)
    assert found.tolist() == [[1.0, 2.0]]


def test_the_one_column_of_a_model_with_one_name_is_a_column() -> None:
    only = Features(owner="Model", names=("a",), count=1)
    assert list(only.of(request(a=[1.0, 2.0]))) == ["a"]
    with pytest.raises(InputError, match=r"input 'z' has shape \[2\]; Model takes \[rows, 1\]"):
        only.of(request(z=[1.0, 2.0]))


@pytest.mark.parametrize(
    ("features", "inputs", "words"),
    [
        (NAMED, {"x": [[1.0]]}, r"input 'x' has shape \[1, 1\]; Model takes \[rows, 2\]"),
        (NAMED, {"a": [1.0], "c": [1.0]}, r"inputs \['a', 'c'\] are not the features .*: \['a', 'b'\]"),
        (NAMED, {"a": [1.0], "b": [1.0, 2.0]}, "inputs differ in rows"),
        (NAMED, {"a": [[1.0, 2.0]], "b": [1.0]}, r"input 'a' has shape \[1, 2\]; one of several inputs is a column"),
        (BARE, {"a": [1.0], "b": [1.0], "c": [1.0]}, r"3 inputs \['a', 'b', 'c'\]; Model takes 2 columns"),
        (BARE, {"x": np.array([[b"\xff", b"a"]], dtype=object)}, "input 'x' holds bytes that are no UTF-8"),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_shape(features: Features, inputs: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        features.of(request(**inputs))


def test_codes_are_the_positions_of_categories() -> None:
    categories = {"x": 0, "y": 1}
    column = np.array(["y", "x", "z"], dtype=object)
    assert tabular.codes("c", column, categories, unknown=-1.0).tolist() == [1.0, 0.0, -1.0]
    with pytest.raises(InputError, match="input 'c': 'z' is no category that the model was fitted on: 'x', 'y'"):
        tabular.codes("c", column, categories, unknown=None)


def test_texts_in_an_answer_are_bytes() -> None:
    (output,) = tabular.answer(request(x=[1.0]), np.array(["ja", "nein"])).outputs
    assert (output.datatype, output.data.tolist()) == (Datatype.BYTES, [b"ja", b"nein"])


@pytest.mark.parametrize(
    ("files", "words"),
    [([], "found 0 of them among: nothing"), (["a.bst", "b.txt", "c"], "found 2 of them among: a.bst, b.txt, c")],
)
def test_a_directory_with_no_or_two_models_is_refused_with_what_is_there(
    files: list[str], words: str, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(LoadError, match=rf"exactly one file of \.bst, \.txt; {words}"):
        model_file(tmp_path, (".bst", ".txt"))
