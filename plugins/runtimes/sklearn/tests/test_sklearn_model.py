from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from servery_runtime_sklearn.model import SKLearnModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract
from sklearn.datasets import load_iris
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier

ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]


def served(estimator: Any, directory: Path) -> SKLearnModel:
    joblib.dump(estimator, directory / "model.joblib")
    model = SKLearnModel()
    model.load(directory)
    return model


def request(**inputs: Any) -> InferRequest:
    tensors = (Tensor(name=name, data=np.asarray(data), datatype=Datatype.FP64) for name, data in inputs.items())
    return InferRequest(model="m", inputs=tuple(tensors))


def line(slope: float, directory: Path) -> None:
    joblib.dump(
        LinearRegression().fit([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [1.0, 1 + slope, 1.0]), directory / "m.pkl"
    )


class TestNumbers(RuntimeContract):
    plugin = "servery_runtime_sklearn.plugin"
    framework = ("sklearn", "joblib", "pandas")
    good_request = request(**{"input-0": [[0.0, 5.0], [2.0, 5.0]]})
    good_response = InferResponse(
        model="m", outputs=(Tensor(name="output-0", data=np.array([1.0, 7.0]), datatype=Datatype.FP64),)
    )
    wrong_request = request(**{"input-0": [[1.0, 2.0, 3.0]]})

    def write_model(self, directory: Path) -> None:
        line(3.0, directory)

    def write_other_model(self, directory: Path) -> None:
        line(4.0, directory)


class TestTextsByColumn(RuntimeContract):
    """Named columns in, texts out: what a pipeline on a table does."""

    plugin = "servery_runtime_sklearn.plugin"
    framework = ("sklearn", "joblib", "pandas")
    good_request = request(a=[0.0, 3.0], b=[1.0, 1.0])
    good_response = InferResponse(
        model="m",
        outputs=(Tensor(name="output-0", data=np.array([b"low", b"high"], dtype=object), datatype=Datatype.BYTES),),
    )
    wrong_request = request(a=[[0.0, 3.0]], b=[1.0])

    def write_model(self, directory: Path) -> None:
        self._fitted(["low", "high"], directory)

    def write_other_model(self, directory: Path) -> None:
        self._fitted(["high", "low"], directory)

    def _fitted(self, classes: list[str], directory: Path) -> None:
        table = pd.DataFrame({"a": [0.0, 3.0], "b": [1.0, 1.0]})
        joblib.dump(DecisionTreeClassifier().fit(table, classes), directory / "model.joblib")


@pytest.fixture(scope="module")
def table() -> tuple[pd.DataFrame, Any]:
    iris = load_iris(as_frame=True)
    return iris.data.set_axis(["a", "b", "c", "d"], axis=1), iris.target_names[iris.target]


@pytest.fixture(scope="module")
def classifier(table: tuple[pd.DataFrame, Any]) -> LogisticRegression:
    """Fitted on named columns; its classes are texts."""
    return LogisticRegression(max_iter=500).fit(*table)


def test_classes_that_are_texts_are_answered_as_texts(classifier: LogisticRegression, tmp_path: Path) -> None:
    (output,) = served(classifier, tmp_path).predict(request(x=ROWS)).outputs
    assert output.datatype is Datatype.BYTES
    assert output.data.tolist() == [b"versicolor", b"versicolor"]


def test_named_columns_come_in_the_fitted_order(classifier: LogisticRegression, tmp_path: Path) -> None:
    model = served(classifier, tmp_path)
    first, second, third, fourth = np.array(ROWS).T
    shuffled = model.predict(request(d=fourth, b=second, a=first, c=third))
    assert shuffled.outputs[0].data.tolist() == model.predict(request(x=ROWS)).outputs[0].data.tolist()


def test_predict_proba_answers_a_column_per_class(
    classifier: LogisticRegression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREDICT_PROBA", "true")
    model = served(classifier, tmp_path)
    (output,) = model.predict(request(x=ROWS)).outputs
    assert output.data.shape == (2, 3)
    assert output.data.sum(axis=1) == pytest.approx([1, 1])
    assert model.metadata().outputs[0].shape == (-1, 3)


def test_metadata_names_the_fitted_columns(classifier: LogisticRegression, tmp_path: Path) -> None:
    metadata = served(classifier, tmp_path).metadata()
    assert [(tensor.name, tensor.shape) for tensor in metadata.inputs] == [(name, (-1,)) for name in "abcd"]
    assert metadata.outputs[0].datatype is Datatype.BYTES


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"x": [[1.0, 2.0]]}, "input 'x' has shape [1, 2]; LogisticRegression takes [rows, 4]"),
        ({"x": [1.0, 2.0, 3.0, 4.0]}, "input 'x' has shape [4]; LogisticRegression takes [rows, 4]"),
        ({"a": [1.0], "z": [1.0]}, "inputs ['a', 'z'] are not the features that the model was fitted on"),
        ({"a": [1.0], "b": [1.0, 2.0]}, "inputs differ in rows: {'a': 1, 'b': 2}"),
        ({"a": [[1.0, 2.0]], "b": [1.0]}, "input 'a' has shape [1, 2]; one of several inputs is a column"),
        ({"x": [[np.nan, 1.0, 1.0, 1.0]]}, "LogisticRegression: Input X contains NaN"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_by_name_and_shape(
    classifier: LogisticRegression, tmp_path: Path, inputs: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as refused:
        served(classifier, tmp_path).predict(request(**inputs))
    assert words in str(refused.value)


def test_an_estimator_without_probabilities_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICT_PROBA", "true")
    with pytest.raises(LoadError, match="holds a LinearRegression, which has no predict_proba"):
        served(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), tmp_path)


def test_another_version_of_scikit_learn_is_a_warning_in_the_log(
    classifier: LogisticRegression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sklearn.base.__version__", "0.19.0")
    joblib.dump(classifier, tmp_path / "model.joblib")
    monkeypatch.undo()
    with caplog.at_level(logging.WARNING):
        SKLearnModel().load(tmp_path)
    assert "from version 0.19.0" in caplog.records[0].__dict__["warning"]


def unheard_of(values: Any) -> Any:
    return values


def test_skops_file_answers_like_a_pickle(classifier: LogisticRegression, tmp_path: Path) -> None:
    skops.io.dump(classifier, tmp_path / "model.skops")
    model = SKLearnModel()
    model.load(tmp_path)
    assert model.predict(request(x=ROWS)).outputs[0].data.tolist() == [b"versicolor", b"versicolor"]


def test_skops_file_runs_only_what_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make_pipeline(FunctionTransformer(unheard_of), LinearRegression()).fit([[0.0], [1.0]], [0.0, 1.0])
    skops.io.dump(pipeline, tmp_path / "model.skops")
    name = f"{unheard_of.__module__}.unheard_of"
    with pytest.raises(LoadError, match=rf"model\.skops: holds types .* harmless: {re.escape(name)}; look at them"):
        SKLearnModel().load(tmp_path)
    monkeypatch.setenv("SERVERY_SKLEARN_TRUSTED", name)
    model = SKLearnModel()
    model.load(tmp_path)
    assert model.predict(request(x=[[2.0]])).outputs[0].data.tolist() == pytest.approx([2.0])


def test_broken_skops_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(b"no zip")
    with pytest.raises(LoadError, match=r"model\.skops: cannot be read with skops .* File is not a zip file"):
        SKLearnModel().load(tmp_path)


def test_pickles_are_refused_where_the_installation_says_so(
    classifier: LogisticRegression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVERY_SKLEARN_PICKLES", "refuse")
    with pytest.raises(LoadError, match=r"is a pickle, .* save it as model\.skops with skops\.io\.dump"):
        served(classifier, tmp_path)
