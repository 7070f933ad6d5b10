"""The contract of every runtime, for each kind of file."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor
from servery_sdk.testing import RuntimeContract

PLUGIN = "servery_runtime_torch.plugin"


def request(**inputs: Any) -> InferRequest:
    tensors = (Tensor(name=name, data=np.asarray(data), datatype=Datatype.FP64) for name, data in inputs.items())
    return InferRequest(model="m", inputs=tuple(tensors))


def response(name: str, data: Any) -> InferResponse:
    return InferResponse(model="m", outputs=(Tensor(name=name, data=data, datatype=Datatype.of(data)),))


class Plane(torch.nn.Module):
    def __init__(self, slope: float) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[slope, 1.0]]))
            self.linear.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)[:, 0]


SOURCE = """
import torch


class Plane(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x):
        return self.linear(x)[:, 0]
"""
HANDLER = """
from ts.torch_handler.base_handler import BaseHandler


class PlaneHandler(BaseHandler):
    pass
"""


class PlaneContract(RuntimeContract):
    plugin = PLUGIN
    framework = ("torch", "PIL")
    described = False
    good_request = request(x=[[1.0, 2.0], [3.0, 4.0]])
    good_response = response("output-0", np.array([4.0, 10.0], dtype=np.float32))
    wrong_request = request(x=[[1.0, 2.0, 3.0]])

    def write_model(self, directory: Path) -> None:
        self.write(directory, Plane(2.0))

    def write_other_model(self, directory: Path) -> None:
        self.write(directory, Plane(3.0))

    def write(self, directory: Path, plane: Plane) -> None:
        raise NotImplementedError


class TestTorchScript(PlaneContract):
    def write(self, directory: Path, plane: Plane) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.jit.script(plane).save(str(directory / "model.pt"))


class TestStateDict(PlaneContract):
    def write(self, directory: Path, plane: Plane) -> None:
        (directory / "model.py").write_text(SOURCE)
        torch.save(plane.state_dict(), directory / "model.pt")


class TestSafetensors(PlaneContract):
    def write(self, directory: Path, plane: Plane) -> None:
        (directory / "model.py").write_text(SOURCE)
        save_file(plane.state_dict(), directory / "model.safetensors")


class TestExportedProgram(PlaneContract):
    described = True
    good_request = InferRequest(
        model="m",
        inputs=(Tensor(name="x", data=np.array([[1, 2], [3, 4]], dtype=np.float32), datatype=Datatype.FP32),),
    )

    def write(self, directory: Path, plane: Plane) -> None:
        rows = torch.export.Dim("rows", min=1)
        program = torch.export.export(plane, (torch.zeros(2, 2),), dynamic_shapes={"x": {0: rows}})
        torch.export.save(program, directory / "model.pt2")


class TestArchive(PlaneContract):
    good_request = request(**{"input-0": [[1.0, 2.0], [3.0, 4.0]]})
    good_response = response("predict", np.array([4.0, 10.0]))
    wrong_request = request(**{"input-0": [[1.0, 2.0, 3.0]]})
    handler = HANDLER.replace("pass", "def preprocess(self, data):\n        return super().preprocess(data).float()")

    def write(self, directory: Path, plane: Plane) -> None:
        (directory / "config").mkdir()
        (directory / "config" / "config.properties").write_text(self.configuration())
        (directory / "model-store").mkdir()
        torch.save(plane.state_dict(), directory / "weights.pt")
        said = {"modelName": "plane", "handler": "h.py", "modelFile": "plane.py", "serializedFile": "weights.pt"}
        with zipfile.ZipFile(directory / "model-store" / "plane.mar", "w") as packed:
            packed.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": said}))
            packed.writestr("h.py", self.handler)
            packed.writestr("plane.py", SOURCE)
            packed.write(directory / "weights.pt", "weights.pt")
        (directory / "weights.pt").unlink()

    def configuration(self) -> str:
        return "service_envelope=kserve\nload_models=all\n"

    def break_model(self, directory: Path) -> None:
        (directory / "model-store" / "plane.mar").write_bytes(b"\x00this is not a model\xff")


class TestArchiveOneRequestAtATime(TestArchive):
    batchable = False

    def configuration(self) -> str:
        versions = {"1.0": {"marName": "plane.mar", "batchSize": 1}}
        return f"service_envelope=kserve\nmodel_snapshot={json.dumps({'models': {'plane': versions}})}\n"


class TestArchiveInSmallBatches(TestArchive):
    def configuration(self) -> str:
        versions = {"1.0": {"marName": "plane.mar", "batchSize": 2}}
        return f"service_envelope=kserve\nmodel_snapshot={json.dumps({'models': {'plane': versions}})}\n"
