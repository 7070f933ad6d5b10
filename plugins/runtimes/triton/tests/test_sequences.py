"""Sequences have slots: their requests meet the same rows of the same instance, in order, and say where they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format
from servery_runtime_triton.model import TritonModel
from servery_runtime_triton.model.sequences import Sequences
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import InputError, LoadError

CONTROLS = """
control_input { name: "START" control { kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ] } }
control_input { name: "END" control { kind: CONTROL_SEQUENCE_END int32_false_true: [ -1, 1 ] } }
control_input { name: "READY" control { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } }
control_input { name: "CORRID" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
"""


class Recorder:
    """A backend that keeps what each row of each call was told, and answers its input."""

    instances_share = False

    def __init__(self, *, gathers: bool = True) -> None:
        self.gathers = gathers
        self.calls: list[list[tuple[float, ...]]] = []
        self.fails = False

    def execute(self, requests: Sequence[InferRequest]) -> Sequence[Sequence[InferResponse] | ServeryError]:
        rows = []
        for request in requests:
            inputs = {tensor.name: tensor.data for tensor in request.inputs}
            assert len(inputs) == len(request.inputs)
            names = ("START", "END", "READY", "CORRID", "IN")
            rows += [tuple(float(inputs[name][row, 0]) for name in names) for row in range(len(inputs["IN"]))]
        self.calls.append(rows)
        if self.fails:
            raise ValueError("such a day")
        return [[InferResponse(model="m", outputs=(replace(request.inputs[0], name="OUT"),))] for request in requests]

    def close(self) -> None:
        raise NotImplementedError


class Clock:
    """Time as a test makes it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def sequences(
    *instances: Recorder, batching: str = "", rows: int = 2, clock: Callable[[], float] = time.monotonic
) -> Sequences:
    config = text_format.Parse(
        f'name: "m" max_batch_size: {rows} sequence_batching {{ {CONTROLS} {batching} }}', pb.ModelConfig()
    )
    return Sequences(config, instances, clock=clock)


def ask(sequence: Any, value: int = 0, flags: str = "", *, width: int = 1) -> InferRequest:
    parameters = {
        **({"sequence_id": sequence} if sequence is not None else {}),
        **{f"sequence_{flag}": True for flag in flags.split()},
    }
    data = np.full((1, width), value, np.int32)
    return InferRequest(
        model="m", inputs=(Tensor(name="IN", data=data, datatype=Datatype.INT32),), parameters=parameters
    )


def values(answers: Sequence[Any]) -> list[Any]:
    return [answer if isinstance(answer, ServeryError) else answer[0].outputs[0].data[0, 0] for answer in answers]


def test_rows_are_slots_and_controls_say_where_in_its_sequence_a_request_is() -> None:
    recorder = Recorder()
    made = sequences(recorder)
    assert values(made.execute([ask(7, 1, "start"), ask(8, 2, "start")])) == [1, 2]
    assert values(made.execute([ask(8, 3)])) == [3]
    assert values(made.execute([ask(8, 4, "end"), ask(7, 5)])) == [4, 5]
    assert values(made.execute([ask(9, 6, "start end")])) == [6]
    assert recorder.calls == [
        [(1, -1, 1, 7, 1), (1, -1, 1, 8, 2)],
        # The first slot's sequence asks nothing: its row is not ready.
        [(0, -1, 0, 0, 3), (0, -1, 1, 8, 3)],
        [(0, -1, 1, 7, 5), (0, 1, 1, 8, 4)],
        # A slot is free again after its sequence's end.
        [(0, -1, 0, 0, 6), (1, 1, 1, 9, 6)],
    ]


def test_later_requests_of_a_sequence_follow_in_calls_of_their_own_in_order() -> None:
    recorder = Recorder()
    made = sequences(recorder)
    asked = [ask(7, 1, "start"), ask(7, 2), ask(8, 3, "start"), ask(7, 4, "end")]
    assert values(made.execute(asked)) == [1, 2, 3, 4]
    assert [[row[-1] for row in call if row[2]] for call in recorder.calls] == [[1, 3], [2], [4]]


def test_sequences_are_shared_among_instances_and_stay_where_they_are() -> None:
    one, other = Recorder(), Recorder()
    made = sequences(one, other)
    made.execute([ask(7, 1, "start"), ask(8, 2, "start"), ask(9, 3, "start")])
    made.execute([ask(8, 4)])
    assert [[row[3] for row in call] for call in one.calls] == [[7, 9]]
    assert [[row[3] for row in call] for call in other.calls] == [[8], [8]]


def test_a_backend_that_does_not_gather_gets_the_rows_merged() -> None:
    recorder = Recorder(gathers=False)
    made = sequences(recorder)
    assert values(made.execute([ask(7, 1, "start"), ask(8, 2, "start")])) == [1, 2]
    assert recorder.calls == [[(1, -1, 1, 7, 1), (1, -1, 1, 8, 2)]]


def test_requests_of_other_shapes_are_calls_of_their_own() -> None:
    recorder = Recorder(gathers=False)
    made = sequences(recorder)
    assert values(made.execute([ask(7, 1, "start"), ask(8, 2, "start", width=3)])) == [1, 2]
    assert [[row[3] for row in call] for call in recorder.calls] == [[7], [0, 8]]


def test_the_oldest_strategy_fills_no_slots() -> None:
    recorder = Recorder()
    made = sequences(recorder, batching="oldest { }")
    made.execute([ask(7, 1, "start"), ask(8, 2, "start")])
    made.execute([ask(8, 3)])
    assert recorder.calls[1:] == [[(0, -1, 1, 8, 3)]]


def test_a_sequence_waits_for_a_slot_of_one_that_ends_beside_it_and_is_refused_otherwise() -> None:
    made = sequences(Recorder(), rows=1)
    answers = values(made.execute([ask(7, 1, "start end"), ask(8, 2, "start"), ask(8, 3)]))
    assert answers == [1, 2, 3]
    (refused,) = values(made.execute([ask(9, 4, "start")]))
    assert refused.code is ErrorCode.UNAVAILABLE
    assert "all 1 slots have a sequence" in str(refused)
    assert refused.retry_after_seconds == 1


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ask(None, 1), "must specify a non-zero or non-empty correlation ID"),
        (ask(0, 1), "must specify a non-zero or non-empty correlation ID"),
        (ask(7, 1), "for sequence 7 to model 'm' must specify the START flag on the first request"),
        (ask("seven", 1, "start"), "sequence_id 'seven': model 'm' takes it as UINT64"),
        (
            replace(
                ask(7, 1, "start"),
                inputs=(Tensor(name="IN", data=np.zeros((2, 1), np.int32), datatype=Datatype.INT32),),
            ),
            "must specify batch-size 1 due to requirements of sequence batcher; found 2 rows in 'IN'",
        ),
    ],
    ids=["no-id", "zero", "not-started", "text", "rows"],
)
def test_a_request_that_is_of_no_sequence_is_refused_and_its_neighbours_are_not(
    request_: InferRequest, words: str
) -> None:
    wrong, good = values(sequences(Recorder()).execute([request_, ask(1, 5, "start")]))
    assert isinstance(wrong, InputError)
    assert words in str(wrong)
    assert good == 5


def test_a_sequence_that_asks_nothing_for_long_is_over_but_not_while_the_model_computes() -> None:
    clock, recorder = Clock(), Recorder()
    made = sequences(recorder, clock=clock, batching="max_sequence_idle_microseconds: 2000000")
    made.execute([ask(7, 1, "start"), ask(8, 2, "start")])
    clock.seconds += 1.5
    assert values(made.execute([ask(7, 3)])) == [3]
    clock.seconds += 1.5
    kept, over = values(made.execute([ask(7, 4), ask(8, 5)]))
    assert kept == 4
    assert "must specify the START flag" in str(over)

    slow = recorder.execute
    recorder.execute = lambda requests: (setattr(clock, "seconds", clock.seconds + 9), slow(requests))[1]  # type: ignore[method-assign,func-returns-value]
    made.execute([ask(8, 6, "start")])
    assert values(made.execute([ask(7, 7)])) == [7]


def test_what_an_instance_raises_is_the_answer_of_its_own_sequences() -> None:
    one, other = Recorder(), Recorder()
    one.fails = True
    failed, good = values(sequences(one, other).execute([ask(7, 1, "start"), ask(8, 2, "start")]))
    assert "ValueError: such a day" in str(failed)
    assert good == 2


@pytest.mark.parametrize(
    ("batching", "words"),
    [
        ('state { input_name: "S" output_name: "T" }', "sequence_batching.state is not served"),
        ("iterative_sequence: true", "sequence_batching.iterative_sequence is not served"),
        ('control_input { name: "C" control { kind: CONTROL_SEQUENCE_CORRID } }', "control input 'C': data_type"),
        ('control_input { name: "C" control { fp32_false_true: 1 } }', "control input 'C' needs two values in one of"),
    ],
)
def test_a_configuration_that_cannot_be_served_says_why(batching: str, words: str) -> None:
    with pytest.raises(LoadError, match="model 'm'") as refused:
        sequences(Recorder(), batching=batching)
    assert words in str(refused.value)


def test_a_python_model_keeps_its_state_by_row(documented: dict[str, TritonModel]) -> None:
    model = documented["running_total"]
    assert (model.batchable, model.gathers, model.scheduling().together) == (True, True, True)

    def told(sequence: int, value: int, flags: str = "") -> int:
        return int(model.predict(replace(ask(sequence, value, flags), model="running_total")).outputs[0].data[0, 0])

    assert [told(1, 5, "start"), told(2, 7, "start"), told(1, 1), told(2, 2), told(2, 0, "end"), told(1, 3)] == [
        5,
        7,
        6,
        9,
        9,
        9,
    ]


def test_a_model_that_asks_another_may_speak_of_a_sequence(
    documented: dict[str, TritonModel], write: Callable[..., Path], load: Any
) -> None:
    code = """
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def execute(self, requests):
        START, END = pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START, pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END
        return [[self.ask(request, flags) for flags in (START, 0, END)][-1] for request in requests]
    def ask(self, request, flags):
        given = [pb_utils.Tensor("IN", request.inputs()[0].as_numpy())]
        asked = pb_utils.InferenceRequest("running_total", ["OUT"], given, correlation_id=4, flags=flags)
        return asked.exec()
"""
    tensor = '{{ name: "{}" data_type: TYPE_INT32 dims: [ 1, 1 ] }}'
    config = f'backend: "python" input {tensor.format("IN")} output {tensor.format("OUT")}'
    repository = write("asks", code, config=config)
    (repository / "running_total").symlink_to(Path(__file__).parent / "models" / "running_total")
    answer = load(repository)["asks"].predict(replace(ask(None, 3), model="asks"))
    assert answer.outputs[0].data.tolist() == [[9]]
