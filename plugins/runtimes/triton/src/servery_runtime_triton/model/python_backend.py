"""Models of Triton's Python backend: ``model.py`` with a class ``TritonPythonModel``, as it is, in this process.

Source: Triton's python_backend, README, "Usage".
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
import itertools
import json
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from servery_sdk.errors import ServeryError
from servery_sdk.importing import OURS, line_of, make_importable
from servery_sdk.protocol import InferRequest, InferResponse
from servery_sdk.protos.triton import model_config_pb2 as pb
from servery_sdk.serving import LoadError, Send

from servery_runtime_triton.model import triton_python_backend_utils as pb_utils
from servery_runtime_triton.model.backends import Place, model_file
from servery_runtime_triton.model.config import as_json
from servery_runtime_triton.model.failures import ModelError
from servery_runtime_triton.model.repository import ModelRepository

logger = logging.getLogger(__name__)

FILE = "model.py"
CLASS = "TritonPythonModel"

_numbers = itertools.count()
_importing = threading.RLock()


class _Utils:
    """Puts our module where models import it from, while at least one of them is loaded or called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: ModuleType | None = None

    @contextlib.contextmanager
    def importable(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._before = sys.modules.get(pb_utils.UTILS)
                sys.modules[pb_utils.UTILS] = pb_utils
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    del sys.modules[pb_utils.UTILS]
                    if self._before is not None:
                        sys.modules[pb_utils.UTILS] = self._before


_utils = _Utils()


class PythonBackend:
    """One ``TritonPythonModel``: called by one thread at a time."""

    gathers = True
    instances_share = False

    def __init__(self, model: Any, outputs: Sequence[str], repository: ModelRepository) -> None:
        self._model = model
        self._outputs = tuple(outputs)
        self._repository = repository
        pb_utils.servers.append(repository)

    def execute(self, requests: Sequence[InferRequest]) -> Sequence[Sequence[InferResponse] | ServeryError]:
        """Call the model's ``execute`` with all of them."""
        asked = [pb_utils.InferenceRequest.of(request, self._outputs) for request in requests]
        return [
            _sent(request, list(pb_utils.responses_of(mine, answer)))
            for request, mine, answer in zip(requests, asked, self._called(asked), strict=True)
        ]

    def _called(self, asked: Sequence[pb_utils.InferenceRequest]) -> Sequence[Any]:
        """Return what ``execute`` returned for each; None where it sends, or sent, its responses itself."""
        token = pb_utils.serving.set(self._repository)
        try:
            with _utils.importable():
                returned = self._model.execute(asked)
                if inspect.iscoroutine(returned):
                    returned = asyncio.run(returned)
        finally:
            pb_utils.serving.reset(token)
        answers = [None] * len(asked) if returned is None else list(returned)
        if len(answers) != len(asked):
            raise pb_utils.TritonModelException(
                f"execute returned {len(answers)} responses to {len(asked)} requests: one each is needed"
            )
        return answers

    def stream(self, request: InferRequest, send: Send) -> None:
        """Call the model's ``execute`` with one request, and send its responses as they come."""

        def pass_on(response: pb_utils.InferenceResponse | None, is_last: bool) -> None:
            send(None if response is None else _told(request, response), is_last)

        asked = pb_utils.InferenceRequest.of(request, self._outputs)
        asked.sender = pb_utils.ResponseSender(pass_on)
        (answer,) = self._called([asked])
        if answer is not None:
            send(_told(request, answer), True)
        else:
            asked.sender.finished()

    def close(self) -> None:
        """Call the model's ``finalize`` where it has one."""
        pb_utils.servers.remove(self._repository)
        if hasattr(self._model, "finalize"):
            with _utils.importable():
                self._model.finalize()


def _sent(
    request: InferRequest, responses: Sequence[pb_utils.InferenceResponse]
) -> Sequence[InferResponse] | ServeryError:
    for response in responses:
        if not isinstance(response, pb_utils.InferenceResponse):
            raise pb_utils.TritonModelException(
                f"execute answers with pb_utils.InferenceResponse, found a {type(response).__name__}"
            )
    try:
        return [response.sent(request) for response in responses]
    except ModelError as error:
        return error


def _told(request: InferRequest, response: pb_utils.InferenceResponse) -> InferResponse | ServeryError:
    sent = _sent(request, [response])
    return sent if isinstance(sent, ServeryError) else sent[0]


def complete(config: pb.ModelConfig, files: Path) -> None:
    """Let the model's own ``auto_complete_config`` fill in the configuration, where it has one."""
    file = model_file(config, files, FILE)
    made = _imported(file, config.name)
    if hasattr(made, "auto_complete_config"):
        with _asked(file), _utils.importable():
            made.auto_complete_config(pb_utils.ModelConfig(config))
    if "EXECUTION_ENV_PATH" in config.parameters:
        logger.warning("the model brings an environment of its own, which is not used", extra={"model": config.name})


def make(config: pb.ModelConfig, place: Place) -> PythonBackend:
    """Import ``model.py`` for itself, make its class and ``initialize`` it."""
    file = model_file(config, place.files, FILE)
    made = _imported(file, place.name)
    number = next(_numbers)
    arguments = {
        "model_config": json.dumps(as_json(config)),
        "model_instance_kind": "CPU",
        "model_instance_name": f"{place.name}_{number}",
        "model_instance_device_id": "0",
        "model_repository": str(place.model),
        "model_version": place.version,
        "model_name": place.name,
    }
    with _asked(file), _utils.importable():
        model = made()
        if hasattr(model, "initialize"):
            model.initialize(arguments)
    return PythonBackend(model, [output.name for output in config.output], place.repository)


def _imported(file: Path, name: str) -> Any:
    """Return the class; every instance has a module of its own, as it would have a process in Triton.

    Raises:
        LoadError: It does not import, or has no such class with ``execute``.
    """
    spec = importlib.util.spec_from_file_location(f"{OURS}{next(_numbers)}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # One after the other: each looks for the files beside it first.
    with _importing, _asked(file), _utils.importable():
        make_importable(file.parent)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[spec.name]
            raise
    made = getattr(module, CLASS, None)
    if not callable(getattr(made, "execute", None)):
        raise LoadError(f"{file}: model {name!r} needs a class {CLASS} with execute(requests)")
    return made


@contextlib.contextmanager
def _asked(file: Path) -> Iterator[None]:
    try:
        yield
    except LoadError:
        raise
    except (Exception, SystemExit) as error:
        # Somebody else's code may raise anything.
        raise LoadError(f"{file}: {type(error).__name__}: {error}{line_of(error, file)}") from error
