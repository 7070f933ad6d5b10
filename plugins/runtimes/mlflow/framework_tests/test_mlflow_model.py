from __future__ import annotations

import json
import logging
import textwrap
import warnings
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.sklearn
import mlflow.xgboost
import numpy as np
import pandas as pd
import pytest
import xgboost
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, Object, Property
from servery_runtime_mlflow.model.outputs import tensors
from servery_runtime_mlflow.model.pyfunc import MLflowModel
from servery_runtime_mlflow.model.requirements import mismatches
from servery_runtime_mlflow.model.signature import Port, ports
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, v1
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

PLUGIN = "servery_runtime_mlflow.plugin"
FRAMEWORK = ("mlflow",)


def tensor(name: str, data: Any, **parameters: Any) -> Tensor:
    array = np.asarray(data)
    if array.dtype.kind == "U":
        array = np.array([text.encode() for text in array.ravel()], dtype=object).reshape(array.shape)
    return Tensor(name=name, data=array, datatype=Datatype.of(array), parameters=parameters)


def f32(*rows: Any) -> Any:
    return np.array(rows, dtype=np.float32)


def request(*inputs: Tensor, **parameters: Any) -> InferRequest:
    return InferRequest(model="m", inputs=inputs, parameters=parameters)


def response(*outputs: Tensor) -> InferResponse:
    return InferResponse(model="m", outputs=outputs)


def columns(*columns: tuple[Any, str | None]) -> Schema:
    return Schema([ColSpec(kind, name) for kind, name in columns])


def arrays(*specs: tuple[str, tuple[int, ...], str | None]) -> Schema:
    return Schema([TensorSpec(np.dtype(kind), shape, name) for kind, shape, name in specs])


def save_code(
    directory: Path, code: str, signature: ModelSignature | None = None, metadata: Any = None, **options: Any
) -> None:
    """Save a model from code: a ``predict(self, context, model_input, params=None)`` with these lines."""
    script = directory.parent / f"{directory.name}_script.py"
    script.write_text(
        "import mlflow\nimport numpy as np\nimport pandas as pd\n\nclass Made(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input, params=None):\n"
        + textwrap.indent(textwrap.dedent(code), " " * 8)
        + "\nmlflow.models.set_model(Made())\n"
    )
    save(mlflow.pyfunc, directory, python_model=str(script), signature=signature, metadata=metadata, **options)


def save(flavour: Any, directory: Path, **options: Any) -> None:
    """Save a model; what MLflow has to say of it then is not ours, and neither is our own project the model's."""
    with warnings.catch_warnings(record=True), pytest.MonkeyPatch.context() as environment:
        warnings.simplefilter("ignore")
        environment.setenv("MLFLOW_UV_AUTO_DETECT", "false")
        flavour.save_model(path=directory, pip_requirements=[], **options)


def served(directory: Path) -> MLflowModel:
    model = MLflowModel()
    model.load(directory)
    return model


def answers(directory: Path, code: str, signature: ModelSignature | None, asked: InferRequest) -> Any:
    """What a model of these lines answers, as texts of what it was given."""
    save_code(directory, code, signature)
    (output,) = served(directory).predict(asked).outputs
    return output.data.tolist()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "model"


class TestTable(RuntimeContract):
    """scikit-learn's flavour, a signature of columns."""

    plugin = PLUGIN
    framework = FRAMEWORK
    good_request = request(
        tensor("rooms", [2.0, 3.0]), tensor("town", ["Bonn", "Kiel"]), tensor("floor", np.array([1, 2], dtype=np.int32))
    )
    good_response = response(tensor("price", [102.0, 13.0]))
    wrong_request = request(tensor("rooms", [2.0]), tensor("town", ["Bonn"]))

    def write_model(self, directory: Path) -> None:
        self._saved([102.0, 103.0, 12.0, 13.0], directory)

    def write_other_model(self, directory: Path) -> None:
        self._saved([1.0, 2.0, 3.0, 4.0], directory)

    def _saved(self, prices: list[float], directory: Path) -> None:
        homes = pd.DataFrame(
            {"rooms": [2.0, 3.0] * 2, "town": ["Bonn"] * 2 + ["Kiel"] * 2, "floor": np.array([1, 1, 2, 2], dtype="i4")}
        )
        towns = ColumnTransformer([("towns", OneHotEncoder(drop="first"), ["town"])], remainder="passthrough")
        save(
            mlflow.sklearn,
            directory,
            sk_model=make_pipeline(towns, LinearRegression()).fit(homes, prices),
            signature=ModelSignature(
                columns((DataType.double, "rooms"), (DataType.string, "town"), (DataType.integer, "floor")),
                columns((DataType.double, "price")),
            ),
            serialization_format="cloudpickle",
        )


class TestMatrix(RuntimeContract):
    """XGBoost's flavour, a signature of one nameless tensor."""

    plugin = PLUGIN
    framework = FRAMEWORK
    good_request = request(tensor("input-0", f32([0, 0], [1, 1])))
    good_response = response(tensor("output-0", f32(0, 10)))
    wrong_request = request(tensor("input-0", f32([0, 0, 0])))
    relative_tolerance = 1e-3

    def write_model(self, directory: Path) -> None:
        self._saved([0, 10], directory)

    def write_other_model(self, directory: Path) -> None:
        self._saved([5, 7], directory)

    def _saved(self, values: list[float], directory: Path) -> None:
        fitted = xgboost.XGBRegressor(
            n_estimators=1, learning_rate=1, reg_lambda=0, min_child_weight=0, base_score=0, n_jobs=1
        ).fit(f32([0, 0], [1, 1]), values)
        save(
            mlflow.xgboost,
            directory,
            xgb_model=fitted,
            signature=ModelSignature(arrays(("f4", (-1, 2), None)), arrays(("f4", (-1,), None))),
        )


class TestNamedTensors(RuntimeContract):
    """A model of one's own that says that its rows do not know of one another."""

    plugin = PLUGIN
    framework = FRAMEWORK
    good_request = request(tensor("a", f32([1, 2], [3, 4])), tensor("b", f32(1, 2)))
    good_response = response(tensor("sum", f32([2, 3], [5, 6])), tensor("twice", f32(2, 4)))
    wrong_request = request(tensor("a", f32([1, 2, 3])), tensor("b", f32(1)))

    def write_model(self, directory: Path) -> None:
        self._saved("a + b[:, None]", directory)

    def write_other_model(self, directory: Path) -> None:
        self._saved("a - b[:, None]", directory)

    def _saved(self, formula: str, directory: Path) -> None:
        code = f"a, b = model_input['a'], model_input['b']\nreturn {{'sum': {formula}, 'twice': 2 * b}}"
        inputs = arrays(("f4", (-1, 2), "a"), ("f4", (-1,), "b"))
        outputs = arrays(("f4", (-1, 2), "sum"), ("f4", (-1,), "twice"))
        save_code(directory, code, ModelSignature(inputs, outputs), metadata={"batchable": True})


class TestWholeTable(RuntimeContract):
    """What a model of one's own does with several rows is its own affair: here, their mean."""

    plugin = PLUGIN
    framework = FRAMEWORK
    batchable = False
    good_request = request(tensor("x", [1.0, 5.0]))
    good_response = response(tensor("less mean", [-2.0, 2.0]))
    wrong_request = request(tensor("x", [[1.0, 2.0]]))

    def write_model(self, directory: Path) -> None:
        self._saved("x - x.mean()", directory)

    def write_other_model(self, directory: Path) -> None:
        self._saved("x + x.mean()", directory)

    def _saved(self, formula: str, directory: Path) -> None:
        signature = ModelSignature(columns((DataType.double, "x")), columns((DataType.double, "less mean")))
        save_code(directory, f"x = model_input['x']\nreturn {formula}", signature)


class TestWithoutSignature(RuntimeContract):
    plugin = PLUGIN
    framework = FRAMEWORK
    described = False
    good_request = request(tensor("input-0", [[1.0, 2.0], [3.0, 4.0]]))
    good_response = response(tensor("output-0", [3.0, 7.0]))
    wrong_request = request(tensor("input-0", [[1.0, 2.0, 3.0]]))

    def write_model(self, directory: Path) -> None:
        self._saved([0.0, 1.0, 1.0], directory)

    def write_other_model(self, directory: Path) -> None:
        self._saved([0.0, 2.0, 2.0], directory)

    def _saved(self, values: list[float], directory: Path) -> None:
        fitted = LinearRegression().fit([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], values)
        save(mlflow.sklearn, directory, sk_model=fitted)


DESCRIBE = "return [f'{name} {model_input[name].tolist()}' for name in model_input]"
"""Tells a table's columns as the model sees them."""


@pytest.mark.parametrize(
    ("inputs", "seen"),
    [
        pytest.param(
            [tensor("b", [3, 4]), tensor("a", [1.5, 2.0])], ["a [1.5, 2.0]", "b [3, 4]"], id="columns-by-name"
        ),
        pytest.param([tensor("a", [[1.0]]), tensor("b", [[2]])], ["a [1.0]", "b [2]"], id="columns-of-one-width"),
        pytest.param([tensor("input-0", [[1, 2], [3, 4]])], ["a [1.0, 3.0]", "b [2, 4]"], id="one-matrix"),
        pytest.param([tensor("a", [7]), tensor("b", [2.0])], ["a [7.0]", "b [2]"], id="numbers-of-the-other-kind"),
        pytest.param([tensor("a", f32(0.5)), tensor("b", np.int8([2]))], ["a [0.5]", "b [2]"], id="smaller-numbers"),
        pytest.param(
            [tensor("a", [1.0]), tensor("b", [2]), tensor("c", ["x"]), tensor("d", ["y"])],
            ["a [1.0]", "b [2]", "c ['x']"],
            id="an-optional-one-and-one-too-many",
        ),
    ],
)
def test_columns_come_as_the_signature_has_them(inputs: list[Tensor], seen: list[str], directory: Path) -> None:
    optional = [ColSpec("string", "c", required=False)] if len(inputs) > 1 else []
    signature = ModelSignature(Schema([ColSpec("double", "a"), ColSpec("long", "b"), *optional]))
    found = answers(directory, DESCRIBE, signature, request(*inputs))
    assert [text.decode() for text in found] == seen


@pytest.mark.parametrize(
    ("kind", "given", "seen"),
    [
        ("boolean", tensor("x", [True]), "[True]"),
        ("boolean", tensor("x", [1]), "[True]"),
        ("string", tensor("x", ["bö"]), "['bö']"),
        ("binary", tensor("x", np.array([b"\xff"], dtype=object)), r"[b'\xff']"),
        ("binary", tensor("x", ["/w=="], content_type="base64"), r"[b'\xff']"),
        ("datetime", tensor("x", ["2026-01-31T12:00:00"]), "[Timestamp('2026-01-31 12:00:00')]"),
        ("datetime", tensor("x", ["2026-01-31T12:00:00+02:00"]), "[Timestamp('2026-01-31 10:00:00')]"),
        (Array(DataType.double), tensor("x", [[1.0, 2.0]]), "[array([1., 2.])]"),
        (Array(DataType.float), tensor("x", [[1.0, 2.0]]), "[array([1., 2.], dtype=float32)]"),
        (Array(Array(DataType.long)), tensor("x", [[[1], [2]]]), "[array([[1],\n       [2]])]"),
        (Array(DataType.long), tensor("x", ["[1, 2]"]), "[[1, 2]]"),
        (Object([Property("role", DataType.string)]), tensor("x", ['{"role": "user"}']), "[{'role': 'user'}]"),
    ],
)
def test_every_type_of_column_comes_as_mlflow_has_it(kind: Any, given: Tensor, seen: str, directory: Path) -> None:
    signature = ModelSignature(Schema([ColSpec(kind, "x")]))
    (found,) = answers(directory, "return [str(model_input['x'].tolist())]", signature, request(given))
    assert found.decode() == seen


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("double", tensor("x", ["1"]), r"input 'x' of shape \[1\] is BYTES; the signature takes FP64"),
        ("long", tensor("x", [1.5]), "is FP64 and holds what INT64, which the signature takes, cannot"),
        ("long", tensor("x", [float("nan")]), "is FP64 and holds what INT64"),
        ("string", tensor("x", [1]), "is INT64; the signature takes BYTES"),
        ("binary", tensor("x", [1]), r"is INT64; the signature takes 'x' BYTES \[-1\]"),
        ("binary", tensor("x", ["*"], content_type="base64"), "input 'x' holds what is no base64"),
        ("datetime", tensor("x", ["soon"]), "input 'x' holds what is no time as 2026-01-31T12:00:00"),
        ("double", tensor("x", [[1.0, 2.0]]), r"input 'x' has shape \[1, 2\]; the signature takes 'x' FP64 \[-1\]"),
        ("double", tensor("x", 1.0), r"input 'x' has shape \[\]; the signature takes 'x' FP64 \[-1\]"),
        (Array(DataType.long), tensor("x", ["["]), "input 'x' holds a text that is no JSON"),
        (Array(DataType.long), tensor("x", ["{}"]), r"inputs 'x' BYTES \[1\]: .*Expected data to be list"),
        (Object([Property("role", DataType.string)]), tensor("x", ["{}"]), "Missing required properties: {'role'}"),
    ],
)
def test_what_a_column_cannot_hold_is_refused_with_what_is_wanted(
    kind: Any, given: Tensor, words: str, directory: Path
) -> None:
    save_code(directory, "return [0]", ModelSignature(Schema([ColSpec(kind, "x")])))
    with pytest.raises(InputError, match=words):
        served(directory).predict(request(given))


def test_missing_columns_are_named_with_their_types(directory: Path) -> None:
    save_code(directory, "return [0]", ModelSignature(columns(("double", "a"), ("string", "b"))))
    with pytest.raises(InputError) as refused:
        served(directory).predict(request(tensor("a", [1.0]), tensor("c", ["x"])))
    assert str(refused.value) == ("inputs 'a' FP64 [1], 'c' BYTES [1] lack what the signature requires: 'b' BYTES [-1]")


def test_columns_of_different_lengths_are_refused(directory: Path) -> None:
    save_code(directory, "return [0]", ModelSignature(columns(("double", "a"), ("double", "b"))))
    with pytest.raises(InputError, match=r"inputs differ in rows: {'a': 1, 'b': 2}"):
        served(directory).predict(request(tensor("a", [1.0]), tensor("b", [1.0, 2.0])))


@pytest.mark.parametrize(
    "inputs",
    [
        pytest.param([tensor("any", [[1.0, 2.0]])], id="one-matrix"),
        pytest.param([tensor("one", [1.0]), tensor("two", [2.0])], id="in-order"),
        pytest.param([tensor("input-1", [2.0]), tensor("input-0", [1.0])], id="by-the-names-of-the-metadata"),
    ],
)
def test_columns_without_names_are_numbered(inputs: list[Tensor], directory: Path) -> None:
    signature = ModelSignature(columns(("double", None), ("double", None)))
    assert answers(directory, DESCRIBE, signature, request(*inputs)) == [b"0 [1.0]", b"1 [2.0]"]


@pytest.mark.parametrize(
    ("inputs", "seen"),
    [
        pytest.param([tensor("any", [[1, 2]])], b"float64 [[1.0, 2.0]]", id="one-matrix"),
        pytest.param([tensor("one", [1.0, 3.0]), tensor("two", [[2], [4]])], b"float64 [[1.0, 2.0], [3.0, 4.0]]", id="columns"),
    ],
)  # fmt: skip
def test_a_nameless_tensor_takes_a_matrix_or_a_tables_columns(
    inputs: list[Tensor], seen: bytes, directory: Path
) -> None:
    code = "return [f'{model_input.dtype} {model_input.tolist()}']"
    assert answers(directory, code, ModelSignature(arrays(("f8", (-1, 2), None))), request(*inputs)) == [seen]


def test_columns_that_are_no_matrix_are_refused(directory: Path) -> None:
    save_code(directory, "return [0]", ModelSignature(arrays(("f8", (-1, 2), None))))
    with pytest.raises(InputError, match=r"inputs 'a' FP64 \[1\], 'b' FP64 \[2\] are not the columns of one matrix"):
        served(directory).predict(request(tensor("a", [1.0]), tensor("b", [1.0, 2.0])))


def test_a_tensor_of_texts_comes_as_numpys_texts(directory: Path) -> None:
    code = "return [f'{model_input.dtype.kind} {model_input.tolist()}']"
    signature = ModelSignature(arrays(("str", (-1,), None)))
    assert answers(directory, code, signature, request(tensor("x", ["ä"]))) == ["U ['ä']".encode()]


@pytest.mark.parametrize(
    ("asked", "seen"),
    [
        pytest.param(request(tensor("a", [1, 2])), b"ndarray [1 2]", id="an-only-input"),
        pytest.param(request(tensor("a", ["x"]), tensor("b", [1])), b"dict {'a': array(['x'], dtype=object), 'b': array([1])}", id="several"),
        pytest.param(request(tensor("a", [1]), content_type="dict"), b"dict {'a': array([1])}", id="dict"),
        pytest.param(request(tensor("a", [1]), tensor("b", [2]), content_type="np"), b"ndarray [1]", id="np"),
        pytest.param(request(tensor("a", [[1]]), tensor("b", [[2, 3]]), content_type="pd"), b"DataFrame    a       b\n0  1  [2, 3]", id="pd"),
        pytest.param(request(tensor("a", ["eA=="], content_type="base64")), b"ndarray [b'x']", id="base64"),
    ],
)  # fmt: skip
def test_without_a_signature_the_content_type_decides(asked: InferRequest, seen: bytes, directory: Path) -> None:
    assert answers(directory, "return [f'{type(model_input).__name__} {model_input}']", None, asked) == [seen]


@pytest.mark.parametrize(
    ("body", "signed", "seen"),
    [
        ({"dataframe_split": {"columns": ["b", "a"], "data": [[2, 1]]}}, True, "DataFrame a [1.0] b [2]"),
        ({"dataframe_records": [{"a": 1, "b": 2}]}, True, "DataFrame a [1.0] b [2]"),
        ({"instances": [{"a": 1, "b": 2}]}, True, "DataFrame a [1.0] b [2]"),
        ({"instances": [[1, 2]]}, True, "DataFrame a [1.0] b [2]"),
        ({"inputs": {"a": [1], "b": [2]}}, True, "DataFrame a [1.0] b [2]"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [[1, "x"]]}}, False, "DataFrame a [1] b ['x']"),
        ({"inputs": {"a": [1], "b": [2]}}, False, "dict a [1] b [2]"),
    ],
)
def test_what_mlflows_scoring_server_takes_is_taken_over_v1(
    body: Any, signed: bool, seen: str, directory: Path
) -> None:
    code = "return [' '.join([type(model_input).__name__, *(f'{n} {model_input[n].tolist()}' for n in model_input)])]"
    signature = ModelSignature(columns(("double", "a"), ("long", "b"))) if signed else None
    asked = v1.decode_request(json.dumps(body).encode(), model="m")
    assert answers(directory, code, signature, asked) == [seen.encode()]


def test_another_content_type_is_refused(directory: Path) -> None:
    save_code(directory, "return [0]")
    with pytest.raises(InputError, match="content_type is 'hg'; a model without a signature takes dict, np, pd"):
        served(directory).predict(request(tensor("a", [1]), content_type="hg"))


PARAMETERS = ParamSchema([ParamSpec("top", DataType.long, 3), ParamSpec("words", DataType.string, ["a"], (-1,))])


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({}, b"{'top': 3, 'words': ['a']}"),
        ({"top": 5, "words": ["b", "c"]}, b"{'top': 5, 'words': ['b', 'c']}"),
        ({"binary_data_output": True, "content_type": "pd"}, b"{'top': 3, 'words': ['a']}"),
    ],
    ids=["none", "two", "only-others"],
)
def test_parameters_of_the_signature_are_passed_on(given: dict[str, Any], seen: bytes, directory: Path) -> None:
    signature = ModelSignature(columns(("long", "x")), params=PARAMETERS)
    assert answers(directory, "return [str(params)]", signature, request(tensor("x", [1]), **given)) == [seen]


def test_a_parameter_of_another_type_is_refused(directory: Path) -> None:
    save_code(directory, "return [0]", ModelSignature(columns(("long", "x")), params=PARAMETERS))
    with pytest.raises(InputError, match=r"inputs 'x' INT64 .*Can not safely convert"):
        served(directory).predict(request(tensor("x", [1]), top="many"))


def test_type_hints_are_a_signature(directory: Path) -> None:
    script = directory.parent / "hinted.py"
    script.write_text(
        "import mlflow\n\nclass Made(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, model_input: list[str]) -> list[str]:\n"
        "        return [text.upper() for text in model_input]\n\nmlflow.models.set_model(Made())\n"
    )
    save(mlflow.pyfunc, directory, python_model=str(script))
    (output,) = served(directory).predict(request(tensor("input-0", ["a", "b"]))).outputs
    assert output.data.tolist() == [b"A", b"B"]


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        pytest.param(np.array([1.5, 2.5]), {"output-0": (Datatype.FP64, [1.5, 2.5])}, id="array"),
        pytest.param(pd.Series([1, 2], dtype=object), {"output-0": (Datatype.INT64, [1, 2])}, id="series"),
        pytest.param(pd.DataFrame({"a": [1], "b": ["x"]}), {"a": (Datatype.INT64, [1]), "b": (Datatype.BYTES, [b"x"])}, id="table"),
        pytest.param(pd.DataFrame([[1, 2.0]]), {"output-0": (Datatype.INT64, [1]), "output-1": (Datatype.FP64, [2.0])}, id="table-without-names"),
        pytest.param([{"label": "a", "score": 0.5}], {"label": (Datatype.BYTES, [b"a"]), "score": (Datatype.FP64, [0.5])}, id="rows"),
        pytest.param({"a": np.array([True]), "b": 2}, {"a": (Datatype.BOOL, [True]), "b": (Datatype.INT64, [2])}, id="mapping"),
        pytest.param(["a", "b"], {"output-0": (Datatype.BYTES, [b"a", b"b"])}, id="texts"),
        pytest.param("a", {"output-0": (Datatype.BYTES, [b"a"])}, id="text"),
        pytest.param([b"\xff"], {"output-0": (Datatype.BYTES, [b"\xff"])}, id="bytes"),
        pytest.param([[1, 2], [3]], {"output-0": (Datatype.BYTES, [b"[1, 2]", b"[3]"])}, id="ragged"),
        pytest.param([[1, "x"]], {"output-0": (Datatype.BYTES, [b'[1, "x"]'])}, id="numbers-beside-texts"),
        pytest.param([["x", "y"]], {"output-0": (Datatype.BYTES, [[b"x", b"y"]])}, id="texts-of-two-axes"),
        pytest.param(pd.DataFrame({"a": [{"b": np.float32(1)}, None]}), {"a": (Datatype.BYTES, [b'{"b": 1.0}', b"null"])}, id="objects"),
        pytest.param({"a": {"b": 1}}, {"a": (Datatype.BYTES, [b'{"b": 1}'])}, id="nested"),
        pytest.param(pd.DataFrame({"at": pd.to_datetime(["2026-01-31"])}), {"at": (Datatype.BYTES, [b"2026-01-31T00:00:00"])}, id="times"),
        pytest.param(pd.DataFrame({"at": pd.to_datetime(["2026-01-31"], utc=True)}), {"at": (Datatype.BYTES, [b"2026-01-31T00:00:00+00:00"])}, id="times-of-a-zone"),
        pytest.param(pd.DataFrame({"a": pd.array([1, 2], dtype="Int64")}), {"a": (Datatype.INT64, [1, 2])}, id="pandas-own-integers"),
    ],
)  # fmt: skip
def test_whatever_a_model_answers_becomes_tensors(answer: Any, seen: dict[str, Any]) -> None:
    found = {output.name: (output.datatype, output.data.tolist()) for output in tensors(answer, ())}
    assert found == seen


def test_a_sparse_answer_becomes_dense() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    (output,) = tensors(sparse.csr_matrix([[0.0, 1.0]]), ())
    assert output.data.tolist() == [[0.0, 1.0]]


def signed_outputs(*names: str) -> tuple[Port, ...]:
    return ports(columns(*[("double", name) for name in names]), "output")


@pytest.mark.parametrize(
    ("answer", "names", "seen"),
    [
        pytest.param(np.array([1.0]), ["price"], ["price"], id="one"),
        pytest.param(np.array([[1.0, 2.0]]), ["low", "high"], ["low", "high"], id="columns-of-a-matrix"),
        pytest.param(np.array([[1.0, 2.0]]), ["low"], ["low"], id="a-matrix"),
        pytest.param(pd.DataFrame({"low": [1.0]}), ["price"], ["low"], id="a-name-of-its-own"),
        pytest.param(pd.DataFrame([[1.0, 2.0]]), ["low", "high"], ["low", "high"], id="table-without-names"),
        pytest.param({"a": [1.0], "b": [2.0]}, ["price"], ["a", "b"], id="more-than-it-says"),
    ],
)
def test_the_signature_names_what_has_no_name(answer: Any, names: list[str], seen: list[str]) -> None:
    assert [output.name for output in tensors(answer, signed_outputs(*names))] == seen


@pytest.mark.parametrize(
    ("flavour", "schema", "metadata", "batchable"),
    [
        pytest.param("predict", columns(("double", "x")), None, True, id="rows"),
        pytest.param("score", columns(("double", "x")), None, False, id="one-score-for-all-rows"),
        pytest.param("predict", arrays(("f8", (4, 1), None)), None, False, id="a-fixed-number-of-rows"),
        pytest.param("predict", columns(("double", "x")), {"batchable": False}, False, id="as-the-model-says"),
    ],
)
def test_requests_are_merged_only_where_rows_stand_alone(
    flavour: str, schema: Schema, metadata: Any, batchable: bool, directory: Path
) -> None:
    save(
        mlflow.sklearn,
        directory,
        sk_model=LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]),
        signature=ModelSignature(schema),
        metadata=metadata,
        pyfunc_predict_fn=flavour,
    )
    assert served(directory).batchable is batchable


def test_a_models_own_code_is_not_taken_for_anothers_of_the_same_name(tmp_path: Path) -> None:
    for said in ("one", "two"):
        (tmp_path / said).mkdir()
        (tmp_path / said / "words_of_the_model.py").write_text(f"SAID = {said!r}\n")
        save_code(
            tmp_path / f"model-{said}",
            "import words_of_the_model\nreturn [words_of_the_model.SAID]",
            code_paths=[str(tmp_path / said / "words_of_the_model.py")],
        )
    for said in ("one", "two", "one"):
        (output,) = served(tmp_path / f"model-{said}").predict(request(tensor("x", [1]))).outputs
        assert output.data.tolist() == [said.encode()]


def test_the_model_of_a_run_lies_in_a_directory_of_its_artifacts(tmp_path: Path) -> None:
    save_code(tmp_path / "model", "return [len(model_input)]")
    assert served(tmp_path).predict(request(tensor("x", [1, 2]))).outputs[0].data.tolist() == [2]


def test_two_models_in_one_artifact_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_code(tmp_path / name, "return [0]")
    with pytest.raises(LoadError, match=r"holds 2 files MLmodel, in it or in a directory of it, not one: .*one, .*two"):
        served(tmp_path)


def test_a_model_without_a_python_function_is_refused(directory: Path) -> None:
    save_code(directory, "return [0]")
    text = (directory / "MLmodel").read_text().replace("python_function", "somebodys_own")
    (directory / "MLmodel").write_text(text)
    with pytest.raises(
        LoadError, match=r'MLmodel: cannot be loaded by MLflow .*Model does not have the "python_function"'
    ):
        served(directory)


def test_unmet_requirements_are_told_in_the_log_and_nothing_is_installed(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_code(directory, "return [1]")
    (directory / "requirements.txt").write_text("numpy==1.0\nno-such-distribution>=2  # of ours\n")
    with caplog.at_level(logging.WARNING, logger="servery_runtime_mlflow"):
        model = served(directory)
    (record,) = [record for record in caplog.records if record.getMessage() == "model asks for other versions"]
    assert record.__dict__["unmet"] == (
        f"numpy==1.0 ({np.__version__})",
        "no-such-distribution>=2 (not installed)",
    )
    assert model.predict(request(tensor("x", [1]))).outputs[0].data.tolist() == [1]


def test_what_is_warned_of_while_loading_is_told_in_the_log(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_code(directory, "return [1]")
    for script in directory.glob("*_script.py"):
        script.write_text(f"import warnings\nwarnings.warn('it is old')\n{script.read_text()}")
    with caplog.at_level(logging.WARNING, logger="servery_runtime_mlflow"):
        served(directory)
    told = [record.__dict__["warning"] for record in caplog.records if record.msg == "model loaded with a warning"]
    assert "it is old" in told


def test_unmet_requirements_are_told_when_a_model_does_not_load(directory: Path) -> None:
    save_code(directory, "import no_such_distribution")
    (directory / "requirements.txt").write_text("no-such-distribution==2\n")
    for script in directory.glob("*_script.py"):
        script.write_text("import no_such_distribution\n")
    with pytest.raises(LoadError, match=r"No module named .*; it asks for no-such-distribution==2 \(not installed\)"):
        served(directory)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        pytest.param({}, [], id="nothing-said"),
        pytest.param({"requirements.txt": "numpy\n# pandas==0\n-r other.txt\n./wheel.whl\n\n"}, [], id="nothing-to-compare"),
        pytest.param({"requirements.txt": "nothing==1; python_version < '3'"}, [], id="for-another-python"),
        pytest.param({"requirements.txt": f"mlflow=={mlflow.__version__}"}, [], id="skinny-is-enough"),
        pytest.param({"python_env.yaml": "python: 2.7.18\n"}, ["python 2.7.18"], id="python"),
        pytest.param({"python_env.yaml": "python: any\n"}, ["python any"], id="no-version"),
        pytest.param({"python_env.yaml": "dependencies: [-r requirements.txt, numpy==0]\n"}, ["numpy==0"], id="environment"),
        pytest.param({"python_env.yaml": "{"}, [], id="no-yaml"),
    ],
)  # fmt: skip
def test_requirements_are_compared_with_what_is_installed(
    files: dict[str, str], found: list[str], tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert [unmet.rpartition(" (")[0] for unmet in mismatches(tmp_path)] == found
