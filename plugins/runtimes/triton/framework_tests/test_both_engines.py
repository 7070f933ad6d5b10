"""One suite on Servery's own backends and on NVIDIA's ``tritonserver``."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import servery
from servery_runtime_triton.model import TritonModel
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.serving import InputError, LoadError, Overrides
from servery_sdk.testing import RuntimeContract

MODELS = Path(__file__).parents[1] / "tests" / "models"
ENGINES = ("servery", "tritonserver")
ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
ONE = np.array([[1, 2, 3, 4]], np.float32)
TEN = ONE * 10

TIMES = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", request.inputs()[0].as_numpy() * FACTOR)])
            for request in requests
        ]
"""
TENSOR = '{{ name: "{}" data_type: TYPE_FP32 dims: [ 3 ] }}'
CONFIG = (
    f'backend: "python" max_batch_size: 8 input {TENSOR.format("x")} output {TENSOR.format("y")} dynamic_batching {{}}'
)

Models = Mapping[str, TritonModel]


def ask(model: str, **inputs: Any) -> InferRequest:
    tensors = []
    for name, data in inputs.items():
        array = np.asarray(data, dtype=object if isinstance(data, list) else None)
        tensors.append(Tensor(name=name, data=array, datatype=Datatype.of(array)))
    return InferRequest(model=model, inputs=tuple(tensors))


def outputs(response: InferResponse) -> dict[str, Any]:
    return {tensor.name: tensor.data.tolist() for tensor in response.outputs}


def write(repository: Path, name: str, *, config: str = CONFIG, code: str = TIMES, factor: float = 2) -> None:
    files = repository / name / "1"
    files.mkdir(parents=True)
    (files / "model.py").write_text(code.replace("FACTOR", f"{factor:g}"))
    (files.parent / "config.pbtxt").write_text(config)


class TestOurs(RuntimeContract):
    """A Python model by our backend."""

    engine = "servery"
    plugin = "servery_runtime_triton.plugin"
    framework = ("google.protobuf.text_format",)
    good_request = ask("times", x=ROWS)
    good_response = InferResponse(model="times", outputs=(Tensor(name="y", data=ROWS * 2, datatype=Datatype.FP32),))
    wrong_request = ask("times", x=ROWS[:, :2])

    def write_model(self, directory: Path) -> None:
        write(directory, "times", factor=2)

    def write_other_model(self, directory: Path) -> None:
        write(directory, "times", factor=3)

    def _made(self) -> TritonModel:
        return TritonModel(engine=self.engine)


@pytest.mark.local
@pytest.mark.usefixtures("tritonserver_on_path")
class TestTheirs(TestOurs):
    """The same model by ``tritonserver``."""

    engine = "tritonserver"


@pytest.fixture(scope="module", params=ENGINES)
def documented(
    request: pytest.FixtureRequest, tritonserver: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Models]:
    """Triton's documented examples, loaded by either engine."""
    repository = tmp_path_factory.mktemp("documented") / "models"
    shutil.copytree(MODELS, repository, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{tritonserver}{os.pathsep}{os.environ['PATH']}")
        models: dict[str, TritonModel] = {}
        for name, make in TritonModel.stored(repository, engine=request.param).items():
            models[name] = make()  # type: ignore[assignment]
            models[name].load(repository)
    yield models
    for model in models.values():
        model.close()


def test_sum_and_difference(documented: Models) -> None:
    answer = documented["add_sub"].predict(ask("add_sub", INPUT0=TEN, INPUT1=ONE))
    assert outputs(answer) == {"OUTPUT0": [[11, 22, 33, 44]], "OUTPUT1": [[9, 18, 27, 36]]}
    assert answer.version == "1"


def test_a_request_that_does_not_fit_leaves_its_neighbours_alone(documented: Models) -> None:
    good, bad = ask("add_sub", INPUT0=TEN, INPUT1=ONE), ask("add_sub", INPUT0=TEN, INPUT1=ONE[:, :3])
    first, wrong, last = documented["add_sub"].predict_many([good, bad, good])
    assert isinstance(wrong, InputError)
    assert "input 'INPUT1' has shape [1, 3]; model 'add_sub' takes [-1, 4]" in str(wrong)
    assert isinstance(first, InferResponse)
    assert isinstance(last, InferResponse)
    assert outputs(first) == outputs(last) == {"OUTPUT0": [[11, 22, 33, 44]], "OUTPUT1": [[9, 18, 27, 36]]}


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"INPUT0": ONE}, "needs INPUT1; found: 'INPUT0' [1, 4]"),
        ({"INPUT0": ONE, "INPUT1": ONE, "X": ONE}, "has no input 'X' [1, 4]; it takes: INPUT0, INPUT1"),
        ({"INPUT0": ONE, "INPUT1": ONE.astype(int)}, "is INT64; model 'add_sub' takes FP32"),
        ({"INPUT0": ONE.repeat(9, 0), "INPUT1": ONE.repeat(9, 0)}, "has 9 rows; model 'add_sub' takes 8"),
    ],
    ids=["missing", "unknown", "datatype", "rows"],
)
def test_inputs_are_refused_by_name_and_shape(documented: Models, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        documented["add_sub"].predict(ask("add_sub", **inputs))
    assert words in str(refused.value)


def test_responses_of_a_decoupled_model_come_behind_one_another_or_one_by_one(documented: Models) -> None:
    request = ask("repeat", IN=np.array([7, 8, 9], np.int32))
    assert documented["repeat"].is_decoupled
    assert outputs(documented["repeat"].predict(request)) == {"OUT": [7, 8, 9], "INDEX": [0, 1, 2]}
    sent: list[Any] = []
    documented["repeat"].stream(request, lambda answer, is_last: sent.append(answer))
    assert [outputs(one)["OUT"] for one in sent if one is not None] == [[7], [8], [9]]


def test_a_decoupled_model_may_answer_nothing(documented: Models) -> None:
    assert documented["repeat"].predict(ask("repeat", IN=np.array([], np.int32))).outputs == ()


def test_an_error_among_a_decoupled_models_responses_is_the_answer(documented: Models) -> None:
    with pytest.raises(ServeryError, match="no negatives"):
        documented["repeat"].predict(ask("repeat", IN=np.array([7, -1], np.int32)))


def test_a_model_asks_others_of_the_repository(documented: Models) -> None:
    answer = documented["choose"].predict(ask("choose", MODEL_NAME=[b"add_sub"], INPUT0=TEN, INPUT1=ONE))
    assert outputs(answer) == {"OUTPUT0": [[11, 22, 33, 44]], "OUTPUT1": [[9, 18, 27, 36]]}
    answer = documented["together"].predict(ask("together", INPUT0=ONE))
    assert outputs(answer) == {"ONCE": [[1, 2, 3, 4]], "TWICE": [[2, 4, 6, 8]]}
    answer = documented["square_sum"].predict(ask("square_sum", IN=np.array([1, 2, 3], np.int32)))
    assert outputs(answer) == {"SUM": [14]}


def test_what_another_model_says_is_an_error(documented: Models) -> None:
    with pytest.raises(ServeryError, match="nobody"):
        documented["choose"].predict(ask("choose", MODEL_NAME=[b"nobody"], INPUT0=TEN, INPUT1=ONE))


def test_completed_configuration_is_metadata_and_scheduling(documented: Models) -> None:
    metadata = documented["described"].metadata()
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in metadata.inputs] == [("TEXT", "BYTES", (-1, 1))]
    assert (metadata.platform, metadata.versions) == ("python", ("1",))
    assert documented["described"].configuration()["max_batch_size"] == 4
    assert documented["described"].batchable
    assert not documented["choose"].batchable


def test_sequences_meet_their_state(documented: Models) -> None:
    def told(sequence: int, value: int, **flags: bool) -> int:
        asked = ask("running_total", IN=np.array([[value]], np.int32))
        parameters = {"sequence_id": sequence, **{f"sequence_{name}": flag for name, flag in flags.items()}}
        (answer,) = documented["running_total"].predict_many([replace(asked, parameters=parameters)])
        if isinstance(answer, ServeryError):
            raise answer
        return int(answer.outputs[0].data[0, 0])

    assert [told(1, 5, start=True), told(2, 7, start=True), told(1, 1), told(2, 2)] == [5, 7, 6, 9]
    assert [told(2, 0, end=True), told(1, 3, end=True)] == [9, 9]
    with pytest.raises(ServeryError, match="must specify the START flag on the first request of the sequence") as wrong:
        told(1, 5)
    assert wrong.value.code is ErrorCode.INVALID_ARGUMENT


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tritonserver_on_path: Path) -> str:
    """Either."""
    return str(request.param)


@pytest.fixture
def load() -> Iterator[Callable[..., TritonModel]]:
    """Loads a repository's only model; gives it back at the end."""
    loaded: list[TritonModel] = []

    def load(repository: Path, engine: str, overrides: Overrides | None = None) -> TritonModel:
        model = TritonModel(engine=engine)
        if overrides is not None:
            model.override(overrides)
        model.load(repository)
        loaded.append(model)
        return model

    yield load
    for model in loaded:
        model.close()


def test_a_model_is_loaded_with_a_configuration_and_files(engine: str, load: Any, tmp_path: Path) -> None:
    write(tmp_path, "times")
    config = load(tmp_path, engine).configuration()
    overrides = Overrides(
        configuration=json.dumps({**config, "max_batch_size": 16}),
        files={"1/model.py": TIMES.replace("FACTOR", "5").encode()},
    )
    model = load(tmp_path, engine, overrides)
    assert model.configuration()["max_batch_size"] == 16
    assert outputs(model.predict(ask("times", x=ROWS))) == {"y": (ROWS * 5).tolist()}


def test_a_sample_is_answered_before_anybody_asks(engine: str, load: Any, tmp_path: Path) -> None:
    sample = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: 3 zero_data: true } }'
    code = TIMES.replace("    def execute", "    asked = 0\n    def execute").replace(
        "        return [", "        self.asked += len(requests)\n        return ["
    )
    write(
        tmp_path,
        "times",
        config=f'{CONFIG} model_warmup {{ name: "s" batch_size: 2 count: 2 {sample} }}',
        code=code.replace("FACTOR", "self.asked"),
    )
    assert outputs(load(tmp_path, engine).predict(ask("times", x=ROWS))) == {"y": (ROWS * 5).tolist()}


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        (CONFIG, "import nowhere\n", "nowhere"),
        (CONFIG.replace("max_batch_size", "max_rows"), TIMES, r"config\.pbtxt"),
    ],
    ids=["model", "configuration"],
)
def test_a_model_that_does_not_load_says_why(
    engine: str, load: Any, tmp_path: Path, config: str, code: str, words: str
) -> None:
    write(tmp_path, "times", config=config, code=code)
    with pytest.raises(LoadError, match=words) as refused:
        load(tmp_path, engine)
    assert str(tmp_path / "times") in str(refused.value)


def child_of(model: TritonModel) -> int:
    """The process of ``tritonserver`` itself; its parent is the guard."""
    guard = model._model._server._running._process.pid  # type: ignore[attr-defined]
    return int(Path(f"/proc/{guard}/task/{guard}/children").read_text())


@pytest.mark.usefixtures("tritonserver_on_path")
def test_a_server_that_dies_starts_again_with_the_models_that_it_had(load: Any, tmp_path: Path) -> None:
    write(tmp_path, "times")
    model = load(tmp_path, "tritonserver")
    process = os.pidfd_open(child_of(model))
    signal.pidfd_send_signal(process, signal.SIGKILL)
    model._model._server._running._reader.join(30)
    os.close(process)
    assert outputs(model.predict(ask("times", x=ROWS))) == {"y": (ROWS * 2).tolist()}


DIES = """
import os, sys
from pathlib import Path
from servery_runtime_triton.model import TritonModel
model = TritonModel(engine="tritonserver")
model.load(Path(sys.argv[1]))
guard = model._model._server._running._process.pid
print(Path(f"/proc/{guard}/task/{guard}/children").read_text(), flush=True)
input()
os.kill(os.getpid(), 9)
"""


@pytest.mark.usefixtures("tritonserver_on_path")
def test_a_server_ends_with_us_however_we_end(tmp_path: Path) -> None:
    write(tmp_path, "times")
    with subprocess.Popen(
        [sys.executable, "-c", DIES, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as ours:
        assert ours.stdout is not None
        theirs = os.pidfd_open(int(ours.stdout.readline()))
        ours.communicate("\n")
    ended, _, _ = select.select([theirs], [], [], 30)
    os.close(theirs)
    assert ended, "tritonserver outlives who started it"


@pytest.mark.usefixtures("tritonserver_on_path")
def test_the_engine_that_is_there_is_used_unless_it_lacks_a_backend(tmp_path: Path, caplog: Any) -> None:
    write(tmp_path, "times")
    model = TritonModel()
    model.load(tmp_path)
    assert type(model._model).__name__ == "ForwardedModel"
    model.close()
    (tmp_path / "other" / "1").mkdir(parents=True)
    (tmp_path / "other" / "config.pbtxt").write_text('backend: "onnxruntime"')
    model = TritonModel("times")
    model.load(tmp_path)
    assert type(model._model).__name__ == "OwnModel"
    model.close()
    (record,) = [record for record in caplog.records if "not used" in record.message]
    assert "onnxruntime (model 'other')" in record.reason


SERVICE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: times}}
spec:
  predictor:
    model:
      modelFormat: {{name: triton}}
      storageUri: file://{models}
      args: ["--engine=tritonserver"]
"""


@pytest.mark.local
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("tritonserver_on_path")
def test_a_manifest_chooses_the_engine(tmp_path: Path) -> None:
    write(tmp_path / "models", "times")
    (tmp_path / "service.yaml").write_text(SERVICE.format(models=tmp_path / "models"))
    body = {"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": ROWS.tolist()}]}
    done = servery("predict", "-f", str(tmp_path / "service.yaml"), "-d", json.dumps(body))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"][0]["data"] == (ROWS * 2).ravel().tolist()
