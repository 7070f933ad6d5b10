"""What a model takes and gives, and whether a request fits it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from servery_sdk.protocol import Datatype, InferRequest, Tensor, TensorMetadata
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import InputError, LoadError

from servery_runtime_triton.model.config import datatype


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output.

    Attributes:
        shape: As clients see it, the batch axis in front where there is one; -1 is any length.
        reshaped: As the model sees it, where that is another.
        is_optional: Of an input: requests may leave it out.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    reshaped: tuple[int, ...] | None = None
    is_optional: bool = False

    def inward(self, tensor: Tensor) -> Tensor:
        """Return a tensor of ``shape`` in the shape that the model sees."""
        return tensor if self.reshaped is None else _reshaped(tensor, self.shape, self.reshaped)

    def outward(self, tensor: Tensor) -> Tensor:
        """Return a tensor as the model sees it in ``shape``; the inverse of ``inward``."""
        return tensor if self.reshaped is None else _reshaped(tensor, self.reshaped, self.shape)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of ``shape`` is such a one."""
        return len(shape) == len(self.shape) and all(
            wanted in (-1, found) for wanted, found in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The inputs and outputs of one model.

    Attributes:
        max_batch_size: Rows of one request at most; 0 where axis 0 is not a batch.
    """

    model: str
    max_batch_size: int
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def metadata(self) -> tuple[tuple[TensorMetadata, ...], tuple[TensorMetadata, ...]]:
        """Return inputs and outputs as ``GET /v2/models/{m}`` says them."""
        inputs, outputs = (
            tuple(TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in specs.values())
            for specs in (self.inputs, self.outputs)
        )
        return inputs, outputs

    def checked(self, request: InferRequest) -> InferRequest:
        """Return ``request`` with its inputs in the shapes that the model sees.

        Raises:
            InputError: An input is unknown, missing, or of another datatype or shape; or there are too many rows.
        """
        tensors = {tensor.name: tensor for tensor in request.inputs}
        if unknown := sorted(tensors.keys() - self.inputs.keys()):
            raise InputError(
                f"model {self.model!r} has no input {_shapes(tensors[name] for name in unknown)}; "
                f"it takes: {', '.join(sorted(self.inputs))}"
            )
        missing = sorted(n for n, spec in self.inputs.items() if n not in tensors and not spec.is_optional)
        if missing:
            raise InputError(f"model {self.model!r} needs {', '.join(missing)}; found: {_shapes(request.inputs)}")
        for tensor in request.inputs:
            self._check(tensor, self.inputs[tensor.name])
        return replace(request, inputs=tuple(self.inputs[tensor.name].inward(tensor) for tensor in request.inputs))

    def _check(self, tensor: Tensor, spec: TensorSpec) -> None:
        shape = tensor.data.shape
        if tensor.datatype is not spec.datatype:
            raise InputError(
                f"input {tensor.name!r} of shape {list(shape)} is {tensor.datatype}; "
                f"model {self.model!r} takes {spec.datatype}"
            )
        if not spec.fits(shape):
            raise InputError(
                f"input {tensor.name!r} has shape {list(shape)}; model {self.model!r} takes {list(spec.shape)}"
            )
        if self.max_batch_size and shape[0] > self.max_batch_size:
            raise InputError(
                f"input {tensor.name!r} of shape {list(shape)} has {shape[0]} rows; "
                f"model {self.model!r} takes {self.max_batch_size} (max_batch_size)"
            )


def signature(config: pb.ModelConfig) -> Signature:
    """Return what a complete configuration says of inputs and outputs.

    Raises:
        LoadError: A tensor has no name or datatype.
    """
    is_batched = config.max_batch_size > 0
    if config.max_batch_size < 0:
        raise LoadError(f"{config.name}: max_batch_size {config.max_batch_size}: must not be negative")
    return Signature(
        model=config.name,
        max_batch_size=config.max_batch_size,
        inputs={tensor.name: _spec(config, tensor, is_batched=is_batched) for tensor in config.input},
        outputs={tensor.name: _spec(config, tensor, is_batched=is_batched) for tensor in config.output},
    )


def _spec(config: pb.ModelConfig, tensor: pb.ModelInput | pb.ModelOutput, *, is_batched: bool) -> TensorSpec:
    if not tensor.name:
        raise LoadError(f"{config.name}: an input or output has no name")
    try:
        found = datatype(tensor.data_type)
    except LoadError as error:
        raise LoadError(f"{config.name}: {tensor.name}: {error}") from error
    batch = (-1,) if is_batched else ()
    return TensorSpec(
        name=tensor.name,
        datatype=found,
        shape=(*batch, *tensor.dims),
        reshaped=(*batch, *tensor.reshape.shape) if tensor.HasField("reshape") else None,
        is_optional=isinstance(tensor, pb.ModelInput) and tensor.optional,
    )


def _reshaped(tensor: Tensor, source: tuple[int, ...], target: tuple[int, ...]) -> Tensor:
    # Lengths that are any stand in the same order on both sides, the batch first.
    free = iter([found for found, wanted in zip(tensor.data.shape, source, strict=False) if wanted == -1])
    return replace(tensor, data=tensor.data.reshape([next(free, -1) if n == -1 else n for n in target]))


def _shapes(tensors: Iterable[Tensor]) -> str:
    return ", ".join(f"{tensor.name!r} {list(tensor.data.shape)}" for tensor in tensors)
