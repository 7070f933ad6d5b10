"""Gather, decide, act: one service at a time, for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from servery_kube.events import Recorder
from servery_kube.informer import Informer
from servery_kube.port import FIELD_MANAGER, Forbidden, KubeApi, KubeError, NotFound, Rejected, TooManyRequests
from servery_kube.queue import WorkQueue
from servery_sdk import kinds
from servery_sdk.contract import Dialect, HoldingDialect
from servery_sdk.errors import Invalid
from servery_sdk.manifests import Json, Kind, Manifest, Namespace, ObjectRef, has_labels
from servery_sdk.model import Catalog, DeploymentPlan, Observed, ServiceStatus, TransitionStatus
from servery_sdk.plugins import Plugins

from servery_controller import planning, render
from servery_controller.assignments import Assignments
from servery_controller.capabilities import offered
from servery_controller.gather import referenced
from servery_controller.planning import EngineMissing, NoPlan, PlanningSettings, products

logger = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 30.0
"""How often to look for kinds that the cluster did not serve before: an engine may be installed later."""


_RECONCILE_FAILED = "ReconcileFailed"
"""KServe's word for objects that the API server does not take."""


def timestamp() -> str:
    """Return now as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Controller:
    """Makes services what their manifests say.

    Args:
        api: Where they are.
        workers: Services worked on at once.
        now: The clock, for conditions.
        assignments: What agents are told, and tell.
    """

    def __init__(
        self,
        api: KubeApi,
        plugins: Plugins,
        settings: PlanningSettings,
        *,
        workers: int = 4,
        now: Callable[[], str] = timestamp,
        assignments: Assignments | None = None,
    ) -> None:
        self._api = api
        self._recorder = Recorder(api, "servery-controller")
        self._plugins = plugins
        self._settings = settings
        self._workers = workers
        self._now = now
        self._queue: WorkQueue[ObjectRef] = WorkQueue()
        self._dialects: dict[Kind, Dialect] = {
            kind: dialect for dialect in plugins.dialects.values() for kind in dialect.services
        }
        self._runtime_kinds = frozenset(kind for dialect in plugins.dialects.values() for kind in dialect.runtimes)
        self._held_kinds: dict[Kind, HoldingDialect] = {
            kind: dialect
            for dialect in plugins.dialects.values()
            if isinstance(dialect, HoldingDialect)
            for kind in dialect.held
        }
        models = frozenset(kind for dialect in plugins.dialects.values() for kind in dialect.models)
        self._model_kinds = models - self._held_kinds.keys()
        self._owned_kinds = frozenset(kind for mode in plugins.modes.values() for kind in mode.kinds)
        if self._held_kinds:
            self._owned_kinds |= {kinds.CONFIG_MAP}
        self._assignments = assignments or Assignments()
        self._assignments.on_report = self._queue.add
        self._holders: dict[ObjectRef, ObjectRef] = {}
        self._informers: dict[Kind, Informer] = {}
        self._installed: Catalog | None = None
        self._applied: dict[ObjectRef, _Applied] = {}
        self._reported: dict[ObjectRef, Mapping[str, Json]] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Controller]:
        """Run until the end of the block."""
        task = asyncio.create_task(self.run(), name="controller")
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def run(self) -> None:
        """Watch and reconcile until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._discover(group)
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"reconciler-{number}")
                while True:
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
                    await self._discover(group)
        finally:
            self._queue.close()

    async def _discover(self, group: asyncio.TaskGroup) -> None:
        """Watch every kind that matters and that the cluster serves."""
        wanted = {*self._dialects, *self._runtime_kinds, *self._model_kinds, *self._owned_kinds, kinds.POD}
        wanted |= self._held_kinds.keys()
        for kind in sorted(wanted - self._informers.keys()):
            informer = Informer(self._api, kind)
            try:
                if not await self._api.has(kind):
                    continue
                await informer.sync()
            except Forbidden as error:
                # Of another mode than the installation's: its role leaves this kind out.
                logger.info("kind not watched", extra={"kind": str(kind), "error": str(error)})
                continue
            except KubeError as error:
                logger.warning("cannot look for kinds", extra={"kind": str(kind), "error": str(error)})
                await asyncio.sleep(1)
                return await self._discover(group)
            self._watch(informer)
            group.create_task(informer.run(), name=f"informer-{kind.plural}")
        return None

    def _watch(self, informer: Informer) -> None:
        self._informers[informer.kind] = informer
        if informer.kind in self._dialects:
            informer.subscribe(lambda manifest: self._queue.add(informer.ref(manifest)))
        elif informer.kind in self._held_kinds:
            informer.subscribe(lambda manifest: self._enqueue_holders(informer.ref(manifest), manifest))
        elif informer.kind in self._runtime_kinds | self._model_kinds:
            informer.subscribe(lambda _: self._reinstalled())
        else:
            informer.subscribe(self._enqueue_owner)
        # What came with the first list, and services that waited for this kind.
        self._reinstalled()

    def _items(self, wanted: Collection[Kind]) -> Iterator[tuple[ObjectRef, Manifest]]:
        for kind, informer in self._informers.items():
            if kind in wanted:
                yield from informer.items()

    def _enqueue_all(self) -> None:
        for ref, _ in self._items(self._dialects):
            self._queue.add(ref)

    def _reinstalled(self) -> None:
        """Forget the catalog, on which every service may depend."""
        self._installed = None
        self._enqueue_all()

    def _enqueue_holders(self, ref: ObjectRef, manifest: Manifest) -> None:
        """Have the service looked at that holds a model, and the one that held it before."""
        holder = self._held_kinds[ref.kind].holder(manifest)
        before = self._holders.get(ref, holder)
        self._holders[ref] = holder
        for service in {holder, before}:
            self._queue.add(service)

    def _held(self, service: ObjectRef) -> dict[ObjectRef, Manifest]:
        """Return the models that name ``service``."""
        return {
            ref: manifest
            for ref, manifest in self._items(self._held_kinds)
            if ref.namespace == service.namespace and self._held_kinds[ref.kind].holder(manifest) == service
        }

    def model_pods(self) -> Iterator[tuple[ObjectRef, Manifest]]:
        """Yield the pods of every service, with the service."""
        for _, pod in self._items({kinds.POD}):
            for service in self._owners(pod):
                yield service, pod

    def _enqueue_owner(self, manifest: Manifest) -> None:
        for ref in self._owners(manifest):
            self._queue.add(ref)

    def _owners(self, manifest: Manifest) -> Iterator[ObjectRef]:
        # A pod is owned by a ReplicaSet; the labels that a dialect puts on all it owns hold the service's name.
        namespace = Namespace(manifest["metadata"].get("namespace", ""))
        for value in set((manifest["metadata"].get("labels") or {}).values()):
            for kind in self._dialects:
                ref = ObjectRef(kind, namespace, value)
                if self._manifest(ref) is not None:
                    yield ref

    async def _work(self) -> None:
        while True:
            ref = await self._queue.get()
            try:
                await self.reconcile(ref)
            except KubeError as error:
                logger.info("reconcile again", extra={"object": str(ref), "error": str(error)})
                asked = error.retry_after_seconds if isinstance(error, TooManyRequests) else None
                self._queue.retry(ref, after_seconds=asked)
            except Exception:
                # The rim of the loop: a bug in one service must not stop the others.
                logger.exception("reconcile failed", extra={"object": str(ref)})
                self._queue.retry(ref)
            else:
                self._queue.done(ref)

    async def reconcile(self, ref: ObjectRef) -> None:
        """Bring one service where its manifest wants it.

        Raises:
            KubeError: It is to be tried again; what the API server refuses is then in the status already.
        """
        manifest = self._manifest(ref)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            # What it owns carries its owner reference: the API server collects it.
            self._forget(ref)
            await self._report_held(ref, None, None)
            return
        dialect = self._dialects[ref.kind]
        objects = await referenced(self._api, dialect.references(manifest))
        catalog = self._catalog({**objects, **self._held(ref)})
        plan = None
        pods: tuple[Manifest, ...] = ()
        refusal: KubeError | None = None
        try:
            plan, desired = render.render(manifest, catalog, self._plugins, self._settings)
            mode = self._plugins.modes[plan.mode]
            if missing := mode.requires(plan) - plan.capabilities:
                raise EngineMissing(plan.mode, products(missing))
            if unserved := {f"{wanted['kind']}.{wanted['apiVersion']}" for wanted in desired} - self._served():
                raise EngineMissing(plan.mode, " and ".join(sorted(unserved)))
        except (Invalid, NoPlan) as error:
            status = self._refusal(manifest, error, plan)
        else:
            try:
                await self._act(plan, desired)
            except (Rejected, Forbidden) as error:
                # Admission, a quota or a role may say yes later.
                refusal = error
                status = self._refusal(manifest, error, plan)
            else:
                observed = self._observed(plan, manifest)
                pods = observed.pods
                status = planning.observe(plan, desired, observed, mode.readiness, now=self._now())
        written = dialect.status(status)
        if written != manifest.get("status"):
            await self._api.patch_status(ref, written)
        # The cache may not have the last status yet; what was said of it already is not said again.
        before: Manifest = self._reported.get(ref) or manifest.get("status") or {}
        for event in planning.events(ref.name, status, plan, before, pods):
            await self._recorder.record(manifest, event)
        self._reported[ref] = written
        await self._report_held(ref, plan, status)
        if refusal is not None:
            raise refusal

    async def _report_held(self, ref: ObjectRef, plan: DeploymentPlan | None, status: ServiceStatus | None) -> None:
        """Tell agents what their pods hold, and the models how far they are."""
        workload = plan.workloads[0] if plan is not None else None
        if workload is not None and workload.held is not None:
            self._assignments.assign(ref, workload.held.assigned)
        reports = self._assignments.reports(ref)
        for model, manifest in self._held(ref).items():
            found = planning.observe_held(manifest, workload, status, reports, now=self._now())
            written = self._held_kinds[model.kind].held_status(found)
            if written != manifest.get("status"):
                with contextlib.suppress(NotFound):
                    await self._api.patch_status(model, written)

    def _served(self) -> set[str]:
        return {str(kind) for kind in self._informers}

    def _manifest(self, ref: ObjectRef) -> Manifest | None:
        informer = self._informers.get(ref.kind)
        return informer.get(ref) if informer is not None else None

    def _catalog(self, objects: Mapping[ObjectRef, Manifest]) -> Catalog:
        if self._installed is None:
            # Hundreds of runtimes take longer to read than a service to plan.
            runtimes = [manifest for _, manifest in self._items(self._runtime_kinds)]
            self._installed = render.catalog_from(runtimes, self._plugins, offered(self._informers.keys()))
        return replace(self._installed, objects=objects)

    def _observed(self, plan: DeploymentPlan, manifest: Manifest) -> Observed:
        def owned(wanted: Collection[Kind]) -> dict[ObjectRef, Manifest]:
            return {
                ref: found
                for ref, found in self._items(wanted)
                if ref.namespace == plan.ref.namespace and has_labels(found, plan.owned_labels)
            }

        pods = tuple(owned({kinds.POD}).values())
        return Observed(objects=owned(self._owned_kinds), pods=pods, previous=manifest.get("status") or {})

    async def _act(self, plan: DeploymentPlan, desired: tuple[Manifest, ...]) -> None:
        by_kind = {(kind.api_version, kind.kind): self._informers[kind] for kind in self._informers}
        for wanted in desired:
            informer = by_kind[wanted["apiVersion"], wanted["kind"]]
            ref = informer.ref(wanted)
            # Applied before and still as applied: a steady state makes no writes.
            live, before = informer.get(ref), self._applied.get(ref)
            if live is None or before is None or before.wanted != wanted or not before.stands_in(live):
                taken = await self._api.apply(wanted, informer.kind)
                self._applied[ref] = _Applied(wanted=wanted, fields=_own_fields(taken), over=_version(live or {}))
        for ref in planning.prune(desired, self._observed(plan, {}), owner_uid=plan.owner["uid"]):
            logger.info("prune", extra={"object": str(ref)})
            await self._api.delete(ref)
            self._applied.pop(ref, None)

    def _forget(self, ref: ObjectRef) -> None:
        owned = [
            applied
            for applied, before in self._applied.items()
            if applied.namespace == ref.namespace
            and any(owner.get("name") == ref.name for owner in before.wanted["metadata"]["ownerReferences"])
        ]
        for applied in owned:
            del self._applied[applied]
        self._reported.pop(ref, None)
        self._assignments.forget(ref)

    def _refusal(
        self, manifest: Manifest, error: Invalid | NoPlan | KubeError, plan: DeploymentPlan | None
    ) -> ServiceStatus:
        return planning.refused(
            _reason(error),
            str(error),
            generation=manifest["metadata"].get("generation", 0),
            previous=manifest.get("status") or {},
            now=self._now(),
            transition=TransitionStatus.INVALID_SPEC,
            condition_type=plan.workloads[0].condition if plan is not None else "PredictorReady",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Applied:
    """What was applied to one object.

    Attributes:
        fields: Those that the API server then had as ours.
        over: The version that the cache had at that time; None if it had no such object.
    """

    wanted: Manifest
    fields: Json
    over: str | None

    def stands_in(self, live: Manifest) -> bool:
        """Return whether nobody has changed one of our fields since: who does becomes its owner.

        Fields of others may change as they like: an autoscaler's replicas are no reason to apply again.
        """
        # A cache that has not seen the apply yet says nothing about what came after it.
        return _version(live) == self.over or _own_fields(live) == self.fields


def _own_fields(manifest: Manifest) -> Json:
    entries = manifest["metadata"].get("managedFields") or ()
    ours = (FIELD_MANAGER, "Apply")
    return next((entry["fieldsV1"] for entry in entries if (entry["manager"], entry["operation"]) == ours), None)


def _version(manifest: Manifest) -> str | None:
    version: str | None = manifest.get("metadata", {}).get("resourceVersion")
    return version


def _reason(error: Invalid | NoPlan | KubeError) -> str:
    if isinstance(error, NoPlan):
        return error.reason
    return "InvalidSpec" if isinstance(error, Invalid) else _RECONCILE_FAILED
