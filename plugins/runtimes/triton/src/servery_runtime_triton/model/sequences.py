"""Requests that belong together: each sequence has a slot of one instance, from its first request to its last.

Slots are rows of a call: a model that keeps its state by row, or by the sequence's id, finds it where it left it. A call
takes at most one request of each sequence; later ones follow in further calls, in the order in which they came.

Source: Triton, "Stateful Models", "Control Inputs", "Direct", "Oldest".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from servery_sdk.errors import ServeryError, Transient
from servery_sdk.manifests import Json
from servery_sdk.protocol import Datatype, InferRequest, InferResponse, Tensor, batch
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import InputError, LoadError

from servery_runtime_triton.model.backends import Backend
from servery_runtime_triton.model.config import datatype
from servery_runtime_triton.model.failures import ModelError

Outcome = Sequence[InferResponse] | ServeryError

ID, START, END = "sequence_id", "sequence_start", "sequence_end"
"""Parameters of a request."""

_IDLE_SECONDS = 1.0
"""Triton's, where the configuration says none."""
_MICROSECONDS = 1_000_000
_KIND = pb.ModelSequenceBatching.Control
_PARAMETERS: Mapping[int, str] = {_KIND.CONTROL_SEQUENCE_START: START, _KIND.CONTROL_SEQUENCE_END: END}
_FLAGS = {
    "int32_false_true": Datatype.INT32,
    "fp32_false_true": Datatype.FP32,
    "bool_false_true": Datatype.BOOL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """An input that says where in its sequence a request is.

    Attributes:
        kind: START, READY, END or CORRID, of the configuration.
        choices: Its value where that is not so, and where it is; empty for the sequence's id.
    """

    name: str
    kind: int
    datatype: Datatype
    choices: tuple[float, ...] = ()

    def tensor(self, request: InferRequest, *, is_ready: bool, shape: tuple[int, ...]) -> Tensor:
        """Return the input for ``request``; one that is not ready fills the slot of a sequence that asks nothing."""
        value: Json
        if self.choices:
            parameter = _PARAMETERS.get(self.kind)
            value = self.choices[is_ready and (parameter is None or bool(request.parameters.get(parameter)))]
        elif self.datatype is Datatype.BYTES:
            value = str(request.parameters[ID]).encode() if is_ready else b""
        else:
            value = request.parameters[ID] if is_ready else 0
        try:
            data = np.full(shape, value, dtype=self.datatype.dtype)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"{ID} {value!r}: model {request.model!r} takes it as {self.datatype}") from error
        return Tensor(name=self.name, data=data, datatype=self.datatype)


@dataclass(slots=True)
class _Place:
    """The slot of a sequence, and when it was last used."""

    instance: int
    slot: int
    used: float


class Sequences:
    """The sequences of one version of a model.

    Args:
        config: Completed.
        instances: Of the version.
        clock: Returns seconds.

    Raises:
        LoadError: The configuration asks for what is not served, or is wrong.
    """

    def __init__(
        self, config: pb.ModelConfig, instances: Sequence[Backend], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        batching = config.sequence_batching
        for field in ("state", "iterative_sequence"):
            if getattr(batching, field):
                raise LoadError(
                    f"model {config.name!r}: sequence_batching.{field} is not served: keep the state in the model, by "
                    "the sequence's id or its row; or install tritonserver"
                )
        self._model = config.name
        self._controls = [
            _control(config.name, given.name, control) for given in batching.control_input for control in given.control
        ]
        self._instances = tuple(instances)
        self._rows = max(1, config.max_batch_size)
        self._shape = (1, 1) if config.max_batch_size else (1,)
        # Slots are rows only where the model relies on it.
        self._is_direct = batching.WhichOneof("strategy_choice") != "oldest"
        self._idle_seconds = batching.max_sequence_idle_microseconds / _MICROSECONDS or _IDLE_SECONDS
        self._clock = clock
        self._busy_seconds = 0.0
        self._places: dict[Json, _Place] = {}
        # Others of the repository ask from threads of their own.
        self._lock = threading.RLock()

    def execute(self, requests: Sequence[InferRequest]) -> Sequence[Outcome]:
        """Return the responses to each request, or what is wrong with it."""
        answers: dict[int, Outcome] = {}
        waiting = list(enumerate(requests))
        with self._lock:
            while waiting:
                waiting = self._round(waiting, answers)
        return [answers[index] for index in range(len(requests))]

    def _round(
        self, waiting: Sequence[tuple[int, InferRequest]], answers: dict[int, Outcome]
    ) -> list[tuple[int, InferRequest]]:
        """Answer one request of each sequence; returns those that are left."""
        by_index = dict(waiting)
        left: list[tuple[int, InferRequest]] = []
        asked: dict[Json, int] = {}
        calls: dict[int, dict[int, int]] = {}
        for index, request in waiting:
            sequence = request.parameters.get(ID)
            if sequence in asked:
                left.append((index, request))
                continue
            asked[sequence] = index
            try:
                place = self._place(request)
            except _Full as full:
                # One that ends in this round makes room.
                if any(by_index[other].parameters.get(END) for other in asked.values() if other != index):
                    left.append((index, request))
                else:
                    answers[index] = full
            except ServeryError as error:
                answers[index] = error
            else:
                calls.setdefault(place.instance, {})[place.slot] = index
        began = self._clock()
        for instance, slots in calls.items():
            found = self._called(self._instances[instance], {slot: by_index[i] for slot, i in slots.items()})
            answers.update({slots[slot]: answer for slot, answer in found.items()})
        self._busy_seconds += self._clock() - began
        for sequence, index in asked.items():
            if sequence in self._places:
                self._places[sequence].used = self._now()
                if by_index[index].parameters.get(END) and index in answers:
                    del self._places[sequence]
        return left

    def _place(self, request: InferRequest) -> _Place:
        sequence = request.parameters.get(ID)
        if not sequence:
            raise InputError(
                f"inference request to model {self._model!r} must specify a non-zero or non-empty correlation ID: "
                f"the parameter {ID}"
            )
        if self._shape == (1, 1) and (rows := batch.rows(request)) != 1:
            raise InputError(
                f"inference request to model {self._model!r} must specify batch-size 1 due to requirements of sequence "
                f"batcher; found {rows} rows in {', '.join(repr(tensor.name) for tensor in request.inputs)}"
            )
        self._forget_idle()
        place = self._places.get(sequence)
        if place is None and not request.parameters.get(START):
            raise InputError(
                f"inference request for sequence {sequence} to model {self._model!r} must specify the START flag on the "
                f"first request of the sequence: {START}; one that asks nothing for {self._idle_seconds:g} s is over"
            )
        if place is None:
            place = self._places[sequence] = self._free()
        return place

    def _now(self) -> float:
        # While the model computes, nobody is idle: requests wait for it.
        return self._clock() - self._busy_seconds

    def _forget_idle(self) -> None:
        oldest = self._now() - self._idle_seconds
        self._places = {sequence: place for sequence, place in self._places.items() if place.used >= oldest}

    def _free(self) -> _Place:
        """Return a slot that nobody has, of the instance with the fewest sequences.

        Raises:
            _Full: There is none.
        """
        taken: list[set[int]] = [set() for _ in self._instances]
        for place in self._places.values():
            taken[place.instance].add(place.slot)
        instance = min(range(len(taken)), key=lambda n: len(taken[n]))
        free = set(range(self._rows)) - taken[instance]
        if not free:
            raise _Full(
                f"model {self._model!r}: all {self._rows * len(taken)} slots have a sequence; end one, or try again",
                retry_after_seconds=self._idle_seconds,
            )
        return _Place(instance, min(free), self._now())

    def _called(self, instance: Backend, asked: Mapping[int, InferRequest]) -> Mapping[int, Outcome]:
        """Return the outcome by slot."""
        found: dict[int, Outcome] = {}
        ready: dict[int, InferRequest] = {}
        for slot, request in sorted(asked.items()):
            try:
                ready[slot] = self._told(request, is_ready=True)
            except InputError as error:
                found[slot] = error
        alike: dict[object, dict[int, InferRequest]] = {}
        for slot, request in ready.items():
            alike.setdefault(self._key(request), {})[slot] = request
        for slots in alike.values():
            filler = self._told(asked[min(slots)], is_ready=False)
            found |= self._run(instance, slots, filler)
        return found

    def _key(self, request: InferRequest) -> object:
        # Sequences differ in parameters, which merged requests do not have.
        return batch.key(replace(request, parameters={}))

    def _run(self, instance: Backend, ready: Mapping[int, InferRequest], filler: InferRequest) -> Mapping[int, Outcome]:
        rows = range(max(ready) + 1) if self._is_direct else sorted(ready)
        filled = [ready.get(slot, filler) for slot in rows]
        try:
            answers = instance.execute(filled) if instance.gathers else _merged(instance, filled)
        except Exception as error:
            # A model's own code may raise anything; the sequences of other instances have their answers.
            failure = error if isinstance(error, ServeryError) else ModelError(f"{type(error).__name__}: {error}")
            answers = [failure] * len(filled)
        return {slot: answer for slot, answer in zip(rows, answers, strict=True) if slot in ready}

    def _told(self, request: InferRequest, *, is_ready: bool) -> InferRequest:
        controls = [control.tensor(request, is_ready=is_ready, shape=self._shape) for control in self._controls]
        parameters = request.parameters if is_ready else {}
        return replace(request, inputs=(*request.inputs, *controls), parameters=parameters)


class _Full(Transient):
    """Every slot has a sequence."""


def _merged(instance: Backend, requests: Sequence[InferRequest]) -> Sequence[Outcome]:
    if len(requests) == 1:
        return instance.execute(requests)
    whole = batch.merged_alike(requests)
    (answer,) = instance.execute([whole.request])
    if isinstance(answer, ServeryError):
        return [answer] * len(requests)
    (response,) = answer
    return [[part] for part in batch.split(response, whole.offsets)]


def _control(model: str, name: str, control: pb.ModelSequenceBatching.Control) -> Control:
    if control.kind == _KIND.CONTROL_SEQUENCE_CORRID:
        try:
            return Control(name=name, kind=control.kind, datatype=datatype(control.data_type))
        except LoadError as error:
            raise LoadError(f"model {model!r}: control input {name!r}: {error}") from error
    given = {field: tuple(getattr(control, field)) for field in _FLAGS if getattr(control, field)}
    if len(given) != 1 or len(next(iter(given.values()))) != 2:
        raise LoadError(
            f"model {model!r}: control input {name!r} needs two values in one of {', '.join(sorted(_FLAGS))}"
        )
    ((field, choices),) = given.items()
    return Control(name=name, kind=control.kind, datatype=_FLAGS[field], choices=choices)
