"""Ensembles: other models of the repository, each given what those before it gave.

Source: Triton, "Ensemble Models".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import InferRequest, InferResponse, Tensor
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import LoadError

from servery_runtime_triton.model.backends import Place
from servery_runtime_triton.model.failures import ModelError
from servery_runtime_triton.model.repository import ModelRepository


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call.

    Attributes:
        inputs: The ensemble's tensor by the model's input.
        outputs: The ensemble's tensor by the model's output.
    """

    model: str
    version: str | None
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class Ensemble:
    """Runs its steps in the thread that asks; each waits for a free instance of its model."""

    gathers = False
    instances_share = True

    def __init__(self, steps: Sequence[Step], outputs: Sequence[str], repository: ModelRepository) -> None:
        self._steps = tuple(steps)
        self._outputs = tuple(outputs)
        self._repository = repository

    def execute(self, requests: Sequence[InferRequest]) -> Sequence[Sequence[InferResponse] | ServeryError]:
        """Run each request."""
        return [[self._answer(request)] for request in requests]

    def _answer(self, request: InferRequest) -> InferResponse:
        tensors = {tensor.name: tensor for tensor in request.inputs}
        for step in self._steps:
            tensors |= self._given(step, tensors, request)
        return InferResponse(model=request.model, outputs=tuple(tensors[name] for name in self._outputs))

    def _given(self, step: Step, tensors: Mapping[str, Tensor], request: InferRequest) -> dict[str, Tensor]:
        asked = InferRequest(
            model=step.model,
            version=step.version,
            id=request.id,
            inputs=tuple(
                replace(tensors[ours], name=theirs) for theirs, ours in step.inputs.items() if ours in tensors
            ),
            parameters=request.parameters,
        )
        responses = self._repository.call(asked, decoupled=True)
        if len(responses) != 1:
            raise ModelError(
                f"ensemble {request.model!r}: step {step.model!r} gave {len(responses)} responses; a step gives one",
                code=ErrorCode.UNIMPLEMENTED,
            )
        given = {tensor.name: tensor for tensor in responses[0].outputs}
        if missing := sorted(step.outputs.keys() - given.keys()):
            raise ModelError(f"ensemble {request.model!r}: step {step.model!r} did not give {', '.join(missing)}")
        return {ours: replace(given[theirs], name=ours) for theirs, ours in step.outputs.items()}

    def close(self) -> None:
        """Its steps are models of their own."""


def complete(config: pb.ModelConfig, files: Path) -> None:
    """An ensemble's configuration says everything."""


def make(config: pb.ModelConfig, place: Place) -> Ensemble:
    """Order the steps.

    Raises:
        LoadError: A model or a tensor is not there, or is made twice.
    """
    names = place.repository.names()
    steps = [_step(config, step, names) for step in config.ensemble_scheduling.step]
    return Ensemble(_ordered(config, steps), [output.name for output in config.output], place.repository)


def _step(config: pb.ModelConfig, step: pb.ModelEnsembling.Step, names: Sequence[str]) -> Step:
    if step.model_name not in names:
        raise LoadError(
            f"ensemble {config.name!r}: step {step.model_name!r}: no such model; there are: {', '.join(names) or 'none'}"
        )
    return Step(
        model=step.model_name,
        version=str(step.model_version) if step.model_version > 0 else None,
        inputs=dict(step.input_map),
        outputs=dict(step.output_map),
    )


def _ordered(config: pb.ModelConfig, steps: Sequence[Step]) -> Sequence[Step]:
    made = {tensor.name for tensor in config.input}
    for step in steps:
        if twice := sorted(made & set(step.outputs.values())):
            raise LoadError(f"ensemble {config.name!r}: {', '.join(twice)}: made more than once")
        made |= set(step.outputs.values())
    needed = {tensor.name for tensor in config.output}.union(*(step.inputs.values() for step in steps))
    if unmade := sorted(needed - made):
        raise LoadError(
            f"ensemble {config.name!r}: nothing makes {', '.join(unmade)}; made are: {', '.join(sorted(made))}"
        )
    ordered: list[Step] = []
    known = {tensor.name for tensor in config.input}
    while len(ordered) < len(steps):
        ready = [step for step in steps if step not in ordered and known >= set(step.inputs.values())]
        if not ready:
            waiting = ", ".join(sorted(step.model for step in steps if step not in ordered))
            raise LoadError(f"ensemble {config.name!r}: steps wait for one another: {waiting}")
        ordered += ready
        known = known.union(*(step.outputs.values() for step in ready))
    return ordered
