"""One model of KServe's, asked as KServe's server asks it.

What a request is and becomes is KServe's own data plane's to say (``kserve.protocol.dataplane``); what is ours is where
code runs: coroutines on the event loop, side by side, and plain functions in the model's own thread.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import kserve
import orjson
from kserve.model import InferenceModel
from kserve.model_repository import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.servicer import InferenceServicer
from kserve.protocol.infer_type import InferRequest, InferResponse
from servery_sdk.documents import Document, Reply
from servery_sdk.errors import ErrorCode, ServeryError
from servery_sdk.model import Protocol
from servery_sdk.protocol import Datatype, ModelMetadata, TensorMetadata
from servery_sdk.serving import InputError, LoadError

from servery_runtime_python.kserve import failures

logger = logging.getLogger(__name__)

_HOOKS = frozenset({"preprocess", "predict", "postprocess", "explain"})
_JSON_LENGTH = "inference-header-content-length"
_JSON_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
"""As FastAPI's ORJSONResponse has them, which KServe's server answers with."""


@dataclass(frozen=True, slots=True)
class Started:
    """A model that a program has started.

    Attributes:
        variables: What the program has set for all that it runs.
    """

    model: InferenceModel
    variables: Mapping[ContextVar[Any], Any]


class KServeModel:
    """Serves what ``take`` returns, which may raise LoadError."""

    def __init__(self, take: Callable[[], Started]) -> None:
        self._take = take
        self._metadata = ModelMetadata(name="", platform="")

    def load(self, artifact: Path) -> None:
        """Take the model: a new one, if it was loaded before.

        Raises:
            LoadError: The program that makes it does not.
        """
        started = self._take()
        self._model, self._variables = started.model, started.variables
        self._name = self._model.name
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"model-{self._name}")
        registry = ModelRepository()
        # A __call__ of the model's own may call its hooks as it likes, so it gets them as they are.
        is_usual = type(self._model).__call__ is kserve.Model.__call__
        registry.update(_OffLoop(self._model, self._executor) if is_usual else self._model, self._name)
        self._plane = DataPlane(registry)

    async def begin(self) -> None:
        """Start its engine, where it has one, and ask what it takes and gives.

        Raises:
            LoadError: It fails, or is not ready then.
        """
        self._set_variables()
        try:
            if inspect.iscoroutinefunction(self._model.load) and not self._model.ready:
                await self._model.load()
            if self._model.engine:
                self._engine = asyncio.create_task(self._model.start_engine(), name=f"engine-{self._name}")
            described = await self._plane.model_metadata(self._name)
        except Exception as error:
            # Somebody else's code may raise anything.
            raise LoadError(f"model {self._name!r}: {type(error).__name__}: {error}") from error
        if not self._model.ready and not self._model.engine:
            raise LoadError(f"Model with name {self._name} is not ready.")
        inputs, outputs = _tensors(described["inputs"]), _tensors(described["outputs"])
        self._metadata = ModelMetadata(name="", platform="", inputs=inputs, outputs=outputs)

    def metadata(self) -> ModelMetadata:
        """Return what ``get_input_types`` and ``get_output_types`` said."""
        return self._metadata

    async def is_ready(self) -> bool:
        """Return whether the model is healthy, and its predictor where KServe is told to look at that."""
        self._set_variables()
        return bool(await self._plane.model_ready(self._name))

    async def reply(self, document: Document) -> Reply:
        """Answer one request.

        Raises:
            ServeryError: As KServe's server would say it.
        """
        self._set_variables()
        is_rpc = document.wire is Protocol.GRPC_V2
        try:
            if not await self._plane.model_ready(self._name, disable_predictor_health_check=True):
                raise ServeryError(f"Model with name {self._name} is not ready.", code=ErrorCode.NOT_READY)
            return await (self._rpc(document) if is_rpc else self._rest(document))
        except ServeryError:
            raise
        except (Exception, SystemExit) as error:
            # A model may call sys.exit(), which is no reason for others' to end.
            return failures.reply(error, is_rpc=is_rpc)

    def close(self) -> None:
        """Stop the model and its engine."""
        self._model.stop()
        if self._model.engine:
            self._model.stop_engine()
            self._engine.cancel()
        self._executor.shutdown(wait=False)

    def _set_variables(self) -> None:
        # The task that asks has a context of its own; another program's tasks have other variables.
        for variable, value in self._variables.items():
            variable.set(value)

    async def _rpc(self, document: Document) -> Reply:
        message = pb.ModelInferRequest.FromString(document.body)
        InferenceServicer.validate_grpc_request(message)
        request = InferRequest.from_grpc(message)
        response, _ = await self._plane.infer(self._name, request, dict(document.headers))
        if isinstance(response, InferResponse):
            response = response.to_grpc()
        elif not isinstance(response, pb.ModelInferResponse):
            known = {field: response[field] for field in ("id", "model_name", "outputs")}
            response = pb.ModelInferResponse(**known)
        return Reply(body=response.SerializeToString())

    async def _rest(self, document: Document) -> Reply:
        """Source: KServe python/kserve/kserve/protocol/rest/v1_endpoints.py and v2_endpoints.py."""
        headers = dict(document.headers)
        if document.wire is Protocol.V2:
            request, attributes = _v2_request(document), {}
        else:
            request, attributes = self._plane.decode(document.body, headers)
        ask = self._plane.explain if document.explain else self._plane.infer
        response, answered = await ask(self._name, request, headers)
        # KServe answers an event with an event, but not where an explanation is asked for.
        response, more = self._plane.encode(
            document.model, response, answered if document.explain else headers, attributes
        )
        if document.explain:
            # KServe sends its client's own headers back with an explanation, the secret ones among them.
            answered = {name: value for name, value in answered.items() if document.headers.get(name) != value}
        answered = {name.lower(): value for name, value in {**answered, **more}.items()}
        if document.wire is Protocol.V2:
            answered.pop("content-type", None)
        return _reply(response, answered)


class _OffLoop:
    """A model as ``kserve.Model.__call__`` sees it: hooks that are plain functions are coroutines, which run in a thread.

    The model itself keeps them as they are: its own code calls them, too.
    """

    __slots__ = ("_hooks", "_model")

    def __init__(self, model: InferenceModel, executor: Executor) -> None:
        hooks = {name: getattr(model, name) for name in _HOOKS}
        plain = {name: hook for name, hook in hooks.items() if not inspect.iscoroutinefunction(hook)}
        object.__setattr__(self, "_model", model)
        object.__setattr__(self, "_hooks", {name: _off_loop(hook, executor) for name, hook in plain.items()})

    @property  # type: ignore[misc]  # what isinstance and super() look at
    def __class__(self) -> type:
        return type(self._model)

    def __getattr__(self, name: str) -> Any:
        return self._hooks.get(name) or getattr(self._model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._model, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return kserve.Model.__call__(self, *args, **kwargs)


def _off_loop(hook: Callable[..., Any], executor: Executor) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        here = copy_context()
        called = partial(here.run, _called, hook, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(executor, called)

    return call


def _called(hook: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return hook(*args, **kwargs)
    except StopIteration as error:
        # No future can hold it; on the event loop Python says the same.
        raise RuntimeError("coroutine raised StopIteration") from error


def _v2_request(document: Document) -> InferRequest:
    """Return the request in a v2 body, its data as they stand there.

    Raises:
        InputError: It is none.
    """
    length = document.headers.get(_JSON_LENGTH)
    try:
        size = len(document.body) if length is None else int(length)
        request = InferRequest.from_bytes(document.body, size, document.model)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, kserve.errors.InvalidInput):
            raise
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"not a request of the Open Inference Protocol: {what}") from error
    if length is None:
        # KServe reads JSON alone by other code, which has empty parameters where there are none.
        for tensor in (*request.inputs, *(request.request_outputs or ())):
            tensor.parameters = tensor.parameters or {}
    return request


def _reply(response: Any, headers: dict[str, str]) -> Reply:
    if isinstance(response, bytes | str):
        kind = "application/octet-stream" if isinstance(response, bytes) else "text/plain; charset=utf-8"
        body = response.encode() if isinstance(response, str) else response
        return Reply(body=body, headers={"content-type": kind, **headers})
    if isinstance(response, AsyncIterator):
        return Reply(body=_pieces(response), headers={"content-type": "text/plain; charset=utf-8"})
    return Reply(body=orjson.dumps(response, option=_JSON_OPTIONS), headers=headers)


async def _pieces(found: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
    async for piece in found:
        yield piece.encode() if isinstance(piece, str) else piece


def _tensors(described: Any) -> tuple[TensorMetadata, ...]:
    """Return what of a model's own description the protocol has words for."""
    found = []
    for tensor in described:
        datatype = Datatype.named(str(tensor["datatype"]))
        if datatype is None:
            logger.warning("tensor is not described", extra={"tensor": tensor["name"], "datatype": tensor["datatype"]})
            continue
        found.append(TensorMetadata(name=tensor["name"], datatype=datatype, shape=tuple(tensor["shape"])))
    return tuple(found)
