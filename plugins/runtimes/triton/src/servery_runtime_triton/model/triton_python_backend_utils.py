"""What a Python-backend model imports as ``triton_python_backend_utils``: Triton's names, in the model server's process.

Source: Triton's python_backend, README: "Usage", "Business Logic Scripting", "Decoupled mode", "Error Handling".
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.protocol import Datatype
from servery_sdk.protocol import InferRequest as WireRequest
from servery_sdk.protocol import InferResponse as WireResponse
from servery_sdk.protocol.elements import from_raw, to_raw
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import LoadError

from servery_runtime_triton.model import arrays
from servery_runtime_triton.model.config import as_json, datatype
from servery_runtime_triton.model.config import data_type as name_of
from servery_runtime_triton.model.failures import ModelError

UTILS = "triton_python_backend_utils"

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2
TRITONSERVER_MEMORY_CPU = 0
TRITONSERVER_MEMORY_GPU = 1


class TritonModelException(Exception):  # Triton's name
    """A model used what it must not, or its ``execute`` failed."""


class TritonError:
    """What is wrong with one request: ``InferenceResponse(error=…)``."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message = message
        self._code = code

    def message(self) -> str:
        """Return the words."""
        return self._message

    def code(self) -> int:
        """Return one of this class's codes."""
        return self._code

    def __str__(self) -> str:
        return self._message


_CODES = {
    TritonError.NOT_FOUND: ErrorCode.NOT_FOUND,
    TritonError.INVALID_ARG: ErrorCode.INVALID_ARGUMENT,
    TritonError.UNAVAILABLE: ErrorCode.UNAVAILABLE,
    TritonError.UNSUPPORTED: ErrorCode.UNIMPLEMENTED,
    TritonError.ALREADY_EXISTS: ErrorCode.INVALID_ARGUMENT,
}
_THEIRS = {**{ours: theirs for theirs, ours in _CODES.items()}, ErrorCode.INVALID_ARGUMENT: TritonError.INVALID_ARG}


def failure(error: Any) -> ModelError:
    """Return a model's error as the one that the server answers."""
    if isinstance(error, TritonError):
        return ModelError(error.message(), code=_CODES.get(error.code(), ErrorCode.INTERNAL))
    return ModelError(str(error))


class _Capsule:
    """A DLPack capsule without its producer, for numpy, which asks the producer."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class Tensor:
    """A named array; texts are bytes, as over the wire."""

    def __init__(self, name: str, numpy_array: Any) -> None:
        if not isinstance(numpy_array, np.ndarray):
            raise TritonModelException(f"Tensor {name!r} takes a numpy array, found {type(numpy_array).__name__}")
        self._tensor = arrays.tensor(name, numpy_array)

    def name(self) -> str:
        """Return the name."""
        return self._tensor.name

    def as_numpy(self) -> Any:
        """Return the array, which may be written to."""
        data = self._tensor.data
        if not data.flags.writeable:
            # It lies in the request's own bytes.
            data = data.copy()
            self._tensor = arrays.tensor(self._tensor.name, data)
        return data

    def shape(self) -> list[int]:
        """Return the length of each axis."""
        return list(self._tensor.data.shape)

    def triton_dtype(self) -> int:
        """Return the number of ``TYPE_…`` in the model's configuration."""
        return numpy_to_triton_type(self._tensor.data.dtype)

    def is_cpu(self) -> bool:
        """Whether it lies in main memory: here always."""
        return True

    def to_dlpack(self) -> Any:
        """Return a DLPack capsule of it, without a copy."""
        return self.as_numpy().__dlpack__()

    def __dlpack__(self, **options: Any) -> Any:
        return self.as_numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.data.__dlpack_device__()

    @staticmethod
    def from_dlpack(name: str, tensor: Any) -> Tensor:
        """Return a tensor over another framework's memory, or over that of a capsule."""
        return Tensor(name, np.from_dlpack(tensor if hasattr(tensor, "__dlpack__") else _Capsule(tensor)))

    def sent(self) -> Any:
        """Return the server's own tensor."""
        return self._tensor


class InferenceResponse:
    """Tensors, or an error."""

    def __init__(
        self,
        output_tensors: Sequence[Tensor] | None = None,
        error: Any = None,
        parameters: Mapping[str, Any] | str | None = None,
    ) -> None:
        for tensor in output_tensors or ():
            if not isinstance(tensor, Tensor):
                raise TritonModelException(f"an output is a pb_utils.Tensor, found a {type(tensor).__name__}")
        self._tensors = list(output_tensors or ())
        self._error = TritonError(error) if isinstance(error, str) else error
        self._parameters = json.loads(parameters or "{}") if isinstance(parameters, str) else dict(parameters or {})

    def output_tensors(self) -> list[Tensor]:
        """Return the tensors."""
        return self._tensors

    def has_error(self) -> bool:
        """Whether it is an error."""
        return self._error is not None

    def error(self) -> Any:
        """Return the error, or None."""
        return self._error

    def parameters(self) -> str:
        """Return the parameters as JSON."""
        return json.dumps(self._parameters)

    def sent(self, request: WireRequest) -> WireResponse:
        """Return the server's own response.

        Raises:
            ModelError: It is an error.
        """
        if self._error is not None:
            raise failure(self._error)
        outputs = tuple(tensor.sent() for tensor in self._tensors)
        return WireResponse(model=request.model, id=request.id, outputs=outputs, parameters=self._parameters)


class ResponseSender:
    """Takes a request's responses, from any thread, until the one that is flagged as final.

    Args:
        on_send: Told of each, and whether it is the last, as soon as it is there.
    """

    def __init__(
        self, on_send: Callable[[InferenceResponse | None, bool], None] = lambda response, is_last: None
    ) -> None:
        self._on_send = on_send
        self.sent: list[InferenceResponse] = []
        self._is_final = threading.Event()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Take one response, or only the flag that it was the last.

        Raises:
            TritonModelException: After the last one, or nothing at all.
        """
        if self._is_final.is_set():
            raise TritonModelException("a response was sent after the one flagged TRITONSERVER_RESPONSE_COMPLETE_FINAL")
        if response is None and not flags:
            raise TritonModelException("send takes a response, or flags=TRITONSERVER_RESPONSE_COMPLETE_FINAL")
        if response is not None:
            self.sent.append(response)
        self._on_send(response, bool(flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL))
        if flags & TRITONSERVER_RESPONSE_COMPLETE_FINAL:
            self._is_final.set()

    def is_cancelled(self) -> bool:
        """Whether nobody waits any more; here one always may."""
        return False

    def finished(self) -> list[InferenceResponse]:
        """Wait for the last one and return them all."""
        self._is_final.wait()
        return self.sent


class PreferredMemory:
    """Where a model wants another's answer: here always in main memory."""

    def __init__(self, memory_type: int, memory_type_id: int = 0) -> None:
        self.memory_type = memory_type
        self.memory_type_id = memory_type_id


class Server(Protocol):
    """How a model calls others."""

    def call(self, request: WireRequest, *, decoupled: bool) -> Sequence[WireResponse]:
        """Return the responses of another model; one, unless decoupled.

        Raises:
            ServeryError: It is not there, or said no.
        """

    def is_ready(self, name: str, version: str) -> bool:
        """Whether another model answers."""


serving: ContextVar[Server | None] = ContextVar("the repository of the model that is called", default=None)
servers: list[Server] = []
"""Repositories with Python models; threads that a model starts have no context, and mostly there is one repository."""


def _server() -> Server:
    found = serving.get() or (servers[-1] if len(set(map(id, servers))) == 1 else None)
    if found is None:
        raise TritonModelException("a model is called from execute, or from a thread where one repository is served")
    return found


class InferenceRequest:
    """A request to this model, or one that it makes to another: ``exec`` and ``async_exec``."""

    def __init__(
        self,
        model_name: str = "",
        requested_output_names: Sequence[str] = (),
        inputs: Sequence[Tensor] = (),
        request_id: str = "",
        correlation_id: int | str = 0,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: Any = None,
        parameters: Mapping[str, Any] | str | None = None,
    ) -> None:
        self._model_name = model_name
        self._requested = list(requested_output_names)
        self._inputs = list(inputs)
        self._request_id = request_id
        self._correlation_id = correlation_id
        self._model_version = model_version
        self._flags = flags
        self._timeout = timeout
        self._preferred_memory = preferred_memory
        self._trace = trace
        self._parameters = json.loads(parameters or "{}") if isinstance(parameters, str) else dict(parameters or {})
        self.sender: ResponseSender | None = None

    @classmethod
    def of(cls, request: WireRequest, outputs: Sequence[str]) -> InferenceRequest:
        """Return a request as the model sees it; ``outputs`` are all that it has."""
        parameters = dict(request.parameters)
        flags = TRITONSERVER_REQUEST_FLAG_SEQUENCE_START if parameters.pop("sequence_start", False) else 0
        flags |= TRITONSERVER_REQUEST_FLAG_SEQUENCE_END if parameters.pop("sequence_end", False) else 0
        return cls(
            model_name=request.model,
            requested_output_names=request.outputs or outputs,
            inputs=[Tensor(tensor.name, tensor.data) for tensor in request.inputs],
            request_id=request.id or "",
            correlation_id=parameters.pop("sequence_id", 0),
            flags=flags,
            timeout=int(parameters.pop("timeout", 0)),
            model_version=int(request.version or -1),
            parameters=parameters,
        )

    def inputs(self) -> list[Tensor]:
        """Return the inputs."""
        return self._inputs

    def requested_output_names(self) -> list[str]:
        """Return the outputs that are asked for."""
        return self._requested

    def request_id(self) -> str:
        """Return the id, or an empty text."""
        return self._request_id

    def correlation_id(self) -> int | str:
        """Return the sequence's id, or 0."""
        return self._correlation_id

    def model_name(self) -> str:
        """Return the name of the model that is asked."""
        return self._model_name

    def model_version(self) -> int:
        """Return the version that is asked for; -1 for any."""
        return self._model_version

    def flags(self) -> int:
        """Return the flags."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """Set the flags."""
        self._flags = flags

    def timeout(self) -> int:
        """Return the microseconds that the client gave; 0 for none."""
        return self._timeout

    def preferred_memory(self) -> PreferredMemory | None:
        """Return where the answer is wanted."""
        return self._preferred_memory

    def trace(self) -> Any:
        """Return the trace that was given; there are none here."""
        return self._trace

    def parameters(self) -> str:
        """Return the parameters as JSON."""
        return json.dumps(self._parameters)

    def is_cancelled(self) -> bool:
        """Whether nobody waits any more; here one always may."""
        return False

    def get_response_sender(self) -> ResponseSender:
        """Return what takes this request's responses."""
        if self.sender is None:
            self.sender = ResponseSender()
        return self.sender

    def exec(self, decoupled: bool = False, execution_timeout: int = 0) -> Any:
        """Ask another model of the repository and wait: a response, or an iterator of them where ``decoupled``."""
        responses = self._answered(decoupled)
        return iter(responses) if decoupled else responses[0]

    async def async_exec(self, decoupled: bool = False) -> Any:
        """Ask another model without blocking the loop: a response, or an asynchronous iterator where ``decoupled``."""
        responses = await asyncio.to_thread(self._answered, decoupled)
        return _each(responses) if decoupled else responses[0]

    def _answered(self, decoupled: bool) -> list[InferenceResponse]:
        version = str(self._model_version) if self._model_version > 0 else None
        sequence = {
            "sequence_id": self._correlation_id,
            "sequence_start": bool(self._flags & TRITONSERVER_REQUEST_FLAG_SEQUENCE_START),
            "sequence_end": bool(self._flags & TRITONSERVER_REQUEST_FLAG_SEQUENCE_END),
        }
        asked = WireRequest(
            model=self._model_name,
            version=version,
            id=self._request_id or None,
            inputs=tuple(tensor.sent() for tensor in self._inputs),
            parameters={**self._parameters, **(sequence if self._correlation_id else {})},
        )
        try:
            answers = _server().call(asked, decoupled=decoupled)
        except ServeryError as error:
            code = _THEIRS.get(error.code, TritonError.INTERNAL)
            return [InferenceResponse(error=TritonError(str(error), code))]
        return [self._wanted(answer) for answer in answers]

    def _wanted(self, answer: WireResponse) -> InferenceResponse:
        given = {tensor.name: tensor for tensor in answer.outputs}
        names = self._requested or list(given)
        if missing := [name for name in names if name not in given]:
            words = f"model {self._model_name!r} gave no output {', '.join(missing)}; it gave: {', '.join(given)}"
            return InferenceResponse(error=TritonError(words, TritonError.INVALID_ARG))
        tensors = [Tensor(name, given[name].data) for name in names]
        return InferenceResponse(tensors, parameters=dict(answer.parameters))


async def _each(responses: Sequence[InferenceResponse]) -> Any:
    for response in responses:
        yield response


class ModelConfig:
    """What ``auto_complete_config`` gets: the configuration so far, to add to."""

    def __init__(self, config: pb.ModelConfig) -> None:
        self.message = config

    def as_dict(self) -> dict[str, Any]:
        """Return every field as JSON."""
        return as_json(self.message)

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Say how many rows one request may have; what ``config.pbtxt`` says counts."""
        if not self.message.max_batch_size:
            self.message.max_batch_size = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Let ``execute`` get several requests."""
        if self.message.WhichOneof("scheduling_choice") is None:
            self.message.dynamic_batching.SetInParent()

    def set_model_transaction_policy(self, transaction_policy_dict: Mapping[str, bool]) -> None:
        """Say whether the model is decoupled: ``{"decoupled": True}``.

        Raises:
            ValueError: Another key.
        """
        if set(transaction_policy_dict) != {"decoupled"}:
            raise ValueError(f"a transaction policy has the key 'decoupled'; found: {sorted(transaction_policy_dict)}")
        self.message.model_transaction_policy.decoupled = transaction_policy_dict["decoupled"]

    def add_input(self, input: Mapping[str, Any]) -> None:  # noqa: A002  # Triton's name
        """Add ``{"name": …, "data_type": "TYPE_…", "dims": […]}``, and ``"optional"`` where it is.

        Raises:
            ValueError: It differs from what ``config.pbtxt`` says.
        """
        _add(self.message.input, input)

    def add_output(self, output: Mapping[str, Any]) -> None:
        """Likewise.

        Raises:
            ValueError: It differs from what ``config.pbtxt`` says.
        """
        _add(self.message.output, output)


def _add(tensors: Any, given: Mapping[str, Any]) -> None:
    if missing := {"name", "data_type", "dims"} - given.keys():
        raise ValueError(f"{dict(given)} has no {', '.join(sorted(missing))}")
    number = pb.DataType.Value(given["data_type"])
    for tensor in tensors:
        if tensor.name == given["name"]:
            if (tensor.data_type, list(tensor.dims)) != (number, list(given["dims"])):
                raise ValueError(f"{given['name']}: config.pbtxt says otherwise: {as_json(tensor)}")
            return
    tensors.add(**{**given, "data_type": number})


class Logger:
    """The server's log."""

    ERROR, WARNING, INFO, VERBOSE = logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG
    _log = logging.getLogger("triton.model")

    @classmethod
    def log(cls, message: str, level: int = INFO) -> None:
        """Write a line."""
        cls._log.log(level, "%s", message)

    @classmethod
    def log_info(cls, message: str) -> None:
        """Write what is good to know."""
        cls.log(message, cls.INFO)

    @classmethod
    def log_warn(cls, message: str) -> None:
        """Write what somebody should look at."""
        cls.log(message, cls.WARNING)

    @classmethod
    def log_error(cls, message: str) -> None:
        """Write what went wrong."""
        cls.log(message, cls.ERROR)

    @classmethod
    def log_verbose(cls, message: str) -> None:
        """Write what only a search for a fault needs."""
        cls.log(message, cls.VERBOSE)


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """Return an input of a request, or None."""
    return _named(inference_request.inputs(), name)


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """Return an output of a response, or None.

    Raises:
        TritonModelException: The response is an error.
    """
    if inference_response.has_error():
        raise TritonModelException(inference_response.error().message())
    return _named(inference_response.output_tensors(), name)


def _named(tensors: Sequence[Tensor], name: str) -> Tensor | None:
    return next((tensor for tensor in tensors if tensor.name() == name), None)


def get_input_config_by_name(model_config: Mapping[str, Any], name: str) -> Any:
    """Return what a configuration says of an input, or None."""
    return _configured(model_config.get("input", ()), name)


def get_output_config_by_name(model_config: Mapping[str, Any], name: str) -> Any:
    """Return what a configuration says of an output, or None."""
    return _configured(model_config.get("output", ()), name)


def _configured(tensors: Sequence[Mapping[str, Any]], name: str) -> Any:
    return next((tensor for tensor in tensors if tensor["name"] == name), None)


def using_decoupled_model_transaction_policy(model_config: Mapping[str, Any]) -> bool:
    """Whether a configuration says that a request may have any number of responses."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """Return the numpy type of ``"TYPE_FP32"``; None for a type that there is not, as Triton does."""
    if triton_type_string not in pb.DataType.keys():  # noqa: SIM118  # not a dictionary
        return None
    return triton_to_numpy_type(pb.DataType.Value(triton_type_string))


def triton_to_numpy_type(data_type: int) -> Any:
    """Return the numpy type of a number of ``TYPE_…``; None for ``TYPE_INVALID``."""
    try:
        found = datatype(data_type)
    except LoadError:
        return None
    return np.object_ if found is Datatype.BYTES else found.dtype.type


def numpy_to_triton_type(data_type: Any) -> int:
    """Return the number of ``TYPE_…`` of a numpy type; texts and objects are ``TYPE_STRING``."""
    return int(pb.DataType.Value(name_of(Datatype.of(np.empty(0, dtype=data_type)))))


def serialize_byte_tensor(input_tensor: Any) -> Any:
    """Return texts in the wire's form, in an array of one element."""
    if input_tensor.size == 0:
        return None
    raw = to_raw(Datatype.BYTES, input_tensor)
    return np.asarray(raw, dtype=np.object_)


def deserialize_bytes_tensor(encoded_tensor: bytes) -> Any:
    """Return the elements of the wire's form, ``[elements]``."""
    count, at = 0, 0
    while at < len(encoded_tensor):
        at += 4 + int.from_bytes(encoded_tensor[at : at + 4], "little")
        count += 1
    return from_raw("tensor", Datatype.BYTES, (count,), encoded_tensor)


def is_model_ready(model_name: str, model_version: str = "") -> bool:
    """Whether another model of the repository answers."""
    return _server().is_ready(model_name, model_version)


def __getattr__(name: str) -> Any:
    # Python asks modules for names of its own, such as __path__, and takes no for an answer.
    raise AttributeError(f"{UTILS}.{name} is Triton's, and not here: this model is served by Servery")


def responses_of(request: InferenceRequest, returned: Any) -> Iterator[InferenceResponse]:
    """Yield what a model answered to one request: by its sender where it took one, else what ``execute`` returned."""
    if returned is not None:
        yield returned
    elif request.sender is not None:
        yield from request.sender.finished()
