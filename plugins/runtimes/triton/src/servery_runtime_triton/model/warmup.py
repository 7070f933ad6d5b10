"""Requests that an instance answers before anybody else asks it: the first call of a framework is its slowest.

Source: Triton, "Model Warmup": samples go to the backend as they are described.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from servery_sdk.errors import ServeryError
from servery_sdk.protocol import Datatype, InferRequest, Tensor
from servery_sdk.protocol.elements import from_raw
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import LoadError

from servery_runtime_triton.model.backends import Backend
from servery_runtime_triton.model.config import datatype
from servery_runtime_triton.model.signature import Signature

logger = logging.getLogger(__name__)

FOLDER = "warmup"
"""Of a model's directory: what ``input_data_file`` is in."""


def warm(config: pb.ModelConfig, directory: Path, tensors: Signature, instances: Sequence[Backend]) -> None:
    """Let each instance answer every sample.

    Raises:
        LoadError: A sample is wrong, or an instance fails on it; names the sample.
    """
    for sample in config.model_warmup:
        if not sample.batch_size:
            logger.warning("sample of batch_size 0 is not asked", extra={"model": config.name, "sample": sample.name})
            continue
        requests = _requests(config, sample, directory, tensors, are_gathered=instances[0].gathers)
        for instance in instances:
            for _ in range(max(1, sample.count)):
                _ask(config.name, sample, instance, requests)


def _ask(model: str, sample: pb.ModelWarmup, instance: Backend, requests: Sequence[InferRequest]) -> None:
    try:
        answers = instance.execute(requests)
    except Exception as error:
        # Somebody else's code may raise anything.
        raise LoadError(f"model {model!r}: model_warmup {sample.name!r}: {type(error).__name__}: {error}") from error
    for answer in answers:
        if isinstance(answer, ServeryError):
            raise LoadError(f"model {model!r}: model_warmup {sample.name!r}: {answer}") from answer


def _requests(
    config: pb.ModelConfig, sample: pb.ModelWarmup, directory: Path, tensors: Signature, *, are_gathered: bool
) -> list[InferRequest]:
    """Return a call of ``batch_size`` rows: as requests of one row for a backend that takes several."""
    most = max(1, config.max_batch_size)
    if sample.batch_size > most:
        raise LoadError(
            f"model {config.name!r}: model_warmup {sample.name!r}: batch_size {sample.batch_size}: "
            f"must be at most {most} (max_batch_size)"
        )
    rows = (1 if are_gathered else sample.batch_size,) if config.max_batch_size else ()
    inputs = []
    for name, given in sorted(sample.inputs.items()):
        try:
            tensor = _tensor(name, given, rows, directory)
        except ServeryError as error:
            raise LoadError(f"model {config.name!r}: model_warmup {sample.name!r}: {name}: {error}") from error
        # Controls of sequences are inputs of a sample, and none of a client's.
        inputs.append(tensors.inputs[name].inward(tensor) if name in tensors.inputs else tensor)
    return [InferRequest(model=config.name, inputs=tuple(inputs))] * (sample.batch_size if are_gathered else 1)


def _tensor(name: str, given: pb.ModelWarmup.Input, rows: tuple[int, ...], directory: Path) -> Tensor:
    kind, shape = datatype(given.data_type), (*rows, *given.dims)
    match given.WhichOneof("input_data_type"):
        case "random_data":
            data = _random(kind, shape)
        case "input_data_file":
            file = directory / FOLDER / given.input_data_file
            if not file.is_file():
                raise LoadError(f"{file}: no such file")
            # The file has one row, as its dims say; every row is that.
            one = from_raw(name, kind, tuple(given.dims), file.read_bytes())
            data = np.broadcast_to(one, shape).copy()
        case _:
            data = np.zeros(shape, kind.dtype)
            if kind is Datatype.BYTES:
                data.fill(b"")
    return Tensor(name=name, data=data, datatype=kind)


def _random(kind: Datatype, shape: tuple[int, ...]) -> np.ndarray:
    # Which values does not matter: the same ones at every start make a failure one that happens again.
    made = np.random.default_rng(0)
    if kind is Datatype.BYTES:
        data = np.empty(shape, dtype=object)
        data.ravel()[:] = [made.bytes(8).hex().encode() for _ in range(math.prod(shape))]
        return data
    if kind is Datatype.BOOL:
        return made.integers(0, 2, shape).astype(bool)
    if np.issubdtype(kind.dtype, np.integer):
        return made.integers(0, 100, shape).astype(kind.dtype)
    return made.random(shape).astype(kind.dtype)
