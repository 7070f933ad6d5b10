from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from servery_runtime_xgboost.model import XGBoostModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract

ROWS = np.array([[0.0, 1.0], [3.0, 1.0]], dtype=np.float32)
FRAMEWORK = ("xgboost",)


def request(**inputs: Any) -> InferRequest:
    arrays = {name: np.asarray(data) for name, data in inputs.items()}
    return InferRequest(
        model="m",
        inputs=tuple(Tensor(name=name, data=data, datatype=Datatype.of(data)) for name, data in arrays.items()),
    )


def response(data: Any) -> InferResponse:
    array = np.asarray(data, dtype=np.float32)
    return InferResponse(model="m", outputs=(Tensor(name="output-0", data=array, datatype=Datatype.FP32),))


def texts(*elements: str) -> Any:
    return np.array([element.encode() for element in elements], dtype=object)


def step(low: float, high: float, **more: Any) -> xgboost.Booster:
    """Return a booster that answers ``low`` where the first feature is 0 and ``high`` where it is 3."""
    parameters = {"max_depth": 1, "eta": 1.0, "lambda": 0, "base_score": 0.0, "nthread": 1, **more}
    return xgboost.train(parameters, xgboost.DMatrix(ROWS, [low, high]), 1)


def served(directory: Path) -> XGBoostModel:
    model = XGBoostModel()
    model.load(directory)
    return model


class TestXGBoost(RuntimeContract):
    plugin = "servery_runtime_xgboost.plugin"
    framework = FRAMEWORK
    good_request = request(**{"input-0": ROWS})
    good_response = response([2.0, 7.0])
    wrong_request = request(**{"input-0": np.zeros((1, 3), dtype=np.float32)})

    def write_model(self, directory: Path) -> None:
        step(2.0, 7.0).save_model(directory / "model.ubj")

    def write_other_model(self, directory: Path) -> None:
        step(7.0, 2.0).save_model(directory / "model.json")


def flats() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rooms": [1.0, 1.0, 2.0, 2.0],
            "town": pd.Categorical(["a", "b", "a", "c"]),
            "floor": pd.Categorical([5, 7, 7, 5]),
        }
    )


def rents(*values: float) -> xgboost.Booster:
    data = xgboost.DMatrix(flats(), values, enable_categorical=True)
    return xgboost.train(
        {"max_depth": 3, "eta": 1.0, "lambda": 0, "base_score": 0.0, "nthread": 1, "min_child_weight": 0}, data, 1
    )


class TestCategories(RuntimeContract):
    """Columns by name; the categories are texts and integers of the table that the model was fitted on."""

    plugin = "servery_runtime_xgboost.plugin"
    framework = FRAMEWORK
    good_request = request(rooms=np.array([2.0, 1.0], dtype=np.float32), town=texts("c", "a"), floor=[5, 5])
    good_response = response([4.0, 1.0])
    wrong_request = request(rooms=np.ones((2, 2), dtype=np.float32), town=texts("c", "a"), floor=[5, 5])

    def write_model(self, directory: Path) -> None:
        rents(1.0, 2.0, 3.0, 4.0).save_model(directory / "model.ubj")

    def write_other_model(self, directory: Path) -> None:
        rents(4.0, 3.0, 2.0, 1.0).save_model(directory / "model.ubj")


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_a_bst_file_may_hold_either_form(form: str, tmp_path: Path) -> None:
    (tmp_path / "model.bst").write_bytes(step(2.0, 7.0).save_raw(form))
    assert served(tmp_path).predict(request(x=ROWS)).outputs[0].data.tolist() == [2.0, 7.0]


def test_a_linear_booster_answers_as_a_booster_of_trees_does(tmp_path: Path) -> None:
    booster = step(2.0, 7.0, booster="gblinear", max_depth=None)
    booster.save_model(tmp_path / "model.ubj")
    found = served(tmp_path).predict(request(x=ROWS)).outputs[0].data
    assert found.tolist() == booster.predict(xgboost.DMatrix(ROWS)).tolist()


def test_classes_are_the_second_axis_of_the_metadata_and_of_the_answer(tmp_path: Path) -> None:
    parameters = {"objective": "multi:softprob", "num_class": 3, "nthread": 1}
    xgboost.train(parameters, xgboost.DMatrix(ROWS, [0, 2]), 1).save_model(tmp_path / "model.ubj")
    model = served(tmp_path)
    assert model.metadata().outputs[0].shape == (-1, 3)
    assert model.predict(request(x=ROWS)).outputs[0].data.shape == (2, 3)


def test_a_category_that_was_not_fitted_is_refused_with_those_that_were(tmp_path: Path) -> None:
    rents(1.0, 2.0, 3.0, 4.0).save_model(tmp_path / "model.ubj")
    with pytest.raises(InputError, match=r"input 'town': 'z' is no category .*: 'a', 'b', 'c'"):
        served(tmp_path).predict(request(rooms=[1.0], town=texts("z"), floor=[5]))


def test_texts_where_numbers_belong_are_refused_by_name(tmp_path: Path) -> None:
    rents(1.0, 2.0, 3.0, 4.0).save_model(tmp_path / "model.ubj")
    with pytest.raises(InputError, match=r"input 'rooms' of shape \[1\] holds texts"):
        served(tmp_path).predict(request(rooms=texts("two"), town=texts("a"), floor=[5]))


def test_a_matrix_holds_the_codes_of_categories(tmp_path: Path) -> None:
    rents(1.0, 2.0, 3.0, 4.0).save_model(tmp_path / "model.ubj")
    assert served(tmp_path).predict(request(x=[[2.0, 2.0, 0.0]])).outputs[0].data.tolist() == [4.0]


def test_a_file_that_is_cut_off_is_refused_and_the_process_lives(tmp_path: Path) -> None:
    whole = step(2.0, 7.0).save_raw("ubj")
    for length in range(0, len(whole), 37):
        (tmp_path / "model.ubj").write_bytes(whole[:length])
        with pytest.raises(LoadError, match=r"model\.ubj: cannot be read by XGBoost"):
            served(tmp_path)


def test_the_old_binary_form_is_named_with_what_reads_it(tmp_path: Path) -> None:
    (tmp_path / "model.bst").write_bytes(b"binf" + bytes(400))
    with pytest.raises(LoadError, match=r"is read by XGBoost 3\.0 and older"):
        served(tmp_path)
