"""Models of the Python backend run as they are: Triton's documented examples, and what its README promises."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from servery_runtime_triton.model import TritonModel
from servery_runtime_triton.model.triton_python_backend_utils import TritonModelException
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.serving import InputError, LoadError

Ask = Callable[..., InferRequest]
Write = Callable[..., Path]
Models = dict[str, TritonModel]

ONE = np.array([[1, 2, 3, 4]], np.float32)
TEN = ONE * 10

IO = """
input { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }
"""
CODE = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        given = request.inputs()[0].as_numpy()
        {answer}
"""


def code(answer: str) -> str:
    return CODE.replace("{answer}", answer.replace("\n", "\n        "))


def outputs(response: InferResponse) -> dict[str, Any]:
    return {tensor.name: tensor.data.tolist() for tensor in response.outputs}


def test_add_sub_answers_sum_and_difference(documented: Models, ask: Ask) -> None:
    answer = documented["add_sub"].predict(ask("add_sub", INPUT0=TEN, INPUT1=ONE))
    assert outputs(answer) == {"OUTPUT0": [[11, 22, 33, 44]], "OUTPUT1": [[9, 18, 27, 36]]}
    assert answer.version == "1"


def test_several_requests_of_one_call_are_given_as_they_are(documented: Models, ask: Ask) -> None:
    model = documented["described"]
    texts = [[["a"]], [["b"], ["c"]]]
    answers = model.predict_many([ask("described", id=str(n), TEXT=text) for n, text in enumerate(texts)])
    said = [json.loads(answer.outputs[0].data[0, 0]) for answer in answers]
    assert [(one["requests"], one["id"], one["text"]) for one in said] == [(2, "0", ["a"]), (2, "1", ["b", "c"])]
    assert said[0] | {"text": [], "id": ""} == {
        "text": [],
        "requests": 2,
        "id": "",
        "parameters": {},
        "version": "1",
        "name": "described",
        "backend": "python",
    }
    assert answers[0].parameters == {"answered_by": "described"}


def test_a_request_that_does_not_fit_leaves_its_neighbours_alone(documented: Models, ask: Ask) -> None:
    good, bad = ask("add_sub", INPUT0=TEN, INPUT1=ONE), ask("add_sub", INPUT0=TEN, INPUT1=ONE[:, :3])
    first, wrong, last = documented["add_sub"].predict_many([good, bad, good])
    assert isinstance(wrong, InputError)
    assert "input 'INPUT1' has shape [1, 3]; model 'add_sub' takes [-1, 4]" in str(wrong)
    assert outputs(first) == outputs(last) == {"OUTPUT0": [[11, 22, 33, 44]], "OUTPUT1": [[9, 18, 27, 36]]}


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"INPUT0": ONE}, "needs INPUT1; found: 'INPUT0' [1, 4]"),
        ({"INPUT0": ONE, "INPUT1": ONE, "X": ONE}, "has no input 'X' [1, 4]; it takes: INPUT0, INPUT1"),
        (
            {"INPUT0": ONE, "INPUT1": ONE.astype(int)},
            "input 'INPUT1' of shape [1, 4] is INT64; model 'add_sub' takes FP32",
        ),
        ({"INPUT0": ONE.repeat(9, 0), "INPUT1": ONE}, "has 9 rows; model 'add_sub' takes 8 (max_batch_size)"),
        ({"INPUT0": ONE[0], "INPUT1": ONE}, "input 'INPUT0' has shape [4]; model 'add_sub' takes [-1, 4]"),
    ],
)
def test_inputs_are_refused_by_name_and_shape(documented: Models, ask: Ask, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as refused:
        documented["add_sub"].predict(ask("add_sub", **inputs))
    assert words in str(refused.value)


def test_responses_of_a_decoupled_model_come_behind_one_another(documented: Models, ask: Ask) -> None:
    request = ask("repeat", IN=np.array([7, 8, 9], np.int32))
    assert outputs(documented["repeat"].predict(request)) == {"OUT": [7, 8, 9], "INDEX": [0, 1, 2]}
    sent: list[Any] = []
    documented["repeat"].stream(request, lambda answer, is_last: sent.append(answer))
    assert [outputs(one)["OUT"] for one in sent if one is not None] == [[7], [8], [9]]


def test_a_decoupled_model_may_answer_nothing(documented: Models, ask: Ask) -> None:
    assert documented["repeat"].predict(ask("repeat", IN=np.array([], np.int32))).outputs == ()


def test_an_error_among_a_decoupled_models_responses_is_the_answer(documented: Models, ask: Ask) -> None:
    with pytest.raises(ServeryError, match="no negatives") as refused:
        documented["repeat"].predict(ask("repeat", IN=np.array([7, -1], np.int32)))
    assert refused.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_model_asks_another_of_the_repository(documented: Models, ask: Ask) -> None:
    answer = documented["choose"].predict(ask("choose", MODEL_NAME=["add_sub"], INPUT0=TEN, INPUT1=ONE))
    assert outputs(answer) == {"OUTPUT0": [[11, 22, 33, 44]], "OUTPUT1": [[9, 18, 27, 36]]}


@pytest.mark.parametrize(
    ("name", "words", "error_code"),
    [
        ("nobody", "model 'nobody' is not loaded; loaded are: add_sub, choose", ErrorCode.UNAVAILABLE),
        ("repeat", "model 'repeat' is decoupled: call exec(decoupled=True)", ErrorCode.INTERNAL),
        ("described", "model 'described' has no input 'INPUT0' [1, 4]", ErrorCode.INVALID_ARGUMENT),
    ],
)
def test_what_another_model_says_is_an_error_of_its_response(
    documented: Models, ask: Ask, name: str, words: str, error_code: ErrorCode
) -> None:
    with pytest.raises(ServeryError) as failed:
        documented["choose"].predict(ask("choose", MODEL_NAME=[name], INPUT0=TEN, INPUT1=ONE))
    assert words in str(failed.value)
    assert failed.value.code is error_code


def test_a_model_that_calls_itself_with_its_only_instance_is_told(
    documented: Models, ask: Ask, write: Write, load: Any
) -> None:
    answer = "return pb_utils.InferenceRequest(model_name='self', inputs=request.inputs()).exec()"
    models = load(write("self", code(answer), config=f'backend: "python" {IO}'))
    with pytest.raises(ServeryError, match="calls itself, and all of its 1 instances wait"):
        models["self"].predict(ask("self", IN=ONE[0]))


def test_asynchronous_models_ask_several_at_once(documented: Models, ask: Ask) -> None:
    answer = documented["together"].predict(ask("together", INPUT0=ONE))
    assert outputs(answer) == {"ONCE": [[1, 2, 3, 4]], "TWICE": [[2, 4, 6, 8]]}


def test_a_model_reads_the_responses_of_a_decoupled_one(documented: Models, ask: Ask) -> None:
    assert outputs(documented["square_sum"].predict(ask("square_sum", IN=np.array([1, 2, 3], np.int32)))) == {
        "SUM": [14]
    }


def test_a_thread_of_the_models_own_may_ask_others(write: Write, load: Any, ask: Ask) -> None:
    write(
        "double",
        code("return pb_utils.InferenceResponse([pb_utils.Tensor('OUT', given * 2)])"),
        config=f'backend: "python" {IO}',
    )
    threaded = (
        "import threading\n"
        "asked = pb_utils.InferenceRequest(model_name='double', inputs=[pb_utils.Tensor('IN', given)])\n"
        "found = []\n"
        "thread = threading.Thread(target=lambda: found.append(asked.exec()))\n"
        "thread.start()\n"
        "thread.join()\n"
        "return found[0]"
    )
    models = load(write("threaded", code(threaded), config=f'backend: "python" {IO}'))
    assert outputs(models["threaded"].predict(ask("threaded", IN=ONE[0]))) == {"OUT": [2, 4, 6, 8]}


def test_completed_configuration_is_metadata_and_scheduling(documented: Models) -> None:
    metadata = documented["described"].metadata()
    assert [(tensor.name, tensor.datatype, tensor.shape) for tensor in metadata.inputs] == [("TEXT", "BYTES", (-1, 1))]
    assert (metadata.platform, metadata.versions) == ("python", ("1",))
    assert documented["described"].configuration()["max_batch_size"] == 4
    assert documented["described"].batchable
    assert documented["add_sub"].scheduling().parallel_calls == 2
    assert not documented["choose"].batchable


def test_instances_answer_at_once(write: Write, load: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = ModuleType("meeting")
    meeting.barrier = threading.Barrier(2)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "meeting", meeting)
    met = "import meeting\nmeeting.barrier.wait(20)\nreturn pb_utils.InferenceResponse([pb_utils.Tensor('OUT', given)])"
    models = load(write("both", code(met), config=f'backend: "python" {IO} instance_group {{ count: 2 }}'))
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(models["both"].predict, [ask("both", IN=ONE[0])] * 2))
    assert [outputs(answer) for answer in answers] == [{"OUT": [1, 2, 3, 4]}] * 2


def test_a_model_may_write_into_its_inputs(write: Write, load: Any, ask: Ask) -> None:
    request = ask("inside", IN=np.frombuffer(ONE[0].tobytes(), np.float32))
    inside = code("given *= 2\nreturn pb_utils.InferenceResponse([pb_utils.Tensor('OUT', given)])")
    model = load(write("inside", inside, config=f'backend: "python" {IO}'))["inside"]
    assert [outputs(model.predict(request)) for _ in range(2)] == [{"OUT": [2, 4, 6, 8]}] * 2


def test_files_beside_a_model_are_its_own(write: Write, load: Any, ask: Ask) -> None:
    helped = code("return pb_utils.InferenceResponse([pb_utils.Tensor('OUT', given * FACTOR)])")
    for name, factor in (("three", 3), ("five", 5)):
        repository = write(name, f"from beside import FACTOR\n{helped}", config=f'backend: "python" {IO}')
        (repository / name / "1" / "beside.py").write_text(
            f"FACTOR = np.float32({factor})\n".join(["import numpy as np\n", ""])
        )
    models = load(repository)
    assert {name: outputs(model.predict(ask(name, IN=ONE[0])))["OUT"][0] for name, model in models.items()} == {
        "three": 3,
        "five": 5,
    }


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ("raise ValueError('such a day')", ValueError, "such a day"),
        ("return 7", TritonModelException, "execute answers with pb_utils.InferenceResponse, found a int"),
    ],
    ids=["raises", "returns-something-else"],
)
def test_what_a_model_raises_is_its_own_error(
    write: Write, load: Any, ask: Ask, answer: str, error: type[Exception], words: str
) -> None:
    model = load(write("bad", code(answer), config=f'backend: "python" {IO}'))["bad"]
    with pytest.raises(error, match=words):
        model.predict(ask("bad", IN=ONE[0]))


def test_too_few_responses_are_named(write: Write, load: Any, ask: Ask) -> None:
    few = "import triton_python_backend_utils\n\nclass TritonPythonModel:\n    def execute(self, requests):\n        return []\n"
    model = load(write("few", few, config=f'backend: "python" {IO}'))["few"]
    with pytest.raises(Exception, match="execute returned 0 responses to 1 requests"):
        model.predict(ask("few", IN=ONE[0]))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import nowhere\n", r"model.py: ModuleNotFoundError: No module named 'nowhere' \(line 1\)"),
        ("x = 1\n", "needs a class TritonPythonModel with execute"),
        (
            "class TritonPythonModel:\n    def execute(self, r): ...\n    def initialize(self, a):\n        a['x']\n",
            "KeyError: 'x'",
        ),
        ("import sys\nsys.exit('no')\n", "model.py: SystemExit: no"),
    ],
)
def test_a_model_that_does_not_load_says_where(write: Write, load: Any, source: str, words: str) -> None:
    with pytest.raises(LoadError, match=words):
        load(write("bad", source, config=f'backend: "python" {IO}'))


def test_our_module_is_there_only_for_models(documented: Models, ask: Ask) -> None:
    documented["add_sub"].predict(ask("add_sub", INPUT0=TEN, INPUT1=ONE))
    assert "triton_python_backend_utils" not in sys.modules


def test_a_model_is_initialized_with_texts_and_finalized(write: Write, load: Any, tmp_path: Path) -> None:
    source = (
        "import json, pathlib\n\nclass TritonPythonModel:\n"
        "    def initialize(self, args):\n"
        "        parameters = json.loads(args['model_config'])['parameters']\n"
        "        self.file = pathlib.Path(parameters['log']['string_value'])\n"
        "        self.file.write_text(json.dumps(args))\n"
        "    def execute(self, requests): ...\n"
        "    def finalize(self):\n"
        "        self.file.write_text('finalized')\n"
    )
    log = tmp_path / "log"
    parameter = f'parameters {{ key: "log" value {{ string_value: "{log}" }} }}'
    repository = write("life", source, config=f'backend: "python" {IO} {parameter}')
    model = load(repository)["life"]
    args = json.loads(log.read_text())
    assert all(isinstance(value, str) for value in args.values())
    assert (args["model_repository"], args["model_version"]) == (str(repository / "life"), "1")
    assert json.loads(args["model_config"])["input"][0]["dims"] == [-1]
    model.close()
    assert log.read_text() == "finalized"
    model.close = lambda: None  # type: ignore[method-assign]
