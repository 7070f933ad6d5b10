"""What a repository's folders and configurations say is what is served."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, text_format
from servery_runtime_triton.model import TritonModel
from servery_runtime_triton.model import config as configs
from servery_runtime_triton.plugin import servery_runtimes
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import LoadError
from servery_sdk.testing import RuntimeContract
from tritonclient.grpc import model_config_pb2 as theirs

Write = Callable[..., Path]
Ask = Callable[..., InferRequest]

IO = """
input { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }
"""
TIMES = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", r.inputs()[0].as_numpy() * {factor})]) for r in requests]
"""


def times(factor: int) -> str:
    return TIMES.replace("{factor}", str(factor))


def first(response: InferResponse) -> Any:
    return response.outputs[0].data.ravel()[0]


class TestOneModel(RuntimeContract):
    """A repository of one Python model."""

    plugin = "servery_runtime_triton.plugin"
    framework = ("google.protobuf.text_format",)
    good_request = InferRequest(
        model="m", inputs=(Tensor(name="IN", data=np.array([[1, 2], [3, 4]], np.float32), datatype=Datatype.FP32),)
    )
    good_response = InferResponse(
        model="m", outputs=(Tensor(name="OUT", data=np.array([[3, 6], [9, 12]], np.float32), datatype=Datatype.FP32),)
    )
    wrong_request = InferRequest(
        model="m", inputs=(Tensor(name="IN", data=np.zeros((2, 3), np.float32), datatype=Datatype.FP32),)
    )

    def write_model(self, directory: Path) -> None:
        self._write(directory, 3)

    def write_other_model(self, directory: Path) -> None:
        self._write(directory, 4)

    def _write(self, directory: Path, factor: int) -> None:
        files = directory / "times" / "1"
        files.mkdir(parents=True)
        (files / "model.py").write_text(times(factor))
        config = f'backend: "python" max_batch_size: 8 dynamic_batching {{}} {IO.replace("-1", "2")}'
        (files.parent / "config.pbtxt").write_text(config)


def test_the_schema_is_triton_s() -> None:
    def described(message: Any) -> dict[str, Any]:
        fields = {f.name: (f.number, f.type, f.is_repeated, _name(f)) for f in message.fields}
        return {message.full_name: fields, **{k: v for n in message.nested_types for k, v in described(n).items()}}

    def _name(field: Any) -> str:
        kind = field.message_type or field.enum_type
        return kind.full_name if kind else ""

    mine, wanted = pb.DESCRIPTOR, theirs.DESCRIPTOR
    assert sorted(mine.message_types_by_name) == sorted(wanted.message_types_by_name)
    for name in mine.message_types_by_name:
        assert described(mine.message_types_by_name[name]) == described(wanted.message_types_by_name[name])
    assert pb.DataType.items() == theirs.DataType.items()


CONFIG = """
name: "m" platform: "onnxruntime_onnx" max_batch_size: 8
input [ { name: "a" data_type: TYPE_STRING dims: [ 1, -1 ] reshape { shape: [ ] } optional: true } ]
output { name: "b" data_type: TYPE_BF16 dims: 3 label_filename: "labels.txt" }
version_policy: { specific { versions: [ 1, 3 ] } }
instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 kind: KIND_GPU gpus: [ 0 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100
  priority_queue_policy { key: 1 value { max_queue_size: 3 } } }
parameters: { key: "k" value: { string_value: "v" } }
optimization { execution_accelerators { gpu_execution_accelerator : [ { name : "tensorrt" } ] } }
"""


def test_json_is_what_protobuf_makes_of_it_with_numbers_as_numbers() -> None:
    config = text_format.Parse(CONFIG, pb.ModelConfig())
    found = configs.as_json(config)
    assert json_format.ParseDict(found, pb.ModelConfig()) == config
    assert found["input"][0]["dims"] == [1, -1]
    assert found["input"][0]["format"] == "FORMAT_NONE"
    assert found["dynamic_batching"]["max_queue_delay_microseconds"] == 100
    assert found["dynamic_batching"]["priority_queue_policy"]["1"]["max_queue_size"] == 3
    assert "sequence_batching" not in found
    assert found["version_policy"] == {"specific": {"versions": [1, 3]}}


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", ["10"]),
        ("version_policy { latest { num_versions: 2 } }", ["2", "10"]),
        ("version_policy { all {} }", ["1", "2", "10"]),
        ("version_policy { specific { versions: [ 1, 2 ] } }", ["1", "2"]),
    ],
)
def test_the_policy_chooses_versions_and_the_highest_is_the_default(
    write: Write, load: Any, ask: Ask, policy: str, served: list[str]
) -> None:
    for version in ("1", "2", "10"):
        repository = write("v", times(int(version)), config=None, version=version)
    (repository / "v" / "config.pbtxt").write_text(f'backend: "python" {policy} {IO}')
    model = load(repository)["v"]
    assert model.metadata().versions == tuple(served)
    one = np.ones(1, np.float32)
    assert {version: first(model.predict(ask("v", version=version, IN=one))) for version in served} == {
        version: int(version) for version in served
    }
    assert first(model.predict(ask("v", IN=one))) == int(served[-1])


def test_a_directory_that_is_a_model_is_served_under_the_server_s_name(write: Write, ask: Ask) -> None:
    directory = write("alone", times(5), config=f'name: "other" backend: "python" {IO}') / "alone"
    assert TritonModel.stored(directory) == {}
    model = TritonModel()
    model.load(directory)
    assert first(model.predict(ask("any", IN=np.ones(1, np.float32)))) == 5
    model.close()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ('backend: "python" inputs { }', r"config.pbtxt: is not a model configuration: 1:19 : .* has no field named \"inputs\""),
        ('name: "other" backend: "python"', r"config.pbtxt: name 'other' is not that of the folder: 'm'"),
        ('backend: "dali"', "backend 'dali': there are: ensemble, onnxruntime, python, pytorch"),
        (
            f'backend: "python" sequence_batching {{ iterative_sequence: true }} {IO}',
            "sequence_batching.iterative_sequence is not served",
        ),
        ('backend: "python"', "names no outputs"),
        ('backend: "python" output { name: "x" dims: 1 }', "x: data_type TYPE_INVALID: give one of"),
        (f'backend: "python" max_batch_size: 2 dynamic_batching {{ preferred_batch_size: 4 }} {IO}', r"\[4\]: must be 1 to"),
        (f'backend: "python" version_policy {{ specific {{ versions: 7 }} }} {IO}', "names 7; found: 1"),
        (f'backend: "python" default_model_filename: "x.py" {IO}', r"1/x.py: no such file; found: model.py"),
        ('max_batch_size: -1 backend: "python" output { name: "x" data_type: TYPE_BOOL }', "must not be negative"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_served_says_why(write: Write, load: Any, config: str, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        load(write("m", times(1), config=config))


@pytest.mark.parametrize(
    ("backend", "words"), [("tensorrt_plan", "backend 'tensorrt_plan'"), ("tensorflow_savedmodel", "backend 'tensorf")]
)
def test_platforms_of_other_frameworks_are_named(write: Write, load: Any, backend: str, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        load(write("m", times(1), config=f'platform: "{backend}" {IO}'))


def test_preferred_sizes_delay_and_queue_are_wishes_to_the_predictor(write: Write, load: Any) -> None:
    batching = """max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 1500
        default_queue_policy { max_queue_size: 7 } }"""
    model = load(write("m", times(1), config=f'backend: "python" {batching} {IO}'))["m"]
    wishes = model.scheduling()
    assert (wishes.max_rows, wishes.preferred_rows, wishes.max_delay_seconds) == (8, (4, 8), 0.0015)
    assert (wishes.max_requests, wishes.parallel_calls) == (7, 1)


SHAPED = """backend: "python" max_batch_size: 4
input { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
output { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }"""


def test_an_input_is_reshaped_for_the_model(write: Write, load: Any, ask: Ask) -> None:
    source = times(1).replace(
        "r.inputs()[0].as_numpy() * 1", "r.inputs()[0].as_numpy()[:, None] + r.inputs()[0].as_numpy()"
    )
    model = load(write("m", source, config=SHAPED))["m"]
    answer = model.predict(ask("m", IN=np.array([[1], [2]], np.float32)))
    assert answer.outputs[0].data.tolist() == [[2, 3], [3, 4]]
    assert model.metadata().inputs[0].shape == (-1, 1)


STEPS = """
input { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }
ensemble_scheduling {
  step { model_name: "five" model_version: -1 input_map { key: "IN" value: "between" } output_map { key: "OUT" value: "Y" } }
  step { model_name: "three" model_version: 1 input_map { key: "IN" value: "X" } output_map { key: "OUT" value: "between" } }
}"""


@pytest.fixture
def steps(write: Write) -> Path:
    write("three", times(3), config=f'backend: "python" {IO}')
    return write("five", times(5), config=f'backend: "python" {IO}')


def test_an_ensemble_runs_its_steps_in_the_order_of_their_tensors(
    write: Write, load: Any, ask: Ask, steps: Path
) -> None:
    write("all", config=STEPS)
    (steps / "all" / "1" / ".keep").touch()
    model = load(steps)["all"]
    answer = model.predict(ask("all", X=np.ones(2, np.float32)))
    assert {tensor.name: tensor.data.tolist() for tensor in answer.outputs} == {"Y": [15, 15]}
    assert model.metadata().platform == "ensemble"


def test_an_ensemble_needs_no_folder_of_a_version(load: Any, ask: Ask, steps: Path) -> None:
    (steps / "all").mkdir()
    (steps / "all" / "config.pbtxt").write_text(STEPS)
    assert first(load(steps)["all"].predict(ask("all", X=np.ones(1, np.float32)))) == 15


@pytest.mark.parametrize(
    ("find", "put", "words"),
    [
        ('"five"', '"nine"', "step 'nine': no such model; there are: all, five, three"),
        ('value: "between" } output', 'value: "nowhere" } output', "nothing makes nowhere; made are: X, Y, between"),
        ('value: "X"', 'value: "Y"', "steps wait for one another: five, three"),
        ('key: "OUT" value: "Y"', 'key: "OUT" value: "X"', "X: made more than once"),
    ],
)
def test_an_ensemble_that_cannot_work_is_named(
    write: Write, load: Any, steps: Path, find: str, put: str, words: str
) -> None:
    assert find in STEPS
    write("all", config=STEPS.replace(find, put, 1))
    with pytest.raises(LoadError, match=words):
        load(steps)


def test_folders_that_are_no_models_are_left_out_with_a_warning(
    write: Write, load: Any, caplog: pytest.LogCaptureFixture
) -> None:
    repository = write("m", times(1), config=f'backend: "python" {IO}')
    for name in ("notes", ".git"):
        (repository / name).mkdir()
    assert list(load(repository)) == ["m"]
    (record,) = [record for record in caplog.records if record.message == "no model in folder"]
    assert record.__dict__["folder"].endswith("notes")


def test_flags_of_triton_are_said_in_the_predictor_s_words() -> None:
    (runtime,) = servery_runtimes()
    assert runtime.local_flags["model-store"] == runtime.local_flags["model_repository"] == "model_dir"
    assert runtime.local_flags["allow-grpc"] == "enable_grpc"
    assert runtime.local_flags["log-verbose"] == ""


def test_a_torchscript_model_without_torch_says_what_is_missing(
    write: Write, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    repository = write("m", config=f'platform: "pytorch_libtorch" {IO}')
    (repository / "m" / "1" / "model.pt").write_bytes(b"")
    with pytest.raises(LoadError, match=r"model\.pt: needs torch, which is not installed"):
        load(repository)
