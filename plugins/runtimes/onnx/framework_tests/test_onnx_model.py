from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, save_model
from servery_runtime_onnx.model import DATATYPES, ONNXModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract

FRAMEWORK = ("onnxruntime",)
TYPES = {
    Datatype.BOOL: TensorProto.BOOL,
    Datatype.UINT8: TensorProto.UINT8,
    Datatype.UINT16: TensorProto.UINT16,
    Datatype.UINT32: TensorProto.UINT32,
    Datatype.UINT64: TensorProto.UINT64,
    Datatype.INT8: TensorProto.INT8,
    Datatype.INT16: TensorProto.INT16,
    Datatype.INT32: TensorProto.INT32,
    Datatype.INT64: TensorProto.INT64,
    Datatype.FP16: TensorProto.FLOAT16,
    Datatype.BF16: TensorProto.BFLOAT16,
    Datatype.FP32: TensorProto.FLOAT,
    Datatype.FP64: TensorProto.DOUBLE,
    Datatype.BYTES: TensorProto.STRING,
}
Shape = Sequence[int | str | None]


def port(name: str, shape: Shape, datatype: Datatype = Datatype.FP32) -> Any:
    return helper.make_tensor_value_info(name, TYPES[datatype], shape)


def graph(nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], **weights: Any) -> ModelProto:
    initial = [
        helper.make_tensor(name, TensorProto.FLOAT, np.shape(data), np.ravel(data)) for name, data in weights.items()
    ]
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(
        helper.make_graph(nodes, "test", inputs, outputs, initial), opset_imports=domains, ir_version=9
    )


def served(model: ModelProto, directory: Path) -> ONNXModel:
    save_model(model, str(directory / "model.onnx"))
    loaded = ONNXModel()
    loaded.load(directory)
    return loaded


def tensor(name: str, data: Any) -> Tensor:
    array = np.asarray(data)
    return Tensor(name=name, data=array, datatype=Datatype.of(array))


def request(*tensors: Tensor, outputs: tuple[str, ...] = ()) -> InferRequest:
    return InferRequest(model="m", inputs=tensors, outputs=outputs)


def f32(*rows: Any) -> Any:
    return np.array(rows, dtype=np.float32)


def line(slope: float) -> ModelProto:
    return graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [port("x", ["rows", 2])],
        [port("y", ["rows", 1])],
        w=[[slope], [1.0]],
    )


class TestOneInput(RuntimeContract):
    plugin = "servery_runtime_onnx.plugin"
    framework = FRAMEWORK
    good_request = request(tensor("x", f32([1, 5], [2, 5])))
    good_response = InferResponse(model="m", outputs=(tensor("y", f32([8], [11])),))
    wrong_request = request(tensor("x", f32([1, 2, 3])))

    def write_model(self, directory: Path) -> None:
        save_model(line(3.0), str(directory / "model.onnx"))

    def write_other_model(self, directory: Path) -> None:
        save_model(line(4.0), str(directory / "model.onnx"))


def sum_and_greeting(operation: str) -> ModelProto:
    return graph(
        [
            helper.make_node(operation, ["a", "b"], ["sum"]),
            helper.make_node("Identity", ["name"], ["greeting"]),
        ],
        [port("a", ["n", 2]), port("b", ["n", 2]), port("name", ["n"], Datatype.BYTES)],
        [port("sum", ["n", 2]), port("greeting", ["n"], Datatype.BYTES)],
    )


class TestSeveralInputsAndOutputs(RuntimeContract):
    plugin = "servery_runtime_onnx.plugin"
    framework = FRAMEWORK
    good_request = request(
        tensor("b", f32([1, 1], [2, 2])),
        tensor("name", np.array([b"ada", "bö".encode()], dtype=object)),
        tensor("a", f32([1, 2], [3, 4])),
    )
    good_response = InferResponse(
        model="m",
        outputs=(
            tensor("sum", f32([2, 3], [5, 6])),
            tensor("greeting", np.array([b"ada", "bö".encode()], dtype=object)),
        ),
    )
    wrong_request = request(
        tensor("a", f32([1, 2, 3])), tensor("b", f32([1, 1])), tensor("name", np.array([b"x"], dtype=object))
    )

    def write_model(self, directory: Path) -> None:
        save_model(sum_and_greeting("Add"), str(directory / "model.onnx"))

    def write_other_model(self, directory: Path) -> None:
        save_model(sum_and_greeting("Sub"), str(directory / "model.onnx"))


class TestFixedBatch(RuntimeContract):
    """A graph that was exported for two rows takes two, whatever else waits."""

    plugin = "servery_runtime_onnx.plugin"
    framework = FRAMEWORK
    batchable = False
    good_request = request(tensor("x", f32([1, 5], [2, 5])))
    good_response = InferResponse(model="m", outputs=(tensor("y", f32([3, 10])),))
    wrong_request = request(tensor("x", f32([1, 2])))

    def write_model(self, directory: Path) -> None:
        self._reduced("ReduceSum", directory)

    def write_other_model(self, directory: Path) -> None:
        self._reduced("ReduceMax", directory)

    def _reduced(self, operation: str, directory: Path) -> None:
        axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
        made = graph([helper.make_node(operation, ["x", "axes"], ["y"])], [port("x", [2, 2])], [port("y", [1, 2])])
        made.graph.initializer.append(axes)
        save_model(made, str(directory / "model.onnx"))


SAMPLES = {
    Datatype.BOOL: [True, False],
    Datatype.BYTES: [b"a", b"bc"],
    **{datatype: [0, 1] for datatype in Datatype if datatype.startswith(("INT", "UINT"))},
    **{datatype: [0.5, -2.0] for datatype in Datatype if datatype.startswith(("FP", "BF"))},
}


@pytest.mark.parametrize("datatype", Datatype)
def test_every_element_type_goes_in_and_comes_out(datatype: Datatype, tmp_path: Path) -> None:
    model = served(
        graph([helper.make_node("Identity", ["x"], ["y"])], [port("x", ["n"], datatype)], [port("y", ["n"], datatype)]),
        tmp_path,
    )
    sent = Tensor(name="x", data=np.array(SAMPLES[datatype], dtype=datatype.dtype), datatype=datatype)
    (found,) = model.predict(request(sent)).outputs
    assert (found.datatype, found.data.dtype, found.data.tolist()) == (datatype, datatype.dtype, sent.data.tolist())
    assert model.metadata().inputs[0].datatype is datatype


def test_every_element_type_of_the_protocol_has_a_tensor_type() -> None:
    assert set(DATATYPES.values()) == set(Datatype)


def test_numbers_of_v1_become_what_the_graph_takes(tmp_path: Path) -> None:
    model = served(line(3.0), tmp_path)
    for sent in (np.array([[1.0, 5.0]]), np.array([[1, 5]]), np.array([[True, True]])):
        (found,) = model.predict(request(tensor("input-0", sent))).outputs
        assert found.datatype is Datatype.FP32


@pytest.mark.parametrize(
    ("sent", "takes", "words"),
    [
        (np.array([1.5]), Datatype.INT64, r"input 'x' of shape \[1\] is FP64 and holds what INT64"),
        (np.array([float("nan")]), Datatype.INT32, "is FP64 and holds what INT32"),
        (np.array([300]), Datatype.UINT8, "is INT64 and holds what UINT8"),
        (np.array([2]), Datatype.BOOL, "is INT64 and holds what BOOL"),
        (np.array([1.0]), Datatype.BYTES, "is FP64; the graph takes BYTES"),
        (np.array([b"1"], dtype=object), Datatype.FP32, "is BYTES; the graph takes FP32"),
    ],
)
def test_what_the_graphs_type_cannot_hold_is_refused(sent: Any, takes: Datatype, words: str, tmp_path: Path) -> None:
    ports = [port("x", ["n"], takes)], [port("y", ["n"], takes)]
    model = served(graph([helper.make_node("Identity", ["x"], ["y"])], *ports), tmp_path)
    with pytest.raises(InputError, match=words):
        model.predict(request(tensor("x", sent)))


def test_only_the_outputs_that_are_asked_for_are_computed(tmp_path: Path) -> None:
    model = served(sum_and_greeting("Add"), tmp_path)
    asked = request(*TestSeveralInputsAndOutputs.good_request.inputs, outputs=("greeting",))
    assert [output.name for output in model.predict(asked).outputs] == ["greeting"]


def test_inputs_of_other_names_are_refused_with_the_graphs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"inputs \{'q': \[1, 2\]\} are not those of the graph: \['a', 'b', 'name'\]"):
        served(sum_and_greeting("Add"), tmp_path).predict(request(tensor("q", f32([1, 2]))))


def test_a_shape_that_a_node_inside_cannot_use_is_the_callers_fault(tmp_path: Path) -> None:
    model = served(sum_and_greeting("Add"), tmp_path)
    names = tensor("name", np.array([b"x"] * 3, dtype=object))
    with pytest.raises(InputError, match=r"inputs \{'a': \[2, 2\], 'b': \[3, 2\]"):
        model.predict(request(tensor("a", np.ones((2, 2), "f4")), tensor("b", np.ones((3, 2), "f4")), names))


@pytest.mark.parametrize(
    ("inputs", "output", "batchable"),
    [
        pytest.param([["n", 2], ["n", 2]], ["n", 2], True, id="one name everywhere"),
        pytest.param([[None, 2], [None, 2]], [None, 2], True, id="no name anywhere"),
        pytest.param([["n", 2], ["m", 2]], ["n", 2], False, id="inputs of two lengths"),
        pytest.param([["n", 2], ["n", 2]], ["found", 2], False, id="an output with a length of its own"),
        pytest.param([[4, 2], [4, 2]], [4, 2], False, id="a fixed length"),
        pytest.param([["n", 2], []], ["n", 2], False, id="an input without axes"),
    ],
)
def test_requests_are_merged_only_where_the_first_axis_is_one_free_length(
    inputs: list[Shape], output: Shape, batchable: bool, tmp_path: Path
) -> None:
    ports = [port(name, shape) for name, shape in zip("ab", inputs, strict=True)]
    made = graph([helper.make_node("Add", ["a", "b"], ["c"])], ports, [port("c", output)])
    assert served(made, tmp_path).batchable is batchable


def test_probabilities_by_class_become_a_column_each(tmp_path: Path) -> None:
    made = graph(
        [helper.make_node("ZipMap", ["x"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[3, 8])],
        [port("x", ["n", 2])],
        [],
    )
    map_type = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    made.graph.output.append(helper.make_value_info("y", helper.make_sequence_type_proto(map_type)))
    model = served(made, tmp_path)
    (found,) = model.predict(request(tensor("x", f32([0.25, 0.75], [1, 0])))).outputs
    assert (found.datatype, found.data.tolist()) == (Datatype.FP32, [[0.25, 0.75], [1.0, 0.0]])
    assert model.batchable


def test_an_output_that_no_protocol_carries_is_refused_by_name(tmp_path: Path) -> None:
    made = graph([helper.make_node("SequenceConstruct", ["x"], ["y"])], [port("x", ["n"])], [])
    of_tensors = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    made.graph.output.append(helper.make_value_info("y", of_tensors))
    with pytest.raises(LoadError, match=r"model\.onnx: output 'y' is a seq\(tensor\(float\)\), which no protocol"):
        served(made, tmp_path)


def test_weights_may_lie_in_a_file_beside_the_graph(tmp_path: Path) -> None:
    made = graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [port("x", ["n", 64])],
        [port("y", ["n", 64])],
    )
    weights = helper.make_tensor("w", TensorProto.FLOAT, [64, 64], np.eye(64, dtype=np.float32).tobytes(), raw=True)
    made.graph.initializer.append(weights)
    path = str(tmp_path / "model.onnx")
    save_model(made, path, save_as_external_data=True, location="model.onnx.data", size_threshold=16)
    assert (tmp_path / "model.onnx.data").stat().st_size >= 64 * 64 * 4
    model = ONNXModel()
    model.load(tmp_path)
    assert model.predict(request(tensor("x", np.ones((1, 64), "f4")))).outputs[0].data.sum() == 64


def test_the_latest_version_of_a_repository_with_one_model_is_served(tmp_path: Path) -> None:
    for version, slope in ((2, 2.0), (10, 10.0)):
        folder = tmp_path / "line" / str(version)
        folder.mkdir(parents=True)
        save_model(line(slope), str(folder / "model.onnx"))
    model = ONNXModel()
    model.load(tmp_path)
    assert model.predict(request(tensor("x", f32([1, 0])))).outputs[0].data.tolist() == [[10.0]]


@pytest.mark.gpu
@pytest.mark.skipif(
    "CUDAExecutionProvider" not in onnxruntime.get_available_providers(), reason="this onnxruntime has no CUDA"
)
def test_the_graph_runs_on_the_gpu_where_onnxruntime_can(tmp_path: Path) -> None:
    assert served(line(3.0), tmp_path)._session.get_providers()[0] == "CUDAExecutionProvider"
