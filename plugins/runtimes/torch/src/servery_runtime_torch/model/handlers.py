"""A model of a TorchServe store: the archive's own handler, or a default one, for each of its versions.

Source: TorchServe, "Custom service", "Default handlers".
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import sys
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from servery_sdk.importing import make_importable
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.serving import LoadError, Unimplemented

from servery_runtime_torch import archive, requirements, rows
from servery_runtime_torch.model import compat
from servery_runtime_torch.model.failures import is_callers, refused
from servery_runtime_torch.store import Archive, Store, StoredModel

logger = logging.getLogger(__name__)

OUTPUT = "predict"
"""The name of the output, as TorchServe's v2 envelope has it."""
EXPLANATION = "explain"

DEFAULT = frozenset({"image_classifier", "image_segmenter", "object_detector", "text_classifier", "base_handler"})
WHOLE_REQUESTS = frozenset({"kservev2", "kfservingv2"})
"""Envelopes that hand a handler the request's tensor, not its rows."""

_CLIENT_ERRORS = range(400, 500)


@dataclass(slots=True)
class _Version:
    handle: Callable[[Any, Any], Any]
    context: Any
    processor: Callable[[dict[str, str]], Any]
    batch_size: int | None


class HandledModel:
    """Gives a handler the rows of a request, as TorchServe would have taken them out of its envelope.

    Requests that waited together come as one list, where the configuration's ``batchSize`` is not 1.
    """

    def __init__(self, stored: StoredModel, found: Store) -> None:
        self._stored, self._store = stored, found
        self.default_version = stored.default_version
        self._versions: dict[str, _Version] = {}
        self._directories: list[Callable[[], Any]] = []
        self._takes_requests = found.envelope in WHOLE_REQUESTS
        sizes = [version.batch_size for version in stored.versions.values()]
        self.batchable = not self._takes_requests and 1 not in sizes

    def load(self) -> None:
        """Unpack and initialize every version.

        Raises:
            LoadError: One cannot be; says the archive and the handler's own words.
        """
        try:
            for version, found in self._stored.versions.items():
                self._versions[version] = self._initialized(found)
        except BaseException:
            self.close()
            raise

    def _initialized(self, found: Archive) -> _Version:
        directory = archive.unpack(found.path, self._directory())
        make_importable(directory)
        self._require(found, directory)
        try:
            with _torchserve(), warnings.catch_warnings():
                # Handlers are written for other versions of PyTorch, which warns of what it will drop.
                warnings.simplefilter("ignore", DeprecationWarning)
                warnings.simplefilter("ignore", FutureWarning)
                context = self._context(found, directory)
                handle, initialize = _entry(found.manifest.handler, directory)
                initialize(context)
        except LoadError:
            raise
        except Exception as error:
            # Somebody else's code may raise anything.
            raise LoadError(f"{found.path}: {_because(error, found.manifest.handler)}") from error
        processor = importlib.import_module("ts.context").RequestProcessor
        return _Version(handle, context, processor, found.batch_size)

    def _directory(self) -> Path:
        """Return a new directory, which goes with the model even if nobody closes it."""
        made = tempfile.mkdtemp(prefix="servery-mar-")
        self._directories.append(weakref.finalize(self, shutil.rmtree, made, ignore_errors=True))
        return Path(made)

    def _require(self, found: Archive, directory: Path) -> None:
        if found.manifest.requirements is None:
            return
        file = directory / Path(found.manifest.requirements).name
        if not self._store.installs_requirements:
            logger.info(
                "requirements are not looked at",
                extra={"archive": found.path.name, "reason": "install_py_dep_per_model is not true"},
            )
            return
        if not file.is_file():
            raise LoadError(f"{found.path}: its manifest names {file.name}, which it does not hold")
        target = self._directory()
        allowed = os.environ.get(requirements.ALLOWED, "").lower() == "true"
        if requirements.satisfy(file, target, is_allowed=allowed, archive=found.path):
            make_importable(target)

    def _context(self, found: Archive, directory: Path) -> Any:
        metrics = importlib.import_module("ts.metrics.metrics_store")
        made = importlib.import_module("ts.context").Context(
            self._stored.name,
            str(directory),
            found.manifest.document,
            found.batch_size or 1,
            0 if torch.cuda.is_available() else None,
            importlib.import_module("ts").__version__,
            limit_max_image_pixels=True,
            metrics=metrics.MetricsStore(*([[], self._stored.name] if not _is_ours(metrics) else [])),
        )
        config = found.manifest.document["model"].get("configFile")
        if config:
            made.model_yaml_config = importlib.import_module("ts.utils.util").get_yaml_config(str(directory / config))
        return made

    def predict(self, request: InferRequest) -> InferResponse:
        """Return the handler's answer to each row.

        Raises:
            InputError: The handler refused the rows, or could not make sense of them.
        """
        return self._answered(request, {}, OUTPUT)

    def explain(self, request: InferRequest) -> InferResponse:
        """Return the handler's explanation of each row.

        Raises:
            InputError: Likewise.
            Unimplemented: The handler explains nothing.
        """
        try:
            return self._answered(request, {"explain": "True"}, EXPLANATION)
        except NotImplementedError as error:
            raise Unimplemented(f"model {self._stored.name!r} does not explain its answers: {error}") from error

    def _answered(self, request: InferRequest, headers: dict[str, str], name: str) -> InferResponse:
        version = self._versions[request.version or self.default_version]
        items = rows.of_request(request) if self._takes_requests else rows.of_instances(request)
        # A list of whole requests has no fixed length in TorchServe either: batchSize bounds it, 1 is one request.
        size = version.batch_size if self.batchable and version.batch_size else len(items)
        answers: list[Any] = []
        for start in range(0, len(items), size or 1):
            answers += self._handled(version, items[start : start + size], headers, request)
        return InferResponse(model=request.model, outputs=(rows.tensor(name, answers),))

    def _handled(
        self, version: _Version, items: list[Any], headers: dict[str, str], request: InferRequest
    ) -> list[Any]:
        processors = [version.processor(headers) for _ in items]
        version.context.request_processor = processors
        version.context.request_ids = dict.fromkeys(range(len(items)), request.id or "")
        try:
            answered = version.handle(items, version.context)
        except Exception as error:
            if not is_callers(error):
                raise
            raise refused(error, request) from error
        for processor in processors:
            if processor.get_response_status_code() in _CLIENT_ERRORS:
                raise refused(ValueError(processor.get_response_status_phrase() or "refused"), request)
        return rows.answer(answered, count=len(items))

    def metadata(self) -> ModelMetadata:
        """Return the versions; what goes in and comes out only the handler knows."""
        return ModelMetadata(name="", platform="pytorch_mar", versions=tuple(self._versions))

    def close(self) -> None:
        """Remove what was unpacked."""
        self._versions.clear()
        for remove in self._directories:
            remove()


def _is_ours(module: ModuleType) -> bool:
    return Path(str(module.__file__)).is_relative_to(_COMPATIBILITY)


_COMPATIBILITY = Path(str(compat.__file__)).parent


@contextlib.contextmanager
def _torchserve() -> Iterator[None]:
    """Let ``ts`` be imported: the real one where it is installed, else ours."""
    if "ts" in sys.modules or find_spec("ts") is not None:
        yield
        return
    sys.path.append(str(_COMPATIBILITY))
    try:
        # Once imported, its modules are found without the path.
        importlib.import_module("ts")
        yield
    finally:
        sys.path.remove(str(_COMPATIBILITY))


def _entry(handler: str, directory: Path) -> tuple[Callable[[Any, Any], Any], Callable[[Any], Any]]:
    """Return what answers and what is called first, of ``file.py``, ``file.py:function`` or a default handler."""
    name, _, function = handler.partition(":")
    module_name = Path(name).name.removesuffix(".py")
    if (directory / f"{module_name}.py").is_file():
        module = importlib.import_module(module_name)
    elif module_name in DEFAULT:
        module = importlib.import_module(f"ts.torch_handler.{module_name}")
    else:
        raise LoadError(
            f"handler {handler!r} is neither a file of the archive nor a default one: {', '.join(sorted(DEFAULT))}"
        )
    entry = getattr(module, function or "handle", None)
    if callable(entry):
        return entry, lambda context: entry(None, context)
    if function:
        raise LoadError(f"handler {handler!r}: {module_name} has no function {function}")
    classes = [
        found for found in vars(module).values() if isinstance(found, type) and found.__module__ == module.__name__
    ]
    able = [found for found in classes if callable(getattr(found, "handle", None))]
    if len(able) != 1:
        names = ", ".join(found.__name__ for found in able) or "none"
        raise LoadError(f"handler {handler!r}: one class with handle(data, context) is expected, found: {names}")
    service = able[0]()
    return service.handle, service.initialize


def _because(error: Exception, handler: str) -> str:
    words = f"handler {handler!r}: {type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        distribution = error.name.partition(".")[0]
        words += f"; install {distribution} beside the model server, or put the module into the archive"
    return words
