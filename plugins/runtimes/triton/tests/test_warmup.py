"""Instances answer ``model_warmup`` before anybody else asks them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servery_sdk.serving import LoadError

CODE = """
import json, pathlib
import triton_python_backend_utils as pb_utils
class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.log = pathlib.Path(parameters["log"]["string_value"])
    def execute(self, requests):
        for request in requests:
            given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            with self.log.open("a") as log:
                log.write(json.dumps({name: [list(a.shape), str(a.dtype), str(a.ravel()[0])] for name, a in given.items()}) + "\\n")
            if given["IN"].ravel()[0] == 13:
                raise ValueError("thirteen")
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", requests[0].inputs()[0].as_numpy())]) for _ in requests]
"""
CONFIG = """
backend: "python" max_batch_size: 4 instance_group {{ count: 2 }}
input {{ name: "IN" data_type: TYPE_FP32 dims: [ 2 ] }}
output {{ name: "OUT" data_type: TYPE_FP32 dims: [ 2 ] }}
parameters {{ key: "log" value {{ string_value: "{log}" }} }}
model_warmup {{ name: "sample" {sample} }}
"""
ZERO = 'inputs { key: "IN" value { data_type: TYPE_FP32 dims: 2 zero_data: true } }'
OF_A_FILE = 'batch_size: 1 inputs { key: "IN" value { data_type: TYPE_FP32 dims: 2 input_data_file: "two" } }'


@pytest.fixture
def warmed(write: Callable[..., Path], load: Any, tmp_path: Path) -> Callable[..., list[Any]]:
    """Loads a model with a sample; returns what it was asked."""

    def warmed(sample: str, *, first: float | None = None) -> list[Any]:
        log = tmp_path / "log"
        repository = write("m", CODE, config=CONFIG.format(log=log, sample=sample))
        if first is not None:
            (repository / "m" / "warmup").mkdir()
            (repository / "m" / "warmup" / "two").write_bytes(np.array([first, 0], np.float32).tobytes())
        load(repository)
        return [json.loads(line) for line in log.read_text().splitlines()]

    return warmed


@pytest.mark.parametrize(
    ("sample", "count"),
    [(f"batch_size: 3 {ZERO}", 3), (f"batch_size: 1 count: 3 {ZERO}", 3), (f"batch_size: 2 count: 2 {ZERO}", 4)],
    ids=["rows", "count", "both"],
)
def test_every_instance_answers_the_sample(warmed: Callable[..., list[Any]], sample: str, count: int) -> None:
    assert warmed(sample) == [{"IN": [[1, 2], "float32", "0.0"]}] * count * 2


def test_data_may_be_random_or_lie_in_a_file(warmed: Callable[..., list[Any]]) -> None:
    text = 'inputs { key: "T" value { data_type: TYPE_STRING dims: 1 random_data: true } }'
    number = 'inputs { key: "N" value { data_type: TYPE_INT64 dims: 1 random_data: true } }'
    asked = warmed(f"{OF_A_FILE} {text} {number}", first=5)
    assert [one["IN"] for one in asked] == [[[1, 2], "float32", "5.0"]] * 2
    assert {(tuple(one["T"][0]), tuple(one["N"][0])) for one in asked} == {((1, 1), (1, 1))}
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (f"batch_size: 5 {ZERO}", r"batch_size 5: must be at most 4 \(max_batch_size\)"),
        ('batch_size: 1 inputs { key: "IN" value { dims: 2 zero_data: true } }', "IN: data_type TYPE_INVALID"),
        (OF_A_FILE.replace("two", "none"), "IN: .*warmup/none: no such file"),
        (OF_A_FILE, "ValueError: thirteen"),
        (OF_A_FILE.replace("dims: 2", "dims: 3"), "IN: .*takes 12 bytes"),
    ],
    ids=["rows", "datatype", "no-file", "model-fails", "file-too-short"],
)
def test_a_sample_that_cannot_be_answered_fails_the_load_by_its_name(
    warmed: Callable[..., list[Any]], sample: str, words: str
) -> None:
    with pytest.raises(LoadError, match=f"model 'm': model_warmup 'sample': {words}"):
        warmed(sample, first=13)


def test_a_sample_of_no_rows_is_not_asked(warmed: Callable[..., list[Any]], tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "log").touch()
    assert warmed(ZERO) == []
    assert "sample of batch_size 0 is not asked" in caplog.messages
