"""The models of this process: load, unload, and what state each is in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path

from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Json
from servery_sdk.model import ModelState, Runtime
from servery_sdk.protocol import ModelMetadata
from servery_sdk.serving import ClosableModel, DescribedModel, LoadError, Model, ThreadedModel, UnbatchedModel

from servery_predictor.batching.loop import Batcher
from servery_predictor.errors import ModelNotReady, UnknownModel
from servery_predictor.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """One model; ``reason`` says why it failed, in the failure's own words."""

    name: str
    artifact: Path
    state: ModelState = ModelState.PENDING
    reason: str = ""
    model: Model | None = None
    batcher: Batcher | None = None
    metadata: ModelMetadata | None = None
    executor: Executor | None = None


class Repository:
    """Models by name.

    Args:
        make_model: Makes an empty model of the process's runtime.
        max_batch_rows: Of one call.
        max_queue_requests: That may wait for one model.
        timeout_seconds: That a request may wait for its answer; None for any time.
    """

    def __init__(
        self,
        make_model: Callable[[], Model],
        metrics: Metrics,
        *,
        max_batch_rows: int,
        max_queue_requests: int,
        timeout_seconds: float | None = None,
    ) -> None:
        self._make_model = make_model
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self._max_queue_requests = max_queue_requests
        self._timeout_seconds = timeout_seconds
        self._entries: dict[str, Entry] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._adopted: dict[str, Model] = {}

    def add(self, name: str, artifact: Path) -> None:
        """Make a model known, not loaded yet."""
        self._entries[name] = Entry(name, artifact)
        self._locks[name] = asyncio.Lock()

    def adopt(self, name: str, model: Model) -> None:
        """Take a model that is loaded already: it is what the next ``load`` serves."""
        self._adopted[name] = model

    def entries(self) -> tuple[Entry, ...]:
        """Return every known model, by name."""
        return tuple(entry for _, entry in sorted(self._entries.items()))

    def entry(self, name: str, version: str | None = None) -> Entry:
        """Return one model.

        Raises:
            UnknownModel: Not here; says what is.
        """
        found = self._entries.get(name)
        if found is None:
            present = ", ".join(sorted(self._entries)) or "none"
            raise UnknownModel(f"Model with name {name} does not exist; this server has: {present}")
        if version is not None and version not in self._versions(found):
            raise UnknownModel(f"model {name!r} has no version {version!r}; leave the version out")
        return found

    def batcher(self, name: str, version: str | None) -> Batcher:
        """Return the queue of a model that is ready.

        Raises:
            UnknownModel: No such model or version.
            ModelNotReady: It cannot answer; says why.
        """
        entry = self.entry(name, version)
        if entry.batcher is None or entry.state is not ModelState.LOADED:
            why = f": {entry.reason}" if entry.reason else ""
            raise ModelNotReady(f"Model with name {name} is not ready, but {entry.state}{why}")
        return entry.batcher

    @staticmethod
    def _versions(entry: Entry) -> tuple[str, ...]:
        return entry.metadata.versions if entry.metadata is not None else ()

    async def load(self, name: str) -> None:
        """Load or load again; while loading, the old one goes on answering.

        Raises:
            UnknownModel: Not here.
            LoadError: It cannot be served.
        """
        entry = self.entry(name)
        async with self._locks[name]:
            if entry.batcher is None:
                entry.state = ModelState.LOADING
            executor = ThreadPoolExecutor(1, thread_name_prefix=f"model-{name}")
            try:
                model = await asyncio.get_running_loop().run_in_executor(executor, self._loaded, entry)
            except LoadError as error:
                executor.shutdown(wait=False)
                if entry.batcher is None:
                    entry.state, entry.reason = ModelState.FAILED_TO_LOAD, str(error)
                raise
            before = entry.batcher, entry.model, entry.executor
            # The new one first: while the old one finishes what is in flight, others ask already.
            self._serve(entry, model, executor)
            await self._release(*before)

    def _loaded(self, entry: Entry) -> Model:
        adopted = self._adopted.pop(entry.name, None)
        if adopted is not None:
            return adopted
        model = self._make_model()
        model.load(entry.artifact)
        return model

    def _serve(self, entry: Entry, model: Model, executor: Executor) -> None:
        described = model.metadata() if isinstance(model, DescribedModel) else ModelMetadata(name="", platform="")
        entry.model, entry.executor = model, executor
        batchable = not isinstance(model, UnbatchedModel) or model.batchable
        entry.metadata = replace(
            described, name=entry.name, parameters={**described.parameters, "batching": self._batching(batchable)}
        )
        entry.batcher = Batcher(
            model.predict,
            executor=executor,
            batchable=batchable,
            max_rows=self._max_batch_rows,
            max_requests=self._max_queue_requests,
            timeout_seconds=self._timeout_seconds,
            on_batch=partial(self._metrics.ran, entry.name),
            on_wait=self._metrics.queue_requests.labels(entry.name).set,
        )
        entry.state, entry.reason = ModelState.LOADED, ""
        self._metrics.ready.labels(entry.name).set(1)
        logger.info("model loaded", extra={"model": entry.name})

    def _batching(self, batchable: bool) -> dict[str, Json]:
        bounds = {"max_queue_requests": self._max_queue_requests}
        if not batchable:
            return {"mode": "none", "reason": "the model says that its first axis is no batch", **bounds}
        return {"mode": "natural", "max_batch_rows": self._max_batch_rows, "max_latency_seconds": 0, **bounds}

    async def unload(self, name: str) -> None:
        """Finish what is in flight and give the model back.

        Raises:
            UnknownModel: Not here.
        """
        entry = self.entry(name)
        async with self._locks[name]:
            entry.state = ModelState.PENDING
            self._metrics.ready.labels(name).set(0)
            before = entry.batcher, entry.model, entry.executor
            entry.batcher = entry.model = entry.executor = None
            await self._release(*before)
            logger.info("model unloaded", extra={"model": name})

    @staticmethod
    async def _release(batcher: Batcher | None, model: Model | None, executor: Executor | None) -> None:
        if batcher is not None:
            await batcher.drained()
        if isinstance(model, ClosableModel):
            with contextlib.suppress(Exception):
                model.close()
        if executor is not None:
            executor.shutdown(wait=False)

    async def close(self) -> None:
        """Unload everything."""
        for entry in self.entries():
            if entry.batcher is not None:
                await self.unload(entry.name)


def model_factory(runtime: Runtime, *, threads: int = 1) -> Callable[[], Model]:
    """Return what makes an empty model of ``runtime``; imports its framework.

    Args:
        threads: That a call of the model may use, where it can be told.

    Raises:
        LoadError: It has no model class, or that does not import.
    """
    module, _, attribute = (runtime.model_class or "").partition(":")
    if not attribute:
        raise LoadError(f"runtime {runtime.name!r} has no model class; only its own image serves it")
    try:
        made = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise LoadError(f"runtime {runtime.name!r}: cannot import {runtime.model_class}: {error}") from error
    if not isinstance(made, type) or not callable(getattr(made, "predict", None)):
        raise LoadError(f"runtime {runtime.name!r}: {runtime.model_class} is not a class with load and predict")

    def empty() -> Model:
        model: Model = made()
        if isinstance(model, ThreadedModel):
            model.threads = threads
        return model

    return empty


def reason(failure: BaseException) -> str:
    """Return a failure in words fit for a termination message."""
    return str(failure) if isinstance(failure, ServeryError) else f"{type(failure).__name__}: {failure}"
