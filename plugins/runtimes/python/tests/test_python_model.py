from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from servery_runtime_python.model import PythonModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract


def loaded(directory: Path, source: str) -> PythonModel:
    (directory / "model.py").write_text(source)
    model = PythonModel()
    model.load(directory)
    return model


@pytest.fixture(autouse=True)
def _import_state(monkeypatch: pytest.MonkeyPatch) -> None:
    # Loading puts the artifact on the path and the module in the table: a server's business, not a test's.
    import sys

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


SCALED = """
from servery_sdk.protocol import Datatype, ModelMetadata, TensorMetadata
from servery_test_factor import FACTOR


class Model:
    def predict(self, inputs):
        return inputs["x"].reshape(-1, 2) * FACTOR

    def metadata(self):
        inputs = TensorMetadata(name="x", datatype=Datatype.FP64, shape=(-1, 2))
        outputs = TensorMetadata(name="output-0", datatype=Datatype.FP64, shape=(-1, 2))
        return ModelMetadata(name="", platform="mine", inputs=(inputs,), outputs=(outputs,))
"""


def tensor(name: str, *rows: list[float]) -> Tensor:
    return Tensor(name=name, data=np.array(rows), datatype=Datatype.FP64)


class TestScaledBesideAFile(RuntimeContract):
    """A model that imports what lies beside it, as does the next one under the same name."""

    plugin = "servery_runtime_python.plugin"
    framework = ("numpy",)
    good_request = InferRequest(model="m", inputs=(tensor("x", [1.0, 2.0], [3.0, 4.0]),))
    good_response = InferResponse(model="m", outputs=(tensor("output-0", [2.0, 4.0], [6.0, 8.0]),))
    wrong_request = InferRequest(model="m", inputs=(tensor("x", [1.0, 2.0, 3.0]),))

    def write_model(self, directory: Path) -> None:
        self._write(directory, factor=2)

    def write_other_model(self, directory: Path) -> None:
        self._write(directory, factor=3)

    def _write(self, directory: Path, *, factor: int) -> None:
        (directory / "model.py").write_text(SCALED)
        (directory / "servery_test_factor.py").write_text(f"FACTOR = {factor}")


UNMERGED = """
class Model:
    batchable = False

    def load(self, artifact):
        self.weights = (artifact / "weights.txt").read_text()

    def predict(self, inputs):
        if inputs["x"].shape != (2, 2):
            raise ValueError("x must be a square of two")
        return {"total": inputs["x"].sum().reshape(1), "unit": [self.weights]}
"""


class TestUnmergedTexts(RuntimeContract):
    """A model whose first axis is no batch, that says nothing of itself and answers with a text."""

    plugin = "servery_runtime_python.plugin"
    framework = ("numpy",)
    batchable = False
    described = False
    good_request = InferRequest(model="m", inputs=(tensor("x", [1.0, 2.0], [3.0, 4.0]),))
    good_response = InferResponse(
        model="m",
        outputs=(
            Tensor(name="total", data=np.array([10.0]), datatype=Datatype.FP64),
            Tensor(name="unit", data=np.array([b"kg"], dtype=object), datatype=Datatype.BYTES),
        ),
    )
    wrong_request = InferRequest(model="m", inputs=(tensor("x", [1.0, 2.0, 3.0]),))

    def write_model(self, directory: Path) -> None:
        (directory / "model.py").write_text(UNMERGED)
        (directory / "weights.txt").write_text("kg")

    def write_other_model(self, directory: Path) -> None:
        (directory / "model.py").write_text(UNMERGED)
        (directory / "weights.txt").write_text("lb")


@pytest.fixture
def request_() -> InferRequest:
    return InferRequest(model="m", inputs=(Tensor(name="x", data=np.array([1.0, 2.0]), datatype=Datatype.FP64),))


def test_arrays_by_name_go_in_and_an_array_comes_out(tmp_path: Path, request_: InferRequest) -> None:
    model = loaded(tmp_path, "class Model:\n    def predict(self, inputs):\n        return inputs['x'] * 2\n")
    (output,) = model.predict(request_).outputs
    assert (output.name, output.data.tolist()) == ("output-0", [2, 4])


def test_a_mapping_names_several_outputs(tmp_path: Path, request_: InferRequest) -> None:
    source = "class Model:\n    def predict(self, inputs):\n        return {'n': inputs['x'], 's': ['a', 'b']}\n"
    outputs = loaded(tmp_path, source).predict(request_).outputs
    assert [(output.name, output.datatype) for output in outputs] == [("n", Datatype.FP64), ("s", Datatype.BYTES)]


def test_a_parameter_called_request_gets_the_request(tmp_path: Path, request_: InferRequest) -> None:
    source = """
from servery_sdk.protocol import InferResponse

class Model:
    def predict(self, request):
        return InferResponse(model=request.model, outputs=request.inputs)
"""
    assert loaded(tmp_path, source).predict(request_).outputs == request_.inputs


def test_load_gets_the_artifact_and_files_beside_the_model_are_imported(tmp_path: Path, request_: InferRequest) -> None:
    (tmp_path / "factor.txt").write_text("3")
    (tmp_path / "servery_test_neighbour.py").write_text("def scale(x, by): return x * by")
    source = """
from servery_test_neighbour import scale

class Model:
    def load(self, artifact):
        self.factor = int((artifact / "factor.txt").read_text())

    def predict(self, inputs):
        return scale(inputs["x"], self.factor)
"""
    assert loaded(tmp_path, source).predict(request_).outputs[0].data.tolist() == [3, 6]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("Modell = 1", "model.py: has no class Model"),
        ("class Model:\n    pass", "model.py: Model has no predict(inputs)"),
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name' (line 1)"),
        ("x = (", "SyntaxError"),
        (
            "class Model:\n    def load(self, artifact):\n        1 / 0\n",
            "ZeroDivisionError: division by zero (line 3)",
        ),
    ],
)
def test_a_model_that_does_not_load_says_where(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(LoadError) as refused:
        loaded(tmp_path, source)
    assert words in str(refused.value)


def test_an_artifact_without_model_py_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    with pytest.raises(LoadError, match=r"needs a model.py with a class Model; found: weights.bin"):
        PythonModel().load(tmp_path)


def test_a_value_error_is_the_callers_fault(tmp_path: Path, request_: InferRequest) -> None:
    model = loaded(tmp_path, "class Model:\n    def predict(self, inputs):\n        return inputs['y']\n")
    with pytest.raises(InputError, match="KeyError: 'y'"):
        model.predict(request_)


def test_a_model_may_refuse_to_be_batched(tmp_path: Path) -> None:
    source = "class Model:\n    batchable = False\n    def predict(self, inputs):\n        return inputs\n"
    assert loaded(tmp_path, source).batchable is False


def test_an_answer_of_the_wrong_type_is_explained(tmp_path: Path, request_: InferRequest) -> None:
    model = loaded(tmp_path, "class Model:\n    def predict(self, request):\n        return 1\n")
    with pytest.raises(TypeError, match="returned a int, not an InferResponse"):
        model.predict(request_)


@pytest.mark.parametrize(
    ("files", "named", "loaded_from"),
    [
        (["model.py", "other.py"], "", "model.py"),
        (["only.py", "weights.bin"], "", "only.py"),
        (["model.py", "other.py"], "other.py", "other.py"),
    ],
)
def test_the_file_is_named_or_model_py_or_the_only_one(
    tmp_path: Path, files: list[str], named: str, loaded_from: str, request_: InferRequest
) -> None:
    for file in files:
        (tmp_path / file).write_text(f"class Model:\n    def predict(self, inputs):\n        return [{file!r}]\n")
    model = PythonModel(model_file=named)
    model.load(tmp_path)
    assert model.predict(request_).outputs[0].data.tolist() == [loaded_from.encode()]


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("", "has no model.py but a.py, b.py; say which with --model-file"),
        ("../c.py", "--model-file ../c.py: no such file"),
    ],
)
def test_a_file_that_nobody_can_know_is_asked_for(tmp_path: Path, named: str, words: str) -> None:
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    for file in (artifact / "a.py", artifact / "b.py", tmp_path / "c.py"):
        file.touch()
    with pytest.raises(LoadError, match=re.escape(words)):
        PythonModel(model_file=named).load(artifact)


def test_only_a_program_takes_flags_that_nobody_knows(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("class Model:\n    def predict(self, inputs):\n        return inputs\n")
    with pytest.raises(LoadError, match=r"unrecognized arguments: --predictor_host=there; model\.py is no program"):
        PythonModel(arguments=("--predictor_host=there",)).load(tmp_path)


@pytest.mark.parametrize(
    ("source", "is_program"),
    [
        ("import kserve", True),
        ("if True:\n    from kserve.model import Model", True),
        ("import kserves_relative", False),
        ("from .kserve import x", False),
        ("import kserve (", False),
    ],
)
def test_a_file_that_imports_kserve_is_a_program(tmp_path: Path, source: str, is_program: bool) -> None:
    (tmp_path / "model.py").write_text(source)
    assert (PythonModel.program(tmp_path, "m") is not None) is is_program
