"""TorchScript models, where torch is installed.

Source: Triton's pytorch_backend, "Model Configuration": names end in ``__<index>``, or are the arguments of ``forward``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from servery_sdk.allocating import keep_freed_memory
from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import InputError, LoadError

from servery_runtime_triton.model import arrays
from servery_runtime_triton.model.backends import Place, model_file
from servery_runtime_triton.model.signature import TensorSpec, signature

_INDEX = re.compile(r".*__(\d+)")


class PytorchBackend:
    """One module, which answers any number of threads."""

    gathers = False
    instances_share = True

    def __init__(self, torch: Any, module: Any, inputs: Sequence[str], outputs: Sequence[TensorSpec]) -> None:
        self._torch = torch
        self._module = module
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)

    def execute(self, requests: Sequence[InferRequest]) -> Sequence[Sequence[InferResponse] | ServeryError]:
        """Run each request."""
        return [[self._answer(request)] for request in requests]

    def _answer(self, request: InferRequest) -> InferResponse:
        given = {tensor.name: tensor.data for tensor in request.inputs}
        # A copy: torch writes where it likes, and what came over the wire may not be written to.
        tensors = [self._torch.from_numpy(np.array(given[name])) for name in self._inputs if name in given]
        try:
            with self._torch.inference_mode():
                found = self._module(*tensors)
        except RuntimeError as error:
            shapes = ", ".join(f"{tensor.name!r} {list(tensor.data.shape)}" for tensor in request.inputs)
            raise InputError(f"model {request.model!r}: {error}; the inputs are {shapes}") from error
        answers = found if isinstance(found, tuple | list) else (found,)
        if len(answers) < len(self._outputs):
            raise ValueError(f"the module gave {len(answers)} outputs, its configuration names {len(self._outputs)}")
        outputs = tuple(
            spec.outward(arrays.tensor(spec.name, answer.numpy()))
            for spec, answer in zip(self._outputs, answers, strict=False)
        )
        return InferResponse(model=request.model, outputs=outputs)

    def close(self) -> None:
        """The module goes with the last reference."""


def complete(config: pb.ModelConfig, files: Path) -> None:
    """A TorchScript file names neither inputs nor outputs: the configuration must."""
    model_file(config, files, "model.pt")
    if not config.input:
        raise LoadError(f"model {config.name!r}: config.pbtxt names no inputs; a TorchScript file does not say them")


def make(config: pb.ModelConfig, place: Place) -> PytorchBackend:
    """Load a version's ``model.pt``."""
    file = model_file(config, place.files, "model.pt")
    try:
        torch: Any = import_module("torch")
    except ImportError as error:
        raise LoadError(f"{file}: needs torch, which is not installed: pip install torch") from error
    keep_freed_memory()
    try:
        module = torch.jit.load(str(file), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise LoadError(f"{file}: torch {torch.__version__} cannot load it: {error}") from error
    arguments = [argument.name for argument in module.forward.schema.arguments[1:]]
    tensors = signature(config)
    return PytorchBackend(
        torch,
        module,
        _ordered(config, tensors.inputs, arguments),
        [tensors.outputs[n] for n in _by_index(tensors.outputs)],
    )


def _ordered(config: pb.ModelConfig, names: Any, arguments: Sequence[str]) -> Sequence[str]:
    if set(names) <= set(arguments):
        return [name for name in arguments if name in names]
    if all(_INDEX.fullmatch(name) for name in names) or len(names) == 1:
        return _by_index(names)
    raise LoadError(
        f"model {config.name!r}: inputs {', '.join(sorted(names))}: name them as the arguments of forward "
        f"({', '.join(arguments)}), or INPUT__0, INPUT__1, …"
    )


def _by_index(names: Any) -> list[str]:
    found = {name: _INDEX.fullmatch(name) for name in names}
    if not all(found.values()):
        return list(names)
    return sorted(found, key=lambda name: int(found[name][1]))  # type: ignore[index]  # all of them match
