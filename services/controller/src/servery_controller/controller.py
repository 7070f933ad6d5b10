"""Gather, decide, act: one service at a time, for ever."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from servery_kube.events import Recorder
from servery_kube.informer import Informer
from servery_kube.port import KubeApi, KubeError, TooManyRequests
from servery_kube.queue import WorkQueue
from servery_sdk import kinds
from servery_sdk.contract import Dialect
from servery_sdk.errors import Invalid
from servery_sdk.manifests import Json, Kind, Manifest, Namespace, ObjectRef, has_labels
from servery_sdk.model import Capability, Catalog, DeploymentPlan, Observed, ServiceStatus, TransitionStatus
from servery_sdk.plugins import Plugins

from servery_controller import planning, render
from servery_controller.capabilities import KINDS
from servery_controller.gather import referenced
from servery_controller.planning import NoPlan, PlanningSettings

logger = logging.getLogger(__name__)

_OWNED = (
    kinds.DEPLOYMENT,
    kinds.SERVICE,
    kinds.HORIZONTAL_POD_AUTOSCALER,
    kinds.POD_DISRUPTION_BUDGET,
)
"""What every cluster has and a mode may render."""


def timestamp() -> str:
    """Return now as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Controller:
    """Makes services what their manifests say.

    Args:
        api: Where they are.
        capabilities: What the cluster offers.
        workers: Services worked on at once.
        now: The clock, for conditions.
    """

    def __init__(
        self,
        api: KubeApi,
        plugins: Plugins,
        settings: PlanningSettings,
        *,
        capabilities: frozenset[Capability] = frozenset({Capability.INGRESS}),
        workers: int = 4,
        now: Callable[[], str] = timestamp,
    ) -> None:
        self._api = api
        self._recorder = Recorder(api, "servery-controller")
        self._plugins = plugins
        self._settings = settings
        self._capabilities = capabilities
        self._workers = workers
        self._now = now
        self._queue: WorkQueue[ObjectRef] = WorkQueue()
        self._dialects: dict[Kind, Dialect] = {
            kind: dialect for dialect in plugins.dialects.values() for kind in dialect.services
        }
        self._services = [Informer(api, kind) for kind in sorted(self._dialects)]
        self._runtimes = [
            Informer(api, kind) for kind in sorted({k for d in plugins.dialects.values() for k in d.runtimes})
        ]
        owned = [*_OWNED, *(kind for need, kind in KINDS.items() if need in capabilities)]
        self._owned = [Informer(api, kind) for kind in owned]
        self._pods = Informer(api, kinds.POD)
        self._applied: dict[ObjectRef, Manifest] = {}
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
        informers = [*self._services, *self._runtimes, *self._owned, self._pods]
        for informer in self._services:
            informer.subscribe(lambda manifest, informer=informer: self._queue.add(informer.ref(manifest)))  # type: ignore[misc]
        for informer in self._runtimes:
            informer.subscribe(lambda _: self._enqueue_all())
        for informer in (*self._owned, self._pods):
            informer.subscribe(self._enqueue_owner)
        try:
            async with asyncio.TaskGroup() as group:
                for informer in informers:
                    group.create_task(informer.run(), name=f"informer-{informer.kind.plural}")
                for informer in informers:
                    await informer.synced()
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"reconciler-{number}")
        finally:
            self._queue.close()

    def _enqueue_all(self) -> None:
        for informer in self._services:
            for ref, _ in informer.items():  # noqa: PERF102  # not a dict
                self._queue.add(ref)

    def _enqueue_owner(self, manifest: Manifest) -> None:
        # A pod is owned by a ReplicaSet; the labels that a dialect puts on all it owns hold the service's name.
        namespace = Namespace(manifest["metadata"].get("namespace", ""))
        for value in set((manifest["metadata"].get("labels") or {}).values()):
            for informer in self._services:
                ref = ObjectRef(informer.kind, namespace, value)
                if informer.get(ref) is not None:
                    self._queue.add(ref)

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
        """Bring one service where its manifest wants it."""
        manifest = self._manifest(ref)
        if manifest is None or manifest["metadata"].get("deletionTimestamp"):
            # What it owns carries its owner reference: the API server collects it.
            self._forget(ref)
            return
        dialect = self._dialects[ref.kind]
        catalog = self._catalog(await referenced(self._api, dialect.references(manifest)))
        plan = None
        try:
            plan, desired = render.render(manifest, catalog, self._plugins, self._settings)
        except (Invalid, NoPlan) as error:
            status = self._refusal(manifest, error)
        else:
            await self._act(plan, desired)
            status = planning.observe(plan, self._observed(plan, manifest), now=self._now())
        written = dialect.status(status)
        if written != manifest.get("status"):
            await self._api.patch_status(ref, written)
        # The cache may not have the last status yet; what was said of it already is not said again.
        for event in planning.events(ref.name, status, plan, self._reported.get(ref, manifest.get("status") or {})):
            await self._recorder.record(manifest, event)
        self._reported[ref] = written

    def _manifest(self, ref: ObjectRef) -> Manifest | None:
        return next((found for i in self._services if i.kind == ref.kind and (found := i.get(ref))), None)

    def _catalog(self, objects: Mapping[ObjectRef, Manifest]) -> Catalog:
        runtimes = [manifest for informer in self._runtimes for _, manifest in informer.items()]
        return replace(render.catalog_from(runtimes, self._plugins, self._capabilities), objects=objects)

    def _observed(self, plan: DeploymentPlan, manifest: Manifest) -> Observed:
        owned = {
            ref: found
            for informer in self._owned
            for ref, found in informer.items()
            if ref.namespace == plan.ref.namespace and has_labels(found, plan.owned_labels)
        }
        pods = tuple(
            found
            for ref, found in self._pods.items()
            if ref.namespace == plan.ref.namespace and has_labels(found, plan.owned_labels)
        )
        return Observed(objects=owned, pods=pods, previous=manifest.get("status") or {})

    async def _act(self, plan: DeploymentPlan, desired: tuple[Manifest, ...]) -> None:
        by_kind = {(i.kind.api_version, i.kind.kind): i for i in self._owned}
        for wanted in desired:
            informer = by_kind[wanted["apiVersion"], wanted["kind"]]
            ref = informer.ref(wanted)
            # Applied before and still as applied: a steady state makes no writes.
            if self._applied.get(ref) != wanted or informer.get(ref) is None:
                await self._api.apply(wanted, informer.kind)
                self._applied[ref] = wanted
        for ref in planning.prune(desired, self._observed(plan, {}), owner_uid=plan.owner["uid"]):
            logger.info("prune", extra={"object": str(ref)})
            await self._api.delete(ref)
            self._applied.pop(ref, None)

    def _forget(self, ref: ObjectRef) -> None:
        owned = [
            applied
            for applied, wanted in self._applied.items()
            if applied.namespace == ref.namespace
            and any(owner.get("name") == ref.name for owner in wanted["metadata"]["ownerReferences"])
        ]
        for applied in owned:
            del self._applied[applied]
        self._reported.pop(ref, None)

    def _refusal(self, manifest: Manifest, error: Invalid | NoPlan) -> ServiceStatus:
        return planning.refused(
            error.reason if isinstance(error, NoPlan) else "InvalidSpec",
            str(error),
            generation=manifest["metadata"].get("generation", 0),
            previous=manifest.get("status") or {},
            now=self._now(),
            transition=TransitionStatus.INVALID_SPEC,
        )
