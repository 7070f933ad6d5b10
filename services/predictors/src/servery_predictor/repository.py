"""The models of this process: load, unload, and what state each is in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from servery_sdk.applications import ApplicationModel
from servery_sdk.documents import AnyModel, DocumentModel
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Json
from servery_sdk.model import ModelState
from servery_sdk.protocol import InferRequest, InferResponse, ModelMetadata
from servery_sdk.protocol.gathering import Patience
from servery_sdk.routes import Host, Listener
from servery_sdk.serving import (
    ClosableModel,
    ConfiguredModel,
    DecoupledModel,
    DescribedModel,
    Explainer,
    GatheringModel,
    LoadError,
    Model,
    OverridableModel,
    Overrides,
    RecallableModel,
    ScheduledModel,
    Scheduling,
    SequencedModel,
    UnbatchedModel,
    Unimplemented,
)
from servery_sdk.watching import Watchers

from servery_predictor.batching.calls import Called
from servery_predictor.batching.loop import Batcher
from servery_predictor.batching.tickets import Ticket
from servery_predictor.errors import ModelNotReady, UnknownModel
from servery_predictor.factory import MakeModel, ModelFactory, RunProgram
from servery_predictor.metrics import Metrics

logger = logging.getLogger(__name__)

_LOADED = ModelState.LOADED
"""By a name of its own: to ask the enumeration for it takes 0.07 microseconds."""


class Users:
    """Counts who uses a model beside its queue: texts that are being generated, documents that are being answered.

    Attributes:
        count: Of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self._gone = asyncio.Event()
        self._gone.set()

    def __enter__(self) -> None:
        """Be one more."""
        self.count += 1
        self._gone.clear()

    def __exit__(self, *_: object) -> None:
        """Be one less."""
        self.count -= 1
        if not self.count:
            self._gone.set()

    async def gone(self) -> None:
        """Return when there are none."""
        await self._gone.wait()


@dataclass(slots=True)
class Entry:
    """One model; ``reason`` says why it failed, in the failure's own words.

    Attributes:
        takes_documents: It has no queue: requests reach it as they come. So it was when it was last loaded.
    """

    name: str
    artifact: Path
    make_model: MakeModel
    state: ModelState = ModelState.PENDING
    reason: str = ""
    model: AnyModel | None = None
    batcher: Batcher | None = None
    takes_documents: bool = False
    metadata: ModelMetadata | None = None
    executor: Executor | None = None
    users: Users = field(default_factory=Users)

    @property
    def versions(self) -> tuple[str, ...]:
        """Those that answer; empty where the model has none, or is not loaded."""
        return self.metadata.versions if self.metadata is not None and self.model is not None else ()


class Repository:
    """Models by name.

    Args:
        factory: Of the process's runtime.
        max_batch_rows: Of one call.
        max_queue_requests: That may wait for one model.
        timeout_seconds: That a request may wait for its answer; None for any time.
        on_call: Told of every call of a model.
        workers: Processes that serve the same models; a client's requests meet any of them.

    Attributes:
        watchers: Of the models' states.
    """

    def __init__(
        self,
        factory: ModelFactory,
        metrics: Metrics,
        *,
        max_batch_rows: int,
        max_queue_requests: int,
        timeout_seconds: float | None = None,
        on_call: Callable[[Sequence[Ticket], Called], None] = lambda tickets, called: None,
        workers: int = 1,
    ) -> None:
        self._factory = factory
        self._on_call = on_call
        self._workers = workers
        self._metrics = metrics
        self._max_batch_rows = max_batch_rows
        self.max_queue_requests = max_queue_requests
        self.timeout_seconds = timeout_seconds
        self._entries: dict[str, Entry] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._adopted: dict[str, AnyModel] = {}
        self._programs: dict[str, RunProgram | None] = {}
        self._artifacts: dict[str, Path] = {}
        self._nicknames: dict[str, str] = {}
        self._folder: Path | None = None
        self.watchers = Watchers()

    def add(self, name: str, artifact: Path) -> None:
        """Make known what ``artifact`` brings, not loaded yet: one model, or several under names of their own.

        An only model answers to ``name`` as well: a service of one model is asked by the service's name.

        Raises:
            LoadError: The artifact says which, but cannot be read.
        """
        if name in self._programs:
            # What it makes is known, or will be; it is not run again for a name that it does not know.
            return
        self._artifacts[name] = artifact
        program = self._factory.program(name, artifact)
        if program is None:
            self._know(name, artifact, self._factory.models(name, artifact))
        else:
            self._programs[name] = program

    def _know(self, name: str, artifact: Path, makers: Mapping[str, MakeModel]) -> None:
        for model, make_model in makers.items():
            self._enter(model, artifact, make_model)
        self._nicknames.pop(name, None)
        if len(makers) == 1:
            (self._nicknames[name],) = makers

    @property
    def holds_many(self) -> bool:
        """Whether models come and go by their names, none at first."""
        return self._folder is not None

    def hold(self, folder: Path) -> None:
        """Serve what lies below ``folder``, a model in each of its folders, when it is asked for by its name."""
        self._folder = folder

    def _find(self, folder: Path, name: str) -> None:
        """Make known what lies below ``folder`` under ``name``.

        Raises:
            UnknownModel: Nothing does.
            LoadError: It is there, but cannot be one of many.
        """
        artifact = folder / name
        # One name, not a path: it comes from whoever reaches the port.
        if name.startswith(".") or artifact.name != name or not artifact.is_dir():
            present = ", ".join(sorted(self._entries)) or "none"
            raise UnknownModel(f"Model with name {name} does not exist: no such folder in {folder}; loaded: {present}")
        home, make_model = self._factory.one_of_many(folder, name)
        self._enter(name, home, make_model)

    async def _run_programs(self) -> None:
        for name, program in self._programs.items():
            if program is not None:
                self._programs[name] = None
                makers = await asyncio.get_running_loop().run_in_executor(None, program)
                self._know(name, self._artifacts[name], makers)

    def _enter(self, name: str, artifact: Path, make_model: MakeModel) -> None:
        if name not in self._entries:
            self._entries[name] = Entry(name, artifact, make_model)
            self._locks[name] = asyncio.Lock()

    def listeners(self, host: Host) -> tuple[Listener, ...]:
        """Return the paths of the runtime's own.

        Raises:
            LoadError: An artifact says where they are answered, but cannot be read.
        """
        return tuple(
            found for artifact in self._artifacts.values() for found in self._factory.listeners(artifact, host)
        )

    def adopt(self, name: str, model: AnyModel) -> None:
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
        found = self._entries.get(name) or self._entries.get(self._nicknames.get(name, name))
        if found is None:
            present = ", ".join(sorted(self._entries)) or "none"
            raise UnknownModel(f"Model with name {name} does not exist; this server has: {present}")
        if version is not None and version not in (found.metadata.versions if found.metadata is not None else ()):
            raise UnknownModel(f"model {name!r} has no version {version!r}; leave the version out")
        return found

    @property
    def brings_application(self) -> bool:
        """Whether models answer OpenAI's paths themselves."""
        return self._factory.brings_application

    def applications(self) -> tuple[tuple[Entry, ApplicationModel], ...]:
        """Return the loaded models that do, by name."""
        if not self.brings_application:
            return ()
        loaded: list[tuple[Entry, object]] = [(entry, entry.model) for entry in self.entries()]
        return tuple((entry, model) for entry, model in loaded if isinstance(model, ApplicationModel))

    @property
    def failure(self) -> str | None:
        """Why a model that was loaded will never answer again; None while all will."""
        return next((why for _, model in self.applications() if (why := model.failure()) is not None), None)

    @property
    def holds_documents(self) -> bool:
        """Whether requests reach any model as they come."""
        return any(entry.takes_documents for entry in self._entries.values())

    def takes_documents(self, name: str) -> bool:
        """Return whether requests reach a model as they come; an unknown one takes none."""
        found = self._entries.get(name) or self._entries.get(self._nicknames.get(name, name))
        return found is not None and found.takes_documents

    async def is_ready(self, name: str, version: str | None = None) -> bool:
        """Return whether a model would answer now.

        Raises:
            UnknownModel: No such model or version.
        """
        entry = self.entry(name, version)
        if entry.state is ModelState.LOADED and isinstance(entry.model, DocumentModel):
            return await entry.model.is_ready()
        if isinstance(entry.model, ApplicationModel) and entry.model.failure() is not None:
            return False
        return entry.state is ModelState.LOADED

    def ready(self, name: str, version: str | None = None) -> Entry:
        """Return a model that was loaded, and not unloaded.

        Raises:
            UnknownModel: No such model or version.
            ModelNotReady: It cannot answer; says why.
        """
        entry = self.entry(name, version)
        if entry.model is None or entry.state is not ModelState.LOADED:
            why = f": {entry.reason}" if entry.reason else ""
            raise ModelNotReady(f"Model with name {name} is not ready, but {entry.state}{why}")
        return entry

    def batcher(self, name: str, version: str | None) -> Batcher:
        """Return the queue of a model that is ready.

        Raises:
            UnknownModel: No such model or version.
            ModelNotReady: It cannot answer; says why.
            Unimplemented: It takes documents only.
        """
        # What most requests find, in one look.
        known = self._entries.get(name)
        if known is not None and version is None and known.batcher is not None and known.state is _LOADED:
            return known.batcher
        entry = self.ready(name, version)
        if entry.batcher is None:
            raise Unimplemented(f"model {name!r} takes requests as their clients wrote them, and no tensors")
        return entry.batcher

    def explainer(self, name: str, version: str | None) -> Callable[[InferRequest], InferResponse]:
        """Return the ability of a model to explain its answers.

        Raises:
            UnknownModel: No such model or version.
            Unimplemented: It has none.
        """
        model = self.entry(name, version).model
        if isinstance(model, Explainer):
            return model.explain
        raise Unimplemented(f"model {name!r} does not explain its answers")

    def decoupled(self, name: str, version: str | None) -> DecoupledModel | None:
        """Return a model that may answer with several responses; None where it is none of those.

        Raises:
            UnknownModel: No such model or version.
        """
        model = self.entry(name, version).model
        return model if isinstance(model, DecoupledModel) and model.is_decoupled else None

    def configuration(self, name: str, version: str | None = None) -> Mapping[str, Json]:
        """Return the configuration of a model that is ready.

        Raises:
            UnknownModel: No such model or version, or it has no configuration.
            ModelNotReady: It cannot answer; says why.
        """
        model = self.ready(name, version).model
        if not isinstance(model, ConfiguredModel):
            raise UnknownModel(f"model {name!r} has no configuration")
        return model.configuration()

    async def load_all(self, *, without: Collection[str] = ()) -> None:
        """Load every known model, ``without`` some.

        Raises:
            LoadError: Says every model that cannot be served.
        """
        await self._run_programs()
        names = [entry.name for entry in self.entries() if entry.name not in without]
        outcomes = await asyncio.gather(*map(self.load, names), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in failures:
            if len(failures) == 1 or not isinstance(failure, LoadError):
                raise failure
        if failures:
            raise LoadError("; ".join(map(str, failures)))

    async def load(self, name: str, overrides: Overrides | None = None) -> None:
        """Load or load again; while loading, the old one goes on answering. Artifacts may have got new models, and hold
        some back until they are asked for.

        Raises:
            UnknownModel: Not here.
            LoadError: It cannot be served.
            Unimplemented: It cannot be loaded with ``overrides``.
        """
        if name not in self._entries and self._folder is not None:
            self._find(self._folder, name)
        elif name not in self._entries:
            for known, artifact in list(self._artifacts.items()):
                self.add(known, artifact)
                if name not in self._entries and name in (reserved := self._factory.reserved(artifact)):
                    self._enter(name, artifact, reserved[name])
            await self._run_programs()
        entry = self.entry(name)
        async with self._locks[entry.name]:
            # Who unloaded it while this waited has also forgotten it.
            self._entries.setdefault(entry.name, entry)
            if entry.model is None:
                entry.state = ModelState.LOADING
                self.watchers.tell()
            executor = ThreadPoolExecutor(1, thread_name_prefix=f"model-{entry.name}")
            try:
                model = await asyncio.get_running_loop().run_in_executor(executor, self._loaded, entry, overrides)
                if isinstance(model, DocumentModel | ApplicationModel):
                    await model.begin()
            except (LoadError, Unimplemented) as error:
                executor.shutdown(wait=False)
                if entry.model is None:
                    entry.state, entry.reason = ModelState.FAILED_TO_LOAD, str(error)
                    self.watchers.tell()
                raise
            old = replace(entry)
            self._serve(entry, model, executor)
            await self._release(old)

    def _loaded(self, entry: Entry, overrides: Overrides | None) -> AnyModel:
        adopted = self._adopted.pop(entry.name, None)
        if adopted is not None:
            return adopted
        model = entry.make_model()
        if overrides is not None:
            if not isinstance(model, OverridableModel):
                raise Unimplemented(f"model {entry.name!r} is loaded from its artifact, and from nothing else")
            model.override(overrides)
        model.load(entry.artifact)
        if self._workers > 1 and isinstance(model, SequencedModel) and model.is_sequenced:
            if isinstance(model, ClosableModel):
                model.close()
            raise LoadError(
                f"model {entry.name!r} keeps sequences, and a sequence's state is in one process: --workers={self._workers} "
                "would spread its requests over several; start the server with --workers=1"
            )
        return model

    def _serve(self, entry: Entry, model: AnyModel, executor: Executor) -> None:
        described = model.metadata() if isinstance(model, DescribedModel) else ModelMetadata(name="", platform="")
        entry.takes_documents = isinstance(model, DocumentModel)
        if isinstance(model, DocumentModel):
            executor.shutdown(wait=False)
            entry.model, entry.executor, entry.users, entry.batcher = model, None, Users(), None
            batching = {**_NO_DOCUMENT_BATCHES, "max_queue_requests": self.max_queue_requests}
        else:
            batching = self._queue(entry, model, executor)
        entry.metadata = replace(described, name=entry.name, parameters={**described.parameters, "batching": batching})
        entry.state, entry.reason = ModelState.LOADED, ""
        self._metrics.ready.labels(entry.name).set(1)
        self.watchers.tell()
        logger.info("model loaded", extra={"model": entry.name})

    def _queue(self, entry: Entry, model: Model, executor: Executor) -> dict[str, Json]:
        """Put a queue in front of ``model``; returns how it batches."""
        wishes = model.scheduling() if isinstance(model, ScheduledModel) else Scheduling()
        if wishes.parallel_calls > 1:
            executor.shutdown(wait=False)
            executor = ThreadPoolExecutor(wishes.parallel_calls, thread_name_prefix=f"model-{entry.name}")
        entry.model, entry.executor, entry.users = model, executor, Users()
        batchable = not isinstance(model, UnbatchedModel) or model.batchable
        max_rows = min(wishes.max_rows or self._max_batch_rows, self._max_batch_rows)
        max_requests = wishes.max_requests or self.max_queue_requests
        entry.batcher = Batcher(
            model.predict,
            executor=executor,
            predict_many=model.predict_many if isinstance(model, GatheringModel) and model.gathers else None,
            batchable=batchable,
            together=wishes.together,
            max_rows=max_rows,
            patience=_patience(wishes),
            max_requests=max_requests,
            timeout_seconds=self.timeout_seconds,
            parallel_calls=wishes.parallel_calls,
            waits=wishes.waits,
            recall=model.recall if isinstance(model, RecallableModel) else None,
            on_batch=partial(self._metrics.ran, entry.name),
            on_wait=self._metrics.queue_requests.labels(entry.name).set,
            on_call=self._called,
        )
        return {**(_batches(wishes, max_rows) if batchable else _NO_BATCHES), "max_queue_requests": max_requests}

    def _called(self, tickets: Sequence[Ticket], called: Called) -> None:
        self._metrics.answered_all(tickets, called.outcomes)
        self._on_call(tickets, called)

    async def unload(self, name: str) -> None:
        """Finish what is in flight and give the model back; one of many is forgotten.

        Raises:
            UnknownModel: Not here.
        """
        entry = self.entry(name)
        async with self._locks[entry.name]:
            entry.state = ModelState.PENDING
            self._metrics.ready.labels(entry.name).set(0)
            old = replace(entry)
            entry.batcher = entry.model = entry.executor = None
            if self.holds_many:
                self._entries.pop(entry.name, None)
            self.watchers.tell()
            await self._release(old)
            logger.info("model unloaded", extra={"model": entry.name})

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
            if entry.model is not None:
                await self.unload(entry.name)


_NO_BATCHES: dict[str, Json] = {"mode": "none", "reason": "the model says that its first axis is no batch"}

_NO_DOCUMENT_BATCHES: dict[str, Json] = {
    "mode": "none",
    "reason": "the model takes requests as they come, side by side",
}


def _batches(wishes: Scheduling, max_rows: int) -> dict[str, Json]:
    told: dict[str, Json] = {
        "mode": "natural" if _patience(wishes) is None else "dynamic",
        "max_batch_rows": max_rows,
        "max_latency_seconds": wishes.max_delay_seconds,
    }
    return {**told, "preferred_batch_rows": list(wishes.preferred_rows)} if wishes.preferred_rows else told


def _patience(wishes: Scheduling) -> Patience | None:
    """Return what a model waits for; mostly nothing, and then the queue need not look."""
    if not wishes.preferred_rows and not wishes.max_delay_seconds:
        return None
    return Patience(preferred_rows=wishes.preferred_rows, max_delay_seconds=wishes.max_delay_seconds)


def reason(failure: BaseException) -> str:
    """Return a failure in words fit for a termination message."""
    return str(failure) if isinstance(failure, ServeryError) else f"{type(failure).__name__}: {failure}"
