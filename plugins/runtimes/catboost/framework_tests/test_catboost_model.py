from __future__ import annotations

from pathlib import Path
from typing import Any

import catboost
import numpy as np
import pandas as pd
import pytest
from servery_runtime_catboost.model import CatBoostModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract

ROWS = np.array([[0.0, 1.0], [3.0, 1.0]], dtype=np.float32)
FRAMEWORK = ("catboost",)
QUIET: dict[str, Any] = {
    "iterations": 1,
    "depth": 2,
    "learning_rate": 1.0,
    "l2_leaf_reg": 0.0,
    "random_seed": 0,
    "bootstrap_type": "No",
    "boost_from_average": False,
    "leaf_estimation_iterations": 1,
    "verbose": 0,
    "thread_count": 1,
    "allow_writing_files": False,
}
CLASSES = {key: value for key, value in QUIET.items() if key != "boost_from_average"}


def request(**inputs: Any) -> InferRequest:
    arrays = {name: np.asarray(data) for name, data in inputs.items()}
    return InferRequest(
        model="m",
        inputs=tuple(Tensor(name=name, data=data, datatype=Datatype.of(data)) for name, data in arrays.items()),
    )


def response(data: Any) -> InferResponse:
    array = np.asarray(data)
    return InferResponse(model="m", outputs=(Tensor(name="output-0", data=array, datatype=Datatype.of(array)),))


def texts(*elements: str) -> Any:
    return np.array([element.encode() for element in elements], dtype=object)


def served(model: Any, directory: Path) -> CatBoostModel:
    model.save_model(str(directory / "model.cbm"))
    loaded = CatBoostModel()
    loaded.load(directory)
    return loaded


def step(low: float, high: float, **more: Any) -> catboost.CatBoostRegressor:
    """Return a model that answers ``low`` where the first feature is 0 and ``high`` where it is 3."""
    return catboost.CatBoostRegressor(**{**QUIET, **more}).fit(ROWS, [low, high])


class TestNumbers(RuntimeContract):
    plugin = "servery_runtime_catboost.plugin"
    framework = FRAMEWORK
    good_request = request(**{"input-0": ROWS})
    good_response = response([2.0, 7.0])
    wrong_request = request(**{"input-0": np.zeros((1, 3), dtype=np.float32)})

    def write_model(self, directory: Path) -> None:
        step(2.0, 7.0).save_model(str(directory / "model.cbm"))

    def write_other_model(self, directory: Path) -> None:
        step(7.0, 2.0).save_model(str(directory / "model.cbm"))


def seasons(*names: str) -> catboost.CatBoostClassifier:
    table = pd.DataFrame({"warmth": [1.0, 30.0] * 10, "town": ["a", "b"] * 10})
    return catboost.CatBoostClassifier(**CLASSES, cat_features=["town"]).fit(table, list(names) * 10)


class TestClassesByColumn(RuntimeContract):
    """Columns by name, a category among them, in; the classes' names out."""

    plugin = "servery_runtime_catboost.plugin"
    framework = FRAMEWORK
    good_request = request(warmth=np.array([30.0, 1.0], dtype=np.float32), town=texts("b", "a"))
    good_response = response(texts("summer", "winter"))
    wrong_request = request(warmth=np.ones((2, 2), dtype=np.float32), town=texts("a", "b"))

    def write_model(self, directory: Path) -> None:
        seasons("winter", "summer").save_model(str(directory / "model.cbm"))

    def write_other_model(self, directory: Path) -> None:
        seasons("summer", "winter").save_model(str(directory / "model.cbm"))


@pytest.mark.parametrize(
    "fitted",
    [
        pytest.param(step(2.0, 7.0, loss_function="Poisson"), id="counts"),
        pytest.param(step(2.0, 7.0, loss_function="RMSEWithUncertainty"), id="two numbers a row"),
        pytest.param(
            catboost.CatBoostRegressor(**QUIET, loss_function="MultiRMSE").fit(ROWS, [[1, 2], [3, 4]]), id="two targets"
        ),
        pytest.param(catboost.CatBoostClassifier(**CLASSES).fit(ROWS, [False, True]), id="booleans"),
        pytest.param(catboost.CatBoostClassifier(**CLASSES).fit(np.eye(3), [3, 5, 9]), id="three classes"),
        pytest.param(
            catboost.CatBoostClassifier(**CLASSES, loss_function="MultiLogloss").fit(ROWS, [[0, 1], [1, 0]]),
            id="labels",
        ),
    ],
)
def test_answer_and_metadata_are_what_the_class_that_was_fitted_predicts(fitted: Any, tmp_path: Path) -> None:
    rows = np.eye(3, dtype=np.float32)[:2, : len(fitted.feature_names_)]
    wanted = np.asarray(fitted.predict(rows))
    wanted = wanted.ravel() if wanted.shape[1:] == (1,) else wanted
    model = served(fitted, tmp_path)
    (output,) = model.predict(request(x=rows)).outputs
    assert output.data.tolist() == wanted.tolist()
    (stated,) = model.metadata().outputs
    assert (stated.datatype, stated.shape[1:]) == (output.datatype, output.data.shape[1:])


def test_a_ranker_answers_its_raw_values(tmp_path: Path) -> None:
    ranker = catboost.CatBoostRanker(**CLASSES).fit(ROWS, [0.0, 1.0], group_id=[1, 1])
    assert served(ranker, tmp_path).predict(request(x=ROWS)).outputs[0].data.tolist() == ranker.predict(ROWS).tolist()


def test_probabilities_have_a_column_for_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICT_PROBA", "true")
    model = served(seasons("winter", "summer"), tmp_path)
    (output,) = model.predict(TestClassesByColumn.good_request).outputs
    assert output.data.shape == (2, 2)
    assert output.data.sum(axis=1) == pytest.approx([1, 1])
    assert model.metadata().outputs[0].shape == (-1, 2)


def test_a_regressor_has_no_probabilities_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICT_PROBA", "true")
    with pytest.raises(LoadError, match=r"model\.cbm: holds no classifier"):
        served(step(2.0, 7.0), tmp_path)


def test_text_features_are_texts(tmp_path: Path) -> None:
    table = pd.DataFrame({"words": ["good fine", "bad poor"] * 20, "stars": [5.0, 1.0] * 20})
    fitted = catboost.CatBoostClassifier(**CLASSES, text_features=["words"]).fit(table, ["up", "down"] * 20)
    model = served(fitted, tmp_path)
    assert model.predict(request(words=texts("bad poor"), stars=[1.0])).outputs[0].data.tolist() == [b"down"]
    assert [tensor.datatype for tensor in model.metadata().inputs] == [Datatype.BYTES, Datatype.FP32]


def test_categories_that_are_whole_numbers_may_come_in_a_matrix(tmp_path: Path) -> None:
    table = pd.DataFrame({"rooms": [1.0, 2.0] * 10, "town": [10, 20] * 10})
    fitted = catboost.CatBoostClassifier(**CLASSES, cat_features=["town"]).fit(table, [0, 1] * 10)
    model = served(fitted, tmp_path)
    assert model.predict(request(x=[[2.0, 20.0], [1.0, 10.0]])).outputs[0].data.tolist() == [1, 0]
    with pytest.raises(InputError, match="column 1 has fractions"):
        model.predict(request(x=[[2.0, 20.5]]))


def test_texts_where_numbers_belong_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"input 'warmth' of shape \[1\] holds texts"):
        served(seasons("a", "b"), tmp_path).predict(request(warmth=texts("hot"), town=texts("a")))


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    step(2.0, 7.0).save_model(str(tmp_path / "model.cbm"))
    whole = (tmp_path / "model.cbm").read_bytes()
    (tmp_path / "model.cbm").write_bytes(whole[:-100])
    with pytest.raises(LoadError, match=r"model\.cbm: cannot be read by CatBoost .*Failed to read"):
        CatBoostModel().load(tmp_path)
