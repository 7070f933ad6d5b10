"""A PaddlePaddle program with its parameters, run by paddle's inference predictor on the processor."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from servery_sdk.artifacts import model_file
from servery_sdk.fitting import Array, fitted, named
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.serving import InputError, LoadError

from servery_runtime_paddle import parameters as stored
from servery_runtime_paddle import signals

with signals.kept(), warnings.catch_warnings():
    # On import, paddle asks for a compiler's cache; nothing is compiled here.
    warnings.filterwarnings("ignore", message="No ccache found")
    import paddle
    from paddle import inference
    from paddle.base import libpaddle

PROGRAMS = (".pdmodel", ".json")
PARAMETERS = (".pdiparams",)
DATATYPES = {
    "bool": Datatype.BOOL,
    "uint8": Datatype.UINT8,
    "int8": Datatype.INT8,
    "int32": Datatype.INT32,
    "int64": Datatype.INT64,
    "float16": Datatype.FP16,
    "float32": Datatype.FP32,
    "float64": Datatype.FP64,
}
"""By paddle's names, those that its predictor takes and gives as they are."""

_PIR = 1
"""The version of the program's form, as ``paddle.jit.save`` writes it."""
_NOISE = re.compile(r"In user code:|\[Hint: .*|\(at /paddle/.*", re.DOTALL)
_loading = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or an output of the program; -1 in ``shape`` is any length."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    @property
    def metadata(self) -> TensorMetadata:
        """What clients are told of it."""
        return TensorMetadata(name=self.name, datatype=self.datatype, shape=self.shape)


class PaddleModel:
    """Loads the one program in the artifact and its parameters; inputs and outputs go by the program's names.

    Requests are merged where axis 0 of every input and output is free.

    Source: KServe's paddleserver, whose model directories these are.
    """

    def __init__(self) -> None:
        self.threads = 1
        self.batchable = False
        self._predictor: Any = None
        self._inputs: tuple[Port, ...] = ()
        self._outputs: tuple[Port, ...] = ()

    def load(self, artifact: Path) -> None:
        """Read the program (``.json``, or ``.pdmodel`` of paddle 2) and the parameters (``.pdiparams``).

        Raises:
            LoadError: None, several, or such that paddle does not take; says the file and the cause's own words.
        """
        parameters = model_file(artifact, PARAMETERS)
        program = program_file(artifact, parameters)
        try:
            stored.check(parameters)
            # paddle reads programs into state of the whole process.
            with _loading:
                self._inputs, self._outputs = ports(program)
                self._predictor = inference.create_predictor(self._config(program, parameters))
        except (ValueError, RuntimeError, TypeError, OSError, NotImplementedError) as error:
            raise LoadError(
                f"{program.name} with {parameters.name}: cannot be loaded by paddle {paddle.version.full_version}: {_cause(error)}"
            ) from error
        self.batchable = all(port.shape[:1] == (-1,) for port in (*self._inputs, *self._outputs))

    def predict(self, request: InferRequest) -> InferResponse:
        """Return every output.

        Raises:
            InputError: Names the input, its shape and what the program takes.
        """
        feeds = self._feeds(request)
        try:
            for name, data in feeds.items():
                self._predictor.get_input_handle(name).copy_from_cpu(data)
            self._predictor.run()
        except (ValueError, RuntimeError) as error:
            # The shapes passed the program's own declaration; an operator inside could not use them.
            shapes = {name: list(data.shape) for name, data in feeds.items()}
            raise InputError(f"inputs {shapes}: {_cause(error)}") from error
        outputs = tuple(
            Tensor(
                name=port.name,
                data=self._predictor.get_output_handle(port.name).copy_to_cpu(),
                datatype=port.datatype,
            )
            for port in self._outputs
        )
        return InferResponse(model=request.model, outputs=outputs)

    def metadata(self) -> ModelMetadata:
        """Return what the program declares."""
        return ModelMetadata(
            name="",
            platform=f"paddle-{paddle.version.full_version}",
            inputs=tuple(port.metadata for port in self._inputs),
            outputs=tuple(port.metadata for port in self._outputs),
        )

    def _config(self, program: Path, parameters: Path) -> Any:
        config = inference.Config(str(program), str(parameters))
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(self.threads)
        return config

    def _feeds(self, request: InferRequest) -> dict[str, Array]:
        tensors = named(request.inputs, [port.name for port in self._inputs], owner="the program")
        return {port.name: _fed(port, tensor) for port, tensor in zip(self._inputs, tensors, strict=True)}


def program_file(artifact: Path, parameters: Path) -> Path:
    """Return the program that ``parameters`` belong to: the one of their name, else the only one there is.

    Raises:
        LoadError: None or several; lists what is there.
    """
    named = [file for suffix in PROGRAMS if (file := parameters.with_suffix(suffix)).is_file()]
    return named[0] if len(named) == 1 else model_file(artifact, PROGRAMS)


def ports(program: Path) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return the inputs and the outputs that ``program`` declares; the predictor itself knows their names alone.

    Raises:
        LoadError: One has an element type that no protocol carries.
        ValueError: paddle does not read it; or RuntimeError.
    """
    found = list(_described(program.read_bytes()) if program.suffix == ".pdmodel" else _intermediate(program))
    sides: tuple[list[Port], list[Port]] = ([], [])
    for is_output, name, dtype, shape in found:
        if dtype not in DATATYPES:
            raise LoadError(
                f"{program.name}: {'output' if is_output else 'input'} {name!r} is {dtype}; a program's inputs and outputs are: "
                f"{', '.join(sorted(DATATYPES))}"
            )
        sides[is_output].append(Port(name=name, datatype=DATATYPES[dtype], shape=tuple(shape)))
    if not all(sides):
        raise LoadError(f"{program.name}: a program has inputs and outputs; found {len(sides[0])} and {len(sides[1])}")
    return tuple(sides[0]), tuple(sides[1])


def _fed(port: Port, tensor: Tensor) -> Array:
    """Return a tensor's data in the element type that ``port`` takes.

    Raises:
        InputError: A length differs, the type cannot hold what was sent, or nothing was.
    """
    shape = [None if length < 0 else length for length in port.shape]
    data = np.ascontiguousarray(fitted(tensor, port.datatype, shape, owner="the program"))
    if not data.size:
        # An operator that is given nothing may end the process.
        raise InputError(f"input {tensor.name!r} of shape {list(data.shape)} is empty")
    return data


Declared = tuple[bool, str, str, Sequence[int]]
"""Whether it is an output, its name, paddle's name of its element type, and its shape."""


def _intermediate(program: Path) -> Iterator[Declared]:
    read = libpaddle.pir.Program()
    libpaddle.deserialize_pir_program(str(program), read, _PIR)
    for operator in read.global_block().ops:
        if operator.name() == "pd_op.data":
            yield False, operator.attrs()["name"], _paddle_type(operator.result(0).dtype), operator.result(0).shape
        elif operator.name() == "pd_op.fetch":
            value = operator.operand_source(0)
            yield True, operator.attrs()["name"], _paddle_type(value.dtype), value.shape


def _described(program: bytes) -> Iterator[Declared]:
    # A block is a pointer into its program, which has to stay.
    read = libpaddle.ProgramDesc(program)
    if not read.num_blocks():
        # Its first block would be whatever lies in memory.
        raise ValueError("the program is empty")
    block = read.block(0)
    for index in range(block.op_size()):
        operator = block.op(index)
        if operator.type() in ("feed", "fetch"):
            is_output = operator.type() == "fetch"
            (name,) = operator.input("X") if is_output else operator.output("Out")
            variable = block.find_var(name.encode())
            yield is_output, name, _paddle_type(variable.dtype()), variable.shape()


def _paddle_type(dtype: Any) -> str:
    # Two enumerations, "paddle.float32" and "DataType.FLOAT32", as paddle has been patched by then or not.
    return str(dtype).rpartition(".")[2].lower()


def _cause(error: BaseException) -> str:
    """Return what went wrong, without the stack of C++ and the hint that repeats it."""
    return " ".join(_NOISE.sub("", str(error).rpartition("----------------------")[2]).split()) or type(error).__name__
