"""ONNX models by onnxruntime; ``config.pbtxt`` may be left out, since the file says what goes in and comes out.

Source: Triton's onnxruntime_backend, "Model Config Options"; its auto-completed configuration.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from servery_sdk.errors import ServeryError
from servery_sdk.protocol import Datatype, InferRequest, InferResponse
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import InputError, LoadError

from servery_runtime_triton.model import arrays
from servery_runtime_triton.model.backends import Place, model_file
from servery_runtime_triton.model.config import data_type
from servery_runtime_triton.model.signature import TensorSpec, signature

MAX_BATCH_SIZE = 1024
"""Of a model with a batch axis whose configuration says none. Triton's is 4, which it lets administrators raise."""

_TYPES = {
    "bool": Datatype.BOOL,
    "string": Datatype.BYTES,
    "float16": Datatype.FP16,
    "float": Datatype.FP32,
    "double": Datatype.FP64,
    **{f"{sign}int{size}": Datatype(f"{sign.upper()}INT{size}") for sign in ("", "u") for size in (8, 16, 32, 64)},
}


class OnnxBackend:
    """One session, which answers any number of threads."""

    gathers = False
    instances_share = True

    def __init__(self, session: Any, outputs: Sequence[TensorSpec]) -> None:
        self._session = session
        self._outputs = tuple(outputs)
        self._names = [spec.name for spec in self._outputs]

    def execute(self, requests: Sequence[InferRequest]) -> Sequence[Sequence[InferResponse] | ServeryError]:
        """Run each request."""
        return [[self._answer(request)] for request in requests]

    def _answer(self, request: InferRequest) -> InferResponse:
        fed = {
            tensor.name: arrays.texts(tensor.data) if tensor.datatype is Datatype.BYTES else tensor.data
            for tensor in request.inputs
        }
        try:
            found = self._session.run(self._names, fed)
        except Exception as error:
            # Of its own kinds of errors, none is a class that could be named: what remains is that this input fails.
            shapes = ", ".join(f"{tensor.name!r} {list(tensor.data.shape)}" for tensor in request.inputs)
            raise InputError(f"model {request.model!r}: {error}; the inputs are {shapes}") from error
        outputs = tuple(
            spec.outward(arrays.tensor(spec.name, np.asarray(data)))
            for spec, data in zip(self._outputs, found, strict=True)
        )
        return InferResponse(model=request.model, outputs=outputs)

    def close(self) -> None:
        """The session goes with the last reference."""


def complete(config: pb.ModelConfig, files: Path) -> None:
    """Fill in inputs, outputs and, where neither was given, the batch size."""
    session = _session(config, files)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if not config.max_batch_size and not config.input and not config.output and _have_batch_axis(inputs + outputs):
        config.max_batch_size = MAX_BATCH_SIZE
    for given, found, what in ((config.input, inputs, "input"), (config.output, outputs, "output")):
        names = sorted(tensor.name for tensor in found)
        if unknown := sorted({tensor.name for tensor in given} - set(names)):
            raise LoadError(f"model {config.name!r}: {what} {', '.join(unknown)}: the file has: {', '.join(names)}")
        if given:
            continue
        for tensor in found:
            dims = [length if isinstance(length, int) and length >= 0 else -1 for length in tensor.shape]
            given.add(
                name=tensor.name, data_type=_data_type(config, tensor), dims=dims[1:] if config.max_batch_size else dims
            )


def make(config: pb.ModelConfig, place: Place) -> OnnxBackend:
    """Load a version's ``model.onnx``."""
    return OnnxBackend(_session(config, place.files), tuple(signature(config).outputs.values()))


def _have_batch_axis(tensors: Sequence[Any]) -> bool:
    return all(tensor.shape and not isinstance(tensor.shape[0], int) for tensor in tensors)


def _data_type(config: pb.ModelConfig, tensor: Any) -> str:
    kind = tensor.type.removeprefix("tensor(").removesuffix(")")
    if kind not in _TYPES:
        raise LoadError(
            f"model {config.name!r}: {tensor.name} is a {tensor.type}; served are tensors of: {', '.join(sorted(_TYPES))}"
        )
    return data_type(_TYPES[kind])


def _session(config: pb.ModelConfig, files: Path) -> Any:
    file = model_file(config, files, "model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _number(config, "intra_op_thread_count", len(os.sched_getaffinity(0)))
    options.inter_op_num_threads = _number(config, "inter_op_thread_count", 1)
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    wants_gpu = not all(group.kind == pb.ModelInstanceGroup.KIND_CPU for group in config.instance_group)
    if (wants_gpu or not config.instance_group) and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, "CUDAExecutionProvider")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=providers)
    except Exception as error:
        # A broken file may raise anything of onnxruntime's own.
        raise LoadError(f"{file}: onnxruntime {onnxruntime.__version__} cannot load it: {error}") from error


def _number(config: pb.ModelConfig, parameter: str, default: int) -> int:
    text = config.parameters[parameter].string_value if parameter in config.parameters else ""
    if not text:
        return default
    if not text.isdecimal():
        raise LoadError(f"model {config.name!r}: parameter {parameter} {text!r}: must be a number")
    return int(text) or default
