"""A graph in the Open Neural Network Exchange format, run by onnxruntime."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as failures
from servery_sdk.artifacts import model_file
from servery_sdk.fitting import Array, fitted, named
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.serving import InputError, LoadError
from servery_sdk.tabular import decoded, encoded

logger = logging.getLogger(__name__)

SUFFIXES = (".onnx",)
PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "CPUExecutionProvider")
"""What runs the graph, the best first; those are asked for that this build of onnxruntime has."""

DATATYPES = {
    "tensor(bool)": Datatype.BOOL,
    "tensor(uint8)": Datatype.UINT8,
    "tensor(uint16)": Datatype.UINT16,
    "tensor(uint32)": Datatype.UINT32,
    "tensor(uint64)": Datatype.UINT64,
    "tensor(int8)": Datatype.INT8,
    "tensor(int16)": Datatype.INT16,
    "tensor(int32)": Datatype.INT32,
    "tensor(int64)": Datatype.INT64,
    "tensor(float16)": Datatype.FP16,
    "tensor(bfloat16)": Datatype.BF16,
    "tensor(float)": Datatype.FP32,
    "tensor(double)": Datatype.FP64,
    "tensor(string)": Datatype.BYTES,
}
_MAPS = {"seq(map(int64,tensor(float)))", "seq(map(string,tensor(float)))"}
_BFLOAT16 = 16
"""ONNX's number of the type; numpy has none, so onnxruntime takes and gives the bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or an output of the graph.

    Attributes:
        shape: Lengths, names of lengths that are free, and None for those without a name.
        is_map: A classifier's probabilities by class, a mapping a row (``ZipMap`` of scikit-learn's converter).
    """

    name: str
    datatype: Datatype
    shape: tuple[int | str | None, ...]
    is_map: bool = False

    @property
    def metadata(self) -> TensorMetadata:
        """What clients are told of it."""
        shape = tuple(length if isinstance(length, int) else -1 for length in self.shape)
        return TensorMetadata(name=self.name, datatype=self.datatype, shape=shape)


class ONNXModel:
    """Loads the one graph in the artifact; its inputs and outputs go by their names.

    Requests are merged where every input and output has the same free length as its first axis.
    """

    def __init__(self) -> None:
        self.threads = 1
        self.batchable = False
        self._session: Any = None
        self._inputs: tuple[Port, ...] = ()
        self._outputs: tuple[Port, ...] = ()

    def load(self, artifact: Path) -> None:
        """Read the one graph below ``artifact``; weights in files of their own lie beside it.

        Raises:
            LoadError: None, several, or one that onnxruntime does not take; says the file and the cause's own words.
        """
        file = graph_file(artifact)
        available = onnxruntime.get_available_providers()
        try:
            session = onnxruntime.InferenceSession(
                str(file), self._options(), providers=[name for name in PROVIDERS if name in available]
            )
        except Exception as error:
            # onnxruntime's own exceptions have no common root.
            raise LoadError(
                f"{file.name}: cannot be loaded by onnxruntime {onnxruntime.__version__}: {type(error).__name__}: {error}"
            ) from error
        self._inputs = tuple(_port(file, "input", found) for found in session.get_inputs())
        self._outputs = tuple(_port(file, "output", found) for found in session.get_outputs())
        self.batchable = is_batchable(self._inputs, self._outputs)
        self._session = session
        logger.info("graph loaded", extra={"file": file.name, "providers": session.get_providers()})

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the outputs that ``request`` names, all where it names none or one that is not there.

        Raises:
            InputError: Names the input, its shape and what the graph takes.
        """
        feeds = self._feeds(request)
        wanted = [port for port in self._outputs if port.name in request.outputs]
        ports = wanted if len(wanted) == len(set(request.outputs)) and wanted else self._outputs
        try:
            found = self._run([port.name for port in ports], feeds)
        except (failures.InvalidArgument, failures.Fail, failures.RuntimeException) as error:
            # The shapes passed the graph's own declaration; a node inside could not use them.
            shapes = {name: list(data.shape) for name, data in feeds.items()}
            raise InputError(f"inputs {shapes}: {error}") from error
        outputs = tuple(_output(port, value) for port, value in zip(ports, found, strict=True))
        return InferResponse(model=request.model, outputs=outputs)

    def metadata(self) -> ModelMetadata:
        """Return what the graph declares."""
        return ModelMetadata(
            name="",
            platform=f"onnxruntime-{onnxruntime.__version__}",
            inputs=tuple(port.metadata for port in self._inputs),
            outputs=tuple(port.metadata for port in self._outputs),
        )

    def _options(self) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        # Threads that wait for work would take the processor from those that decode requests.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return options

    def _feeds(self, request: InferRequest) -> dict[str, Array]:
        tensors = named(request.inputs, [port.name for port in self._inputs], owner="the graph")
        return {port.name: _fed(port, tensor) for port, tensor in zip(self._inputs, tensors, strict=True)}

    def _run(self, names: Sequence[str], feeds: dict[str, Array]) -> list[Any]:
        ports = (*self._inputs, *self._outputs)
        if all(port.datatype is not Datatype.BF16 for port in ports):
            found: list[Any] = self._session.run(names, feeds)
            return found
        values = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(
                np.ascontiguousarray(data).view(np.uint16), _BFLOAT16
            )
            if data.dtype == Datatype.BF16.dtype
            else onnxruntime.OrtValue.ortvalue_from_numpy(data)
            for name, data in feeds.items()
        }
        return [_array(value) for value in self._session.run_with_ort_values(names, values)]


def graph_file(artifact: Path) -> Path:
    """Return the one graph of an artifact: directly in it, or the latest version of a Triton repository's one model.

    Raises:
        LoadError: None or several; lists what is there.
    """
    if not any(artifact.glob("*.onnx")):
        # KServe's users of this format lay it out for Triton: <model>/<version>/model.onnx.
        versions = [path for path in artifact.glob("*/*/model.onnx") if path.parent.name.isdigit()]
        if len({path.parent.parent for path in versions}) == 1:
            return max(versions, key=lambda path: int(path.parent.name))
    return model_file(artifact, SUFFIXES)


def is_batchable(inputs: Sequence[Port], outputs: Sequence[Port]) -> bool:
    """Return whether axis 0 of every port is one and the same free length.

    One that only outputs have, such as the number of boxes found, is not the requests'.
    """
    first = {port.shape[0] if port.shape else 0 for port in (*inputs, *outputs) if not port.is_map}
    return len(first) == 1 and not isinstance(first.pop(), int)


def _fed(port: Port, tensor: Tensor) -> Array:
    # Without a shape, the graph says nothing of it.
    data = fitted(tensor, port.datatype, port.shape or None, owner="the graph")
    return decoded(tensor) if port.datatype is Datatype.BYTES else data


def _port(file: Path, kind: str, found: Any) -> Port:
    shape = tuple(found.shape)
    if kind == "output" and found.type in _MAPS:
        return Port(name=found.name, datatype=Datatype.FP32, shape=(None, None), is_map=True)
    if found.type not in DATATYPES:
        raise LoadError(
            f"{file.name}: {kind} {found.name!r} is a {found.type}, which no protocol carries; "
            f"a graph's inputs and outputs are: {', '.join(sorted(DATATYPES))}"
        )
    return Port(name=found.name, datatype=DATATYPES[found.type], shape=shape)


def _output(port: Port, value: Any) -> Tensor:
    # Maps are sorted by class.
    data = np.array([list(row.values()) for row in value], dtype=np.float32) if port.is_map else np.asarray(value)
    return Tensor(name=port.name, data=encoded(data) if data.dtype == object else data, datatype=port.datatype)


def _array(value: Any) -> Array:
    if value.data_type() != "tensor(bfloat16)":
        array: Array = value.numpy()
        return array
    size = value.tensor_size_in_bytes()
    # onnxruntime owns the memory: it is copied before the value goes.
    return np.frombuffer(ctypes.string_at(value.data_ptr(), size), dtype=Datatype.BF16.dtype).reshape(value.shape())
