"""The models of this process: load, unload, and what state each is in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from servery_sdk.errors import ServeryError
from servery_sdk.model import ModelState, Runtime
from servery_sdk.protocol import ModelMetadata
from servery_sdk.serving import ClosableModel, DescribedModel, LoadError, Model, UnbatchedModel

from servery_predictor.batching.loop import Batcher
from servery_predictor.errors import ModelNotReady, UnknownModel
from servery_predictor.metrics import Metrics

logger = logging.getLogger(__name__)

Options: TypeAlias = Mapping[str, str | int | bool]
"""What a process was told of its runtime's own options; those that it was not told are missing."""


class Users:
    """Counts who uses a model beside its queue: texts that are being generated."""

    def __init__(self) -> None:
        self._count = 0
        self._gone = asyncio.Event()
        self._gone.set()

    def __enter__(self) -> None:
        """Be one more."""
        self._count += 1
        self._gone.clear()

    def __exit__(self, *_: object) -> None:
        """Be one less."""
        self._count -= 1
        if not self._count:
            self._gone.set()

    async def gone(self) -> None:
        """Return when there are none."""
        await self._gone.wait()


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
    users: Users = field(default_factory=Users)


class Repository:
    """Models by name.

    Args:
        make_model: Makes an empty model of the process's runtime.
        max_batch_rows: Of one call.
        max_queue_requests: That may wait for one model.
    """

    def __init__(
        self, make_model: Callable[[], Model], metrics: Metrics, *, max_batch_rows: int, max_queue_requests: int
    ) -> None:
        self._make_model = make_model
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self._max_queue_requests = max_queue_requests
        self._entries: dict[str, Entry] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def add(self, name: str, artifact: Path) -> None:
        """Make a model known, not loaded yet."""
        self._entries[name] = Entry(name, artifact)
        self._locks[name] = asyncio.Lock()

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
                model = await asyncio.get_running_loop().run_in_executor(executor, self._loaded, entry.artifact)
            except LoadError as error:
                executor.shutdown(wait=False)
                if entry.batcher is None:
                    entry.state, entry.reason = ModelState.FAILED_TO_LOAD, str(error)
                raise
            old = replace(entry)
            self._serve(entry, model, executor)
            await self._release(old)

    def _loaded(self, artifact: Path) -> Model:
        model = self._make_model()
        model.load(artifact)
        return model

    def _serve(self, entry: Entry, model: Model, executor: Executor) -> None:
        rows = self._metrics.batch_rows.labels(entry.name)
        seconds = self._metrics.predict_seconds.labels(entry.name)

        def on_batch(requests: int, batch_rows: int, took: float) -> None:
            rows.observe(batch_rows)
            seconds.observe(took)

        described = model.metadata() if isinstance(model, DescribedModel) else ModelMetadata(name="", platform="")
        entry.model, entry.executor, entry.users = model, executor, Users()
        entry.metadata = replace(described, name=entry.name)
        entry.batcher = Batcher(
            model.predict,
            executor=executor,
            batchable=not isinstance(model, UnbatchedModel) or model.batchable,
            max_rows=self._max_batch_rows,
            max_requests=self._max_queue_requests,
            on_batch=on_batch,
        )
        entry.state, entry.reason = ModelState.LOADED, ""
        self._metrics.ready.labels(entry.name).set(1)
        logger.info("model loaded", extra={"model": entry.name})

    async def unload(self, name: str) -> None:
        """Finish what is in flight and give the model back.

        Raises:
            UnknownModel: Not here.
        """
        entry = self.entry(name)
        async with self._locks[name]:
            entry.state = ModelState.PENDING
            self._metrics.ready.labels(name).set(0)
            old = replace(entry)
            entry.batcher = entry.model = entry.executor = None
            await self._release(old)
            logger.info("model unloaded", extra={"model": name})

    async def _release(self, old: Entry) -> None:
        """Give back what ``old`` holds, once nobody uses it."""
        if old.batcher is not None:
            await old.batcher.drained()
        await old.users.gone()
        if isinstance(old.model, ClosableModel):
            with contextlib.suppress(Exception):
                old.model.close()
        if old.executor is not None:
            old.executor.shutdown(wait=False)

    async def close(self) -> None:
        """Unload everything."""
        for entry in self.entries():
            if entry.batcher is not None:
                await self.unload(entry.name)


def model_factory(runtime: Runtime, options: Options) -> Callable[[], Model]:
    """Return what makes an empty model of ``runtime`` with ``options``; imports its framework.

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
    return partial(made, **options)


def reason(failure: BaseException) -> str:
    """Return a failure in words fit for a termination message."""
    return str(failure) if isinstance(failure, ServeryError) else f"{type(failure).__name__}: {failure}"
