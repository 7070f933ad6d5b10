from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from servery_runtime_lightgbm.model import LightGBMModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract

ROWS = np.array([[0.0, 1.0], [3.0, 1.0]])
FRAMEWORK = ("lightgbm",)
PARAMETERS = {
    "verbosity": -1,
    "num_threads": 1,
    "learning_rate": 1.0,
    "min_data_in_leaf": 1,
    "min_data_per_group": 1,
    "min_sum_hessian_in_leaf": 0.0,
    "cat_smooth": 0.0,
    "cat_l2": 0.0,
    "boost_from_average": False,
}


def request(**inputs: Any) -> InferRequest:
    arrays = {name: np.asarray(data) for name, data in inputs.items()}
    return InferRequest(
        model="m",
        inputs=tuple(Tensor(name=name, data=data, datatype=Datatype.of(data)) for name, data in arrays.items()),
    )


def response(data: Any) -> InferResponse:
    array = np.asarray(data, dtype=np.float64)
    return InferResponse(model="m", outputs=(Tensor(name="output-0", data=array, datatype=Datatype.FP64),))


def texts(*elements: str) -> Any:
    return np.array([element.encode() for element in elements], dtype=object)


def step(low: float, high: float, rounds: int = 1) -> lightgbm.Booster:
    """Return a booster that answers ``low`` where the first feature is 0 and ``high`` where it is 3."""
    data = lightgbm.Dataset(np.repeat(ROWS, 10, axis=0), np.repeat([low, high], 10))
    return lightgbm.train(PARAMETERS, data, rounds)


def served(directory: Path) -> LightGBMModel:
    model = LightGBMModel()
    model.load(directory)
    return model


class TestLightGBM(RuntimeContract):
    plugin = "servery_runtime_lightgbm.plugin"
    framework = FRAMEWORK
    good_request = request(**{"input-0": ROWS})
    good_response = response([2.0, 7.0])
    wrong_request = request(**{"input-0": np.zeros((1, 3))})

    def write_model(self, directory: Path) -> None:
        step(2.0, 7.0).save_model(directory / "model.bst")

    def write_other_model(self, directory: Path) -> None:
        step(7.0, 2.0).save_model(directory / "model.txt")


def rents(*of_towns: float) -> lightgbm.Booster:
    """Return a booster of flats whose rent depends on the town and, by ten times the rooms, on these."""
    table = pd.DataFrame(
        {
            "rooms": np.tile([1.0, 2.0], 30),
            "town": pd.Categorical(np.repeat(["a", "b", "c"], 20)),
            "floor": pd.Categorical(np.tile([5, 7], 30)),
        }
    )
    rent = np.repeat(of_towns, 20) + 10 * table["rooms"]
    return lightgbm.train(PARAMETERS, lightgbm.Dataset(table, rent), 1)


class TestCategories(RuntimeContract):
    """Columns by name; the categories are texts and integers of the table that the model was fitted on."""

    plugin = "servery_runtime_lightgbm.plugin"
    framework = FRAMEWORK
    good_request = request(rooms=[2.0, 1.0], town=texts("c", "a"), floor=[5, 5])
    good_response = response([23.0, 11.0])
    wrong_request = request(rooms=np.ones((2, 2)), town=texts("c", "a"), floor=[5, 5])

    def write_model(self, directory: Path) -> None:
        rents(1.0, 2.0, 3.0).save_model(directory / "model.txt")

    def write_other_model(self, directory: Path) -> None:
        rents(3.0, 2.0, 1.0).save_model(directory / "model.txt")


def test_classes_are_the_second_axis_of_the_metadata_and_of_the_answer(tmp_path: Path) -> None:
    parameters = {**PARAMETERS, "objective": "multiclass", "num_class": 3}
    data = lightgbm.Dataset(np.repeat(ROWS, 15, axis=0), np.repeat([0, 1, 2], 10))
    lightgbm.train(parameters, data, 2).save_model(tmp_path / "model.txt")
    model = served(tmp_path)
    assert model.metadata().outputs[0].shape == (-1, 3)
    assert model.predict(request(x=ROWS)).outputs[0].data.shape == (2, 3)


def test_a_category_that_was_not_fitted_is_a_missing_value_as_it_is_to_lightgbm(tmp_path: Path) -> None:
    booster = rents(1.0, 2.0, 3.0)
    booster.save_model(tmp_path / "model.txt")
    table = pd.DataFrame({"rooms": [1.0], "town": pd.Categorical(["z"]), "floor": pd.Categorical([5])})
    found = served(tmp_path).predict(request(rooms=[1.0], town=texts("z"), floor=[5]))
    assert found.outputs[0].data.tolist() == booster.predict(table).tolist()


def test_texts_where_numbers_belong_are_refused_by_name(tmp_path: Path) -> None:
    rents(1.0, 2.0, 3.0).save_model(tmp_path / "model.txt")
    with pytest.raises(InputError, match=r"input 'rooms' of shape \[1\] holds texts"):
        served(tmp_path).predict(request(rooms=texts("two"), town=texts("a"), floor=[5]))


def test_a_file_that_is_cut_off_is_refused_and_the_process_lives(tmp_path: Path) -> None:
    whole = step(2.0, 7.0, rounds=2).model_to_string().encode()
    trees = whole.index(b"end of trees")
    for length in range(0, trees, 97):
        (tmp_path / "model.txt").write_bytes(whole[:length])
        with pytest.raises(LoadError, match=r"model\.txt: cannot be read by LightGBM"):
            served(tmp_path)


def test_a_tree_that_lost_a_byte_is_named(tmp_path: Path) -> None:
    whole = step(2.0, 7.0, rounds=2).model_to_string().encode()
    at = whole.index(b"Tree=0")
    (tmp_path / "model.txt").write_bytes(whole[: at + 20] + whole[at + 21 :])
    with pytest.raises(LoadError, match="tree 1 of 2 is not where the head says"):
        served(tmp_path)
