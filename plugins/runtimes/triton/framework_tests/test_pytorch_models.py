"""TorchScript models of a repository, by torch itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from servery_runtime_triton.model import TritonModel
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.testing import RuntimeContract

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit")
ROWS = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
TENSOR = '{{ name: "{}" data_type: TYPE_FP32 dims: [ 3 ] }}'


class Affine(torch.nn.Module):
    """Two inputs and two outputs, so that their order shows."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, minuend: torch.Tensor, subtrahend: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (minuend - subtrahend) * self.factor, minuend + subtrahend


def save(repository: Path, factor: float, names: tuple[str, str]) -> None:
    files = repository / "affine" / "1"
    files.mkdir(parents=True)
    torch.jit.script(Affine(factor)).save(str(files / "model.pt"))
    inputs = " ".join(f"input {TENSOR.format(name)}" for name in reversed(names))
    outputs = " ".join(f"output {TENSOR.format(name)}" for name in ("OUTPUT__1", "OUTPUT__0"))
    (files.parent / "config.pbtxt").write_text(f'platform: "pytorch_libtorch" max_batch_size: 8 {inputs} {outputs}')


def tensor(name: str, data: Any) -> Tensor:
    return Tensor(name=name, data=data, datatype=Datatype.FP32)


class TestByIndex(RuntimeContract):
    """Inputs are named ``INPUT__<index>``."""

    names = ("INPUT__0", "INPUT__1")
    plugin = "servery_runtime_triton.plugin"
    framework = ("google.protobuf.text_format",)
    good_request = InferRequest(model="affine", inputs=(tensor("INPUT__0", ROWS), tensor("INPUT__1", ROWS * 3)))
    good_response = InferResponse(
        model="affine", outputs=(tensor("OUTPUT__0", ROWS * -4), tensor("OUTPUT__1", ROWS * 4))
    )
    wrong_request = InferRequest(model="affine", inputs=(tensor("INPUT__0", ROWS[:, :2]), tensor("INPUT__1", ROWS)))

    def write_model(self, directory: Path) -> None:
        save(directory, 2, self.names)

    def write_other_model(self, directory: Path) -> None:
        save(directory, 3, self.names)


def test_inputs_may_be_named_as_the_arguments_are(tmp_path: Path) -> None:
    save(tmp_path, 2, ("minuend", "subtrahend"))
    model = TritonModel()
    model.load(tmp_path)
    request = InferRequest(model="affine", inputs=(tensor("subtrahend", ROWS * 3), tensor("minuend", ROWS)))
    outputs = {output.name: output.data.tolist() for output in model.predict(request).outputs}
    assert outputs["OUTPUT__0"] == (ROWS * -4).tolist()
