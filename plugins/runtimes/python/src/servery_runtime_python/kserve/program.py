"""Runs a file that KServe would run, up to where its server would start."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from kserve import ModelServer, model_server
from kserve.errors import NoModelReady
from kserve.model import BaseKServeModel, InferenceModel
from servery_sdk.importing import make_importable
from servery_sdk.serving import LoadError

from servery_runtime_python import files
from servery_runtime_python.kserve.model import KServeModel, Started

_RUNNING = threading.Lock()
"""What a program sees of its process, such as ``sys.argv``, is one program's at a time."""


class _Start(BaseException):
    """Ends a program where ``ModelServer.start`` would not return; no ``except Exception`` of its own keeps it."""

    def __init__(self, server: ModelServer, models: Sequence[BaseKServeModel]) -> None:
        super().__init__()
        self.server = server
        self.models = models


class Program:
    """A file with ``kserve.ModelServer().start([…])``, or with one class of KServe's and nothing that starts it.

    Args:
        file: Of ``artifact``.
        name: ``--model_name``.
        arguments: Other flags that it is run with.
    """

    def __init__(self, file: Path, artifact: Path, name: str, arguments: Sequence[str]) -> None:
        self._file = file
        self._artifact = artifact
        self._name = name
        # Our logs are JSON lines and say latencies in /metrics; a flag of the program's own comes later and wins.
        ours = ("--configure_logging=false", "--enable_latency_logging=false")
        self._arguments = (*ours, f"--model_name={name}", f"--model_dir={artifact}", *arguments)
        self._started: dict[str, Started] = {}

    def models(self) -> Mapping[str, Callable[[], KServeModel]]:
        """Run it; returns what makes each model that it starts, by the name that it has there.

        Raises:
            LoadError: It does not come so far, or starts nothing that can be served.
        """
        self._started = self._run()
        return {name: partial(KServeModel, partial(self._take, name)) for name in self._started}

    def _take(self, name: str) -> Started:
        """Return a model that nobody has: of the first run, and then, when it is loaded again, of another."""
        started = self._started.pop(name, None) or self._run().get(name)
        if started is None:
            raise LoadError(f"{self._file.name}: starts no model {name!r} any more")
        return started

    def _run(self) -> dict[str, Started]:
        before = copy_context()
        context = copy_context()
        try:
            models = context.run(self._models)
        except LoadError:
            raise
        except SystemExit as error:
            flags = " ".join(self._arguments)
            raise LoadError(f"{self._file.name}: exited with {error.code} when it was run with {flags}") from error
        except Exception as error:
            # Somebody else's code may raise anything.
            raise files.failure(self._file, error) from error
        variables = _changed(before, context)
        return {name: Started(model, variables) for name, model in models.items()}

    def _models(self) -> dict[str, InferenceModel]:
        with _RUNNING, _as_main(self._file, self._artifact, self._arguments) as module:
            try:
                exec(compile(self._file.read_bytes(), str(self._file), "exec"), vars(module))  # noqa: S102  # it is what the user asks for
                return self._registered(ModelServer(), [self._made(module)])
            except _Start as start:
                return self._registered(start.server, start.models)

    def _made(self, module: ModuleType) -> BaseKServeModel:
        """Make the one model of a file that starts none."""
        classes = [
            found
            for found in vars(module).values()
            if isinstance(found, type) and issubclass(found, BaseKServeModel) and found.__module__ == module.__name__
        ]
        # A class that others build upon is theirs.
        leaves = [one for one in classes if not any(other is not one and issubclass(other, one) for other in classes)]
        if len(leaves) != 1:
            named = ", ".join(sorted(leaf.__name__ for leaf in leaves)) or "none"
            raise LoadError(
                f"{self._file.name}: starts no kserve.ModelServer, and of its classes of KServe's models ({named}) "
                "not exactly one can be meant"
            )
        model: BaseKServeModel = leaves[0](self._name)
        if not inspect.iscoroutinefunction(model.load):
            model.load()
        return model

    def _registered(self, server: ModelServer, models: Sequence[BaseKServeModel]) -> dict[str, InferenceModel]:
        """Return the models of ``server`` by name.

        Source: KServe python/kserve/kserve/model_server.py, ``_register_and_check_atleast_one_model_is_ready``.
        """
        if not isinstance(models, list) or not all(isinstance(model, BaseKServeModel) for model in models):
            raise LoadError(f"{self._file.name}: ModelServer.start takes a list of KServe's models, found {models!r}")
        for model in models:
            # One that loads on the event loop is ready later.
            if model.ready or inspect.iscoroutinefunction(model.load):
                server.register_model(model)
            if model.ready:
                model.start()
        found = server.registered_models.get_models()
        if not found:
            raise LoadError(f"{self._file.name}: {NoModelReady(models) if models else 'starts no model'}")
        foreign = sorted(name for name, model in found.items() if not isinstance(model, InferenceModel))
        if foreign:
            raise LoadError(
                f"{self._file.name}: {', '.join(foreign)}: answers neither v1 nor v2; "
                "the huggingface runtime serves OpenAI's API"
            )
        return dict(found)


def _changed(before: Context, after: Context) -> dict[ContextVar[Any], Any]:
    """Return what a program has set, such as KServe's predictor configuration."""
    return {variable: value for variable, value in after.items() if before.get(variable, before) is not value}


@contextmanager
def _as_main(file: Path, artifact: Path, arguments: Sequence[str]) -> Iterator[ModuleType]:
    """Let ``file`` be what Python runs: as ``__main__``, with its arguments; a server that it starts ends it.

    It stays ``__main__``: what it has pickled, and what it starts processes with, looks for it there.
    """

    def start(server: ModelServer, models: Sequence[BaseKServeModel]) -> NoReturn:
        raise _Start(server, models)

    make_importable(artifact)
    if file.parent != artifact:
        make_importable(file.parent)
    module = ModuleType("__main__")
    module.__file__ = str(file)
    sys.modules["__main__"] = module
    argv, args, start_server = sys.argv, model_server.args, ModelServer.start
    sys.argv = [str(file), *arguments]
    ModelServer.start = start
    # KServe reads its flags when it is imported, which may have been for another program.
    model_server.args, _ = model_server.parser.parse_known_args(list(arguments))
    try:
        yield module
    finally:
        sys.argv, model_server.args, ModelServer.start = argv, args, start_server
