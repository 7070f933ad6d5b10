"""A module in a file: TorchScript, a program of ``torch.export``, or a class with its state dict."""

from __future__ import annotations

import importlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from servery_sdk.importing import make_importable
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, ModelMetadata, Tensor, TensorMetadata
from servery_sdk.serving import InputError, LoadError, Unimplemented

from servery_runtime_torch.model.failures import is_callers, refused

SUFFIXES = (".pt2", ".pt", ".pth", ".bin", ".safetensors")
KSERVE_CLASS = "PyTorchModel"
"""What KServe's pytorchserver expects the class to be called unless told otherwise."""
TARGET = "target"
"""The input that says which class is explained, as TorchServe's handlers have it."""

_JIT: Any = torch.jit
"""Of which PyTorch declares no types."""

_UNREADABLE = (
    RuntimeError,
    ValueError,
    TypeError,
    KeyError,
    OSError,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    SafetensorError,
)


class ModuleModel:
    """Calls the module with the request's tensors, by the names of its parameters or in their order."""

    def __init__(self) -> None:
        self._call: Callable[..., Any] = _unloaded
        self._names: tuple[str, ...] = ()
        self._dtypes: Mapping[str, torch.dtype] = {}
        self._dtype = torch.float32
        self._described = ModelMetadata(name="", platform="pytorch")
        self._is_explained = False
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.batchable = True

    def load(self, artifact: Path) -> None:
        """Load the one file of weights in ``artifact``.

        Raises:
            LoadError: None, several, or one that cannot be loaded; says the file and PyTorch's words.
        """
        file = _weights(artifact)
        try:
            with warnings.catch_warnings():
                # TorchScript is deprecated, and still what people have.
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                if _is_exported(file):
                    self._take_program(torch.export.load(str(file)))
                elif _is_script(file):
                    module = _JIT.load(str(file), map_location=self._device)
                    self._take_module(module, "torchscript")
                else:
                    self._take_module(_with_state(artifact, file, self._device), "pytorch")
                    self._is_explained = True
        except _UNREADABLE as error:
            raise LoadError(f"{file}: cannot be loaded with PyTorch {torch.__version__}: {error}") from error

    def _take_module(self, module: Any, platform: str) -> None:
        module.to(self._device).eval()
        self._call = module
        self._names = _parameters(module)
        floating = (weight.dtype for weight in module.parameters() if weight.dtype.is_floating_point)
        self._dtype = next(floating, torch.float32)
        self._described = ModelMetadata(name="", platform=platform)

    def _take_program(self, program: Any) -> None:
        signature, nodes = program.graph_signature, {node.name: node for node in program.graph.nodes}
        inputs = tuple(_said(name, nodes[name]) for name in signature.user_inputs if name in nodes)
        outputs = tuple(
            _said(f"output-{index}", nodes[name]) for index, name in enumerate(signature.user_outputs) if name in nodes
        )
        self._call = program.module().to(self._device)
        self._names = tuple(said.name for said in inputs)
        self._dtypes = {name: nodes[name].meta["val"].dtype for name in self._names}
        self._described = ModelMetadata(name="", platform="torch_export", inputs=inputs, outputs=outputs)
        self.batchable = all(said.shape and said.shape[0] == -1 for said in (*inputs, *outputs))

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the module's outputs: one tensor, several in order, or by name where it answers a dictionary.

        Raises:
            InputError: The module does not take these inputs.
        """
        arguments = self._arguments(request.inputs)
        try:
            with torch.inference_mode():
                return InferResponse(model=request.model, outputs=_outputs(self._call(*arguments)))
        except Exception as error:
            if not is_callers(error):
                raise
            raise refused(error, request) from error

    def explain(self, request: InferRequest) -> InferResponse:
        """Return integrated gradients of the one input ``[rows, *item]``, for the class that ``target`` names (0 without).

        Raises:
            InputError: The module does not take these inputs.
            Unimplemented: The module is compiled and has no gradients.
        """
        if not self._is_explained:
            raise Unimplemented(f"a {self._described.platform} module has no gradients to explain its answers by")
        from captum.attr import IntegratedGradients

        inputs = tuple(tensor for tensor in request.inputs if tensor.name != TARGET)
        target = next((torch.tensor(tensor.data) for tensor in request.inputs if tensor.name == TARGET), 0)
        if len(inputs) != 1:
            raise InputError(f"an explanation is of one input; found {[tensor.name for tensor in inputs]}")
        try:
            found = IntegratedGradients(self._call).attribute(self._arguments(inputs)[0], target=target, n_steps=15)
        except Exception as error:
            # Captum asserts what it expects of a target.
            if not is_callers(error) and not isinstance(error, AssertionError):
                raise
            raise refused(error, request) from error
        return InferResponse(model=request.model, outputs=(_output("explain", found),))

    def metadata(self) -> ModelMetadata:
        """Return what the program says of itself; other modules do not know their shapes."""
        return self._described

    def _arguments(self, inputs: Sequence[Tensor]) -> list[torch.Tensor]:
        by_name = {tensor.name: tensor for tensor in inputs}
        if len(self._names) == len(inputs) and set(self._names) == set(by_name):
            inputs = [by_name[name] for name in self._names]
        dtypes = [self._dtypes.get(name) for name in self._names] + [None] * len(inputs)
        return [self._argument(tensor, dtype) for tensor, dtype in zip(inputs, dtypes, strict=False)]

    def _argument(self, tensor: Tensor, dtype: torch.dtype | None) -> torch.Tensor:
        if tensor.datatype is Datatype.BYTES:
            raise InputError(
                f"input {tensor.name!r} {list(tensor.data.shape)}: a PyTorch module takes numbers, no texts"
            )
        if tensor.datatype is Datatype.BF16:
            made = torch.from_numpy(tensor.data.view(np.int16).copy()).view(torch.bfloat16)
        else:
            # What arrived over the wire is not ours to write to, and PyTorch asks for what is.
            data = np.ascontiguousarray(tensor.data)
            made = torch.from_numpy(data if data.flags.writeable else data.copy())
        if dtype is None and made.is_floating_point():
            # JSON's numbers are doubles; the module's are its own.
            dtype = self._dtype
        return made.to(self._device, dtype or made.dtype)


def _unloaded(*_: Any) -> Any:
    raise AssertionError("load comes first")


def _weights(artifact: Path) -> Path:
    found = sorted(path for path in artifact.iterdir() if path.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    present = ", ".join(sorted(path.name for path in artifact.iterdir())) or "nothing"
    raise LoadError(
        f"{artifact}: a PyTorch model is a model store with archives (.mar), or one file of {', '.join(SUFFIXES)}; "
        f"found {len(found)} of them among: {present}"
    )


def _members(file: Path) -> list[str]:
    if not zipfile.is_zipfile(file):
        return []
    with zipfile.ZipFile(file) as packed:
        return [name.rpartition("/")[2] for name in packed.namelist()]


def _is_exported(file: Path) -> bool:
    return file.suffix == ".pt2"


def _is_script(file: Path) -> bool:
    # torch.save writes a zip as well; only TorchScript's has constants.pkl.
    return file.suffix != ".safetensors" and "constants.pkl" in _members(file)


def _with_state(artifact: Path, file: Path, device: torch.device) -> Any:
    """Return the class of the one Python file, made and filled with the weights."""
    sources = sorted(path for path in artifact.iterdir() if path.suffix == ".py")
    state = load_file(file, device=str(device)) if file.suffix == ".safetensors" else _state(file, device)
    if len(sources) != 1:
        found = ", ".join(path.name for path in sources) or "none"
        raise LoadError(f"{file}: holds weights only; a Python file with the module's class belongs beside it: {found}")
    make_importable(artifact)
    try:
        module = importlib.import_module(sources[0].stem)
        made = _class(sources[0], module)()
    except LoadError:
        raise
    except Exception as error:
        # Somebody else's code may raise anything.
        raise LoadError(f"{sources[0]}: {type(error).__name__}: {error}") from error
    made.load_state_dict(state)
    return made


def _state(file: Path, device: torch.device) -> Any:
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise LoadError(
            f"{file}: is no state dict: {str(error).partition(chr(10))[0]}; "
            "save model.state_dict(), torch.export.save or safetensors: a whole pickled module can run anything"
        ) from error


def _class(source: Path, module: Any) -> Any:
    own = {
        name: found
        for name, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, torch.nn.Module) and found.__module__ == module.__name__
    }
    wanted = os.environ.get("SERVERY_TORCH_MODEL_CLASS", KSERVE_CLASS if KSERVE_CLASS in own else "")
    if wanted in own:
        return own[wanted]
    if not wanted and len(own) == 1:
        return next(iter(own.values()))
    names = ", ".join(sorted(own)) or "none"
    raise LoadError(
        f"{source}: which torch.nn.Module is the model's? SERVERY_TORCH_MODEL_CLASS is {wanted!r}, found: {names}"
    )


def _parameters(module: Any) -> tuple[str, ...]:
    schema = getattr(getattr(module, "forward", None), "schema", None)
    if schema is not None:
        return tuple(argument.name for argument in schema.arguments[1:])
    code = getattr(type(module).forward, "__code__", None)
    return () if code is None else tuple(code.co_varnames[1 : code.co_argcount])


def _said(name: str, node: Any) -> TensorMetadata:
    value = node.meta["val"]
    shape = tuple(length if isinstance(length, int) else -1 for length in value.shape)
    datatype = Datatype.BF16 if value.dtype is torch.bfloat16 else Datatype.of(np.empty(0, _numpy(value.dtype)))
    return TensorMetadata(name=name, datatype=datatype, shape=shape)


def _numpy(dtype: torch.dtype) -> Any:
    return torch.empty(0, dtype=dtype).numpy().dtype


def _outputs(answer: Any) -> tuple[Tensor, ...]:
    if isinstance(answer, Mapping):
        return tuple(_output(str(name), value) for name, value in answer.items())
    values = answer if isinstance(answer, tuple | list) else (answer,)
    return tuple(_output(f"output-{index}", value) for index, value in enumerate(values))


def _output(name: str, value: Any) -> Tensor:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"output {name!r} is a {type(value).__name__}, not a tensor")
    plain = value.detach().cpu()
    if plain.dtype is torch.bfloat16:
        data = plain.view(torch.int16).numpy().view(Datatype.BF16.dtype)
        return Tensor(name=name, data=data, datatype=Datatype.BF16)
    data = plain.numpy()
    return Tensor(name=name, data=data, datatype=Datatype.of(data))
