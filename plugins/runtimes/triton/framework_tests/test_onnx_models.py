"""ONNX models of a repository, with and without a configuration, by onnxruntime itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import servery
from onnx import TensorProto, helper, save_model
from servery_runtime_triton.model import TritonModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError
from servery_sdk.testing import RuntimeContract

EXAMPLE = Path(__file__).parents[4] / "examples" / "triton-repository"
ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


def save(repository: Path, factor: float, *, shape: tuple[Any, ...] = ("rows", 3), config: str | None = None) -> None:
    """Write a model that multiplies ``x`` by ``factor`` to ``y``."""
    files = repository / "times" / "1"
    files.mkdir(parents=True)
    constant = helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])], "g", values[:1], values[1:], [constant]
    )
    save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(files / "model.onnx")
    )
    if config is not None:
        (files.parent / "config.pbtxt").write_text(config)


def request(data: np.ndarray, name: str = "x") -> InferRequest:
    return InferRequest(model="times", inputs=(Tensor(name=name, data=data, datatype=Datatype.of(data)),))


def loaded(repository: Path) -> TritonModel:
    model = TritonModel()
    model.load(repository)
    return model


class TestWithoutConfiguration(RuntimeContract):
    """What goes in and comes out is read from the file."""

    plugin = "servery_runtime_triton.plugin"
    framework = ("google.protobuf.text_format",)
    good_request = request(ROWS)
    good_response = InferResponse(model="times", outputs=(Tensor(name="y", data=ROWS * 2, datatype=Datatype.FP32),))
    wrong_request = request(ROWS[:, :2])

    def write_model(self, directory: Path) -> None:
        save(directory, 2)

    def write_other_model(self, directory: Path) -> None:
        save(directory, 3)


class TestReshaped(TestWithoutConfiguration):
    """The configuration shows clients another shape than the file has."""

    good_request = request(ROWS[:, :, None])
    good_response = InferResponse(
        model="times", outputs=(Tensor(name="y", data=ROWS[:, :, None] * 2, datatype=Datatype.FP32),)
    )
    wrong_request = request(ROWS)

    def write_model(self, directory: Path) -> None:
        self._write(directory, 2)

    def write_other_model(self, directory: Path) -> None:
        self._write(directory, 3)

    def _write(self, directory: Path, factor: float) -> None:
        io = '{{ name: "{}" data_type: TYPE_FP32 dims: [ 3, 1 ] reshape {{ shape: [ 3 ] }} }}'
        config = f'platform: "onnxruntime_onnx" max_batch_size: 8 input {io.format("x")} output {io.format("y")}'
        save(directory, factor, config=config)


def test_a_file_without_a_batch_axis_is_not_batched(tmp_path: Path) -> None:
    save(tmp_path, 2, shape=(2, 3))
    model = loaded(tmp_path)
    assert (model.batchable, model.configuration()["max_batch_size"]) == (False, 0)
    assert model.metadata().inputs[0].shape == (2, 3)
    assert model.predict(request(ROWS)).outputs[0].data.tolist() == (ROWS * 2).tolist()


def test_a_configuration_with_a_batch_size_is_completed_without_the_batch_axis(tmp_path: Path) -> None:
    save(tmp_path, 2, config='backend: "onnxruntime" max_batch_size: 1')
    model = loaded(tmp_path)
    assert model.configuration()["input"][0]["dims"] == [3]
    with pytest.raises(InputError, match="has 2 rows; model 'times' takes 1"):
        model.predict(request(ROWS))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('input { name: "z" data_type: TYPE_FP32 dims: 3 }', "input z: the file has: x"),
        ('parameters { key: "intra_op_thread_count" value { string_value: "many" } }', "'many': must be a number"),
    ],
)
def test_a_configuration_that_the_file_contradicts_is_refused(tmp_path: Path, config: str, words: str) -> None:
    save(tmp_path, 2, config=f'backend: "onnxruntime" {config}')
    with pytest.raises(LoadError, match=words):
        loaded(tmp_path)


@pytest.mark.local
@pytest.mark.timeout(300)
def test_the_example_names_two_irises() -> None:
    done = servery("predict", "-f", str(EXAMPLE / "service.yaml"), "-d", f"@{EXAMPLE / 'request.json'}")
    assert done.returncode == 0, done.stderr
    outputs = {output["name"]: output["data"] for output in json.loads(done.stdout)["outputs"]}
    assert outputs["LABEL"] == ["versicolor", "setosa"]
    assert np.reshape(outputs["PROBABILITIES"], (2, 3)).sum(axis=1) == pytest.approx([1, 1])


AS_TRITON = """
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata: {{name: tritons-own}}
spec:
  supportedModelFormats: [{{name: triton, version: "2"}}]
  protocolVersions: [v2, grpc-v2]
  containers:
  - name: kserve-container
    image: nvcr.io/nvidia/tritonserver:24.08-py3
    args: [tritonserver, --model-store=/mnt/models, --http-port=8080, --grpc-port=9000, --allow-http=true, --log-verbose=1]
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: iris}}
spec:
  predictor:
    model:
      modelFormat: {{name: triton}}
      runtime: tritons-own
      storageUri: file://{models}
"""


@pytest.mark.local
@pytest.mark.timeout(300)
def test_a_manifest_with_tritons_image_and_flags_runs_here(tmp_path: Path) -> None:
    (tmp_path / "service.yaml").write_text(AS_TRITON.format(models=EXAMPLE / "models"))
    done = servery("predict", "-f", str(tmp_path / "service.yaml"), "-d", f"@{EXAMPLE / 'request.json'}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"][0]["data"] == ["versicolor", "setosa"]
