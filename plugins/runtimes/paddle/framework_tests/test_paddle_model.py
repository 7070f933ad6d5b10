from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servery_runtime_paddle.model import DATATYPES, PaddleModel, paddle
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract

FRAMEWORK = ("paddle",)
Spec = tuple[str, Sequence[int | None], str]


def save(directory: Path, compute: Callable[..., Any], *inputs: Spec, weight: float = 3.0, name: str = "model") -> None:
    """Write the program that computes ``compute(parameter, *inputs)``: one tensor, or several."""
    with warnings.catch_warnings():
        # What paddle itself calls is deprecated by others.
        warnings.simplefilter("ignore")
        paddle.enable_static()
        try:
            program, start = paddle.static.Program(), paddle.static.Program()
            with paddle.static.scope_guard(paddle.static.Scope()), paddle.static.program_guard(program, start):
                fed = [paddle.static.data(*spec) for spec in inputs]
                initial = paddle.nn.initializer.Constant(weight)
                parameter = paddle.static.create_parameter([2, 1], "float32", default_initializer=initial)
                found = compute(parameter, *fed)
                fetched = [*found] if isinstance(found, tuple) else [found]
                executor = paddle.static.Executor(paddle.CPUPlace())
                executor.run(start)
                path = str(directory / name)
                paddle.static.save_inference_model(path, fed, fetched, executor, program=program)
        finally:
            paddle.disable_static()


def served(directory: Path) -> PaddleModel:
    model = PaddleModel()
    model.load(directory)
    return model


def tensor(name: str, data: Any, dtype: Any = None) -> Tensor:
    array = np.array(data, dtype=dtype)
    return Tensor(name=name, data=array, datatype=Datatype.of(array))


def request(*tensors: Tensor) -> InferRequest:
    return InferRequest(model="m", inputs=tensors)


def product(weight: Any, x: Any) -> Any:
    return paddle.matmul(x, weight)


def product_and_sum(weight: Any, ids: Any, mask: Any) -> Any:
    return paddle.matmul(ids.astype("float32") * mask, weight), ids.sum(axis=1)


class TestOneInput(RuntimeContract):
    plugin = "servery_runtime_paddle.plugin"
    framework = FRAMEWORK
    good_request = request(tensor("x", [[1, 5], [2, 5]], "f4"))
    good_response = InferResponse(model="m", outputs=(tensor("fetch_name_0", [[18.0], [21.0]], "f4"),))
    wrong_request = request(tensor("x", [[1, 2, 3]], "f4"))

    def write_model(self, directory: Path) -> None:
        save(directory, product, ("x", [None, 2], "float32"))

    def write_other_model(self, directory: Path) -> None:
        save(directory, product, ("x", [None, 2], "float32"), weight=4.0)


class TestSeveralInputsAndOutputs(RuntimeContract):
    plugin = "servery_runtime_paddle.plugin"
    framework = FRAMEWORK
    good_request = request(tensor("mask", [[1, 0], [0, 1]], "f4"), tensor("ids", [[1, 2], [3, 4]]))
    good_response = InferResponse(
        model="m",
        outputs=(tensor("fetch_name_0", [[3.0], [12.0]], "f4"), tensor("fetch_name_1", [3, 7])),
    )
    wrong_request = request(tensor("mask", [[1, 0]], "f4"), tensor("ids", [1, 2]))

    def write_model(self, directory: Path) -> None:
        save(directory, product_and_sum, ("ids", [None, 2], "int64"), ("mask", [None, 2], "float32"))

    def write_other_model(self, directory: Path) -> None:
        save(directory, product_and_sum, ("ids", [None, 2], "int64"), ("mask", [None, 2], "float32"), weight=4.0)


def save_as_paddle_2_does(directory: Path, weight: float) -> None:
    """Write ``.pdmodel`` and ``.pdiparams``, as paddle 3 can still do operator by operator."""

    def product_by_hand(parameter: Any, x: Any) -> Any:
        block = x.block
        y = block.create_var(name="y", dtype="float32", shape=[-1, 1])
        flags = {"trans_x": False, "trans_y": False}
        block.append_op(type="matmul_v2", inputs={"X": x, "Y": parameter}, outputs={"Out": y}, attrs=flags)
        return y

    with paddle.pir_utils.OldIrGuard():
        save(directory, product_by_hand, ("x", [None, 2], "float32"), weight=weight)


class TestProgramOfPaddle2(RuntimeContract):
    plugin = "servery_runtime_paddle.plugin"
    framework = FRAMEWORK
    good_request = request(tensor("x", [[1, 5], [2, 5]], "f4"))
    good_response = InferResponse(model="m", outputs=(tensor("y", [[18.0], [21.0]], "f4"),))
    wrong_request = request(tensor("x", [[1, 2, 3]], "f4"))

    def write_model(self, directory: Path) -> None:
        save_as_paddle_2_does(directory, 3.0)

    def write_other_model(self, directory: Path) -> None:
        save_as_paddle_2_does(directory, 4.0)


class TestFixedBatch(RuntimeContract):
    """A program that was traced for two rows takes two, whatever else waits."""

    plugin = "servery_runtime_paddle.plugin"
    framework = FRAMEWORK
    batchable = False
    good_request = request(tensor("x", [[1, 5], [2, 5]], "f4"))
    good_response = InferResponse(model="m", outputs=(tensor("fetch_name_0", [[18.0], [21.0]], "f4"),))
    wrong_request = request(tensor("x", [[1, 5]], "f4"))

    def write_model(self, directory: Path) -> None:
        save(directory, product, ("x", [2, 2], "float32"))

    def write_other_model(self, directory: Path) -> None:
        save(directory, product, ("x", [2, 2], "float32"), weight=4.0)


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"uint8"}))
def test_every_element_type_goes_in_and_comes_out(datatype: str, tmp_path: Path) -> None:
    save(tmp_path, lambda weight, x: (paddle.concat([x, x], axis=1), weight + 1.0), ("x", [None, 2], datatype))
    model = served(tmp_path)
    sent = tensor("x", [[1, 0]], DATATYPES[datatype].dtype)
    found = model.predict(request(sent)).outputs[0]
    assert (found.datatype, found.data.dtype) == (DATATYPES[datatype], DATATYPES[datatype].dtype)
    assert found.data.tolist() == [[1, 0, 1, 0]]
    assert model.metadata().inputs[0].datatype is DATATYPES[datatype]
    assert not model.batchable  # the second output has no rows


def test_bytes_of_images_go_in_and_come_out(tmp_path: Path) -> None:
    save(tmp_path, lambda weight, x: (x.astype("float32") * weight.sum()).astype("uint8"), ("x", [None, 2], "uint8"))
    (found,) = served(tmp_path).predict(request(tensor("x", [[1, 40]], "u1"))).outputs
    assert (found.datatype, found.data.tolist()) == (Datatype.UINT8, [[6, 240]])


def test_an_element_type_that_the_predictor_does_not_take_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path, lambda weight, x: x.astype("float32") * weight.sum(), ("x", [None, 2], "bfloat16"))
    with pytest.raises(LoadError, match=r"model\.json: input 'x' is bfloat16; a program's .* bool, float16"):
        served(tmp_path)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (tensor("ids", [[1.5, 2]]), r"input 'ids' of shape \[1, 2\] is FP64 and holds what INT64"),
        (tensor("ids", [[b"1", b"2"]], object), "is BYTES; the program takes INT64"),
        (tensor("ids", np.empty((0, 2))), r"input 'ids' of shape \[0, 2\] is empty"),
        (tensor("q", [[1, 2]]), r"inputs \{'q': \[1, 2\], 'mask': \[1, 2\]\} are not .*: \['ids', 'mask'\]"),
        (tensor("ids", [[1, 2], [3, 4], [5, 6]]), r"inputs \{'ids': \[3, 2\], 'mask': \[2, 2\]\}: .*Broadcast"),
    ],
    ids=["halves", "texts", "nothing", "another name", "other rows"],
)
def test_what_the_program_cannot_take_is_refused(sent: Tensor, words: str, tmp_path: Path) -> None:
    TestSeveralInputsAndOutputs().write_model(tmp_path)
    model = served(tmp_path)
    mask = np.ones((2 if len(sent.data) > 1 else 1, 2), dtype="f4")
    with pytest.raises(InputError, match=words) as refused:
        model.predict(request(sent, tensor("mask", mask)))
    assert "/paddle/" not in str(refused.value)


def test_numbers_of_v1_become_what_the_program_takes(tmp_path: Path) -> None:
    save(tmp_path, product, ("x", [None, 2], "float32"))
    model = served(tmp_path)
    for sent in ([[1.0, 5.0]], [[1, 5]], [[True, True]]):
        (found,) = model.predict(request(tensor("input-0", sent))).outputs
        assert found.datatype is Datatype.FP32


def test_the_program_is_the_one_of_the_parameters_name_where_other_json_lies_beside(tmp_path: Path) -> None:
    save(tmp_path, product, ("x", [None, 2], "float32"), name="inference")
    (tmp_path / "config.json").write_text("{}")
    assert served(tmp_path).metadata().inputs[0].name == "x"


def test_program_and_parameters_may_have_different_names_as_kserves_example_has(tmp_path: Path) -> None:
    save(tmp_path, product, ("x", [None, 2], "float32"))
    (tmp_path / "model.pdiparams").rename(tmp_path / "params.pdiparams")
    assert served(tmp_path).metadata().inputs[0].name == "x"


@pytest.mark.parametrize("keep", [0, 10, -3], ids=["empty", "head", "cut"])
@pytest.mark.parametrize("suffix", [".json", ".pdmodel", ".pdiparams"])
def test_a_file_that_is_cut_off_is_refused(suffix: str, keep: int, tmp_path: Path) -> None:
    if suffix == ".pdmodel":
        save_as_paddle_2_does(tmp_path, 3.0)
    else:
        save(tmp_path, product, ("x", [None, 2], "float32"))
    file = tmp_path / f"model{suffix}"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(LoadError, match=rf"model{suffix}") as refused:
        served(tmp_path)
    assert "/paddle/" not in str(refused.value)


def test_a_json_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    save(tmp_path, product, ("x", [None, 2], "float32"))
    (tmp_path / "model.json").write_text('{"a": 1}')
    with pytest.raises(LoadError, match=r"model\.json with model\.pdiparams: .*Invalid model file"):
        served(tmp_path)


SERVER = """
import signal, sys, threading
from pathlib import Path

signal.signal(signal.SIGTERM, lambda number, _: print("drained"))

def load():
    from servery_runtime_paddle.model import PaddleModel
    PaddleModel().load(Path(sys.argv[1]))

thread = threading.Thread(target=load)
thread.start()
thread.join()
signal.raise_signal(signal.SIGTERM)
"""


def test_paddle_leaves_the_signals_to_the_server(tmp_path: Path) -> None:
    save(tmp_path, product, ("x", [None, 2], "float32"))
    done = subprocess.run([sys.executable, "-c", SERVER, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["drained"]), done.stderr
