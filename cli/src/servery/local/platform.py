"""The local platform put together: API server in memory, controller, Deployments, kubelet, way in."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path

from servery_controller.assignments import Assignments
from servery_controller.callers import Anybody
from servery_controller.controller import Controller
from servery_controller.planning import PlanningSettings
from servery_http.client import Client
from servery_http.server import Server
from servery_kube.informer import Informer
from servery_kube.memory import MemoryApi
from servery_kube.port import KubeApi
from servery_sdk import kinds
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import Kind, Manifest, ObjectRef
from servery_sdk.plugins import Plugins

from servery.local.configuration import as_stored
from servery.local.configured import Configurations
from servery.local.containers import Backoff
from servery.local.deployments import Deployments
from servery.local.doors import Doorway
from servery.local.ingress import Ingress
from servery.local.kubelet import Kubelet
from servery.local.ray_services import RayServices
from servery.sources import NAMED, reference


class NotReady(ServeryError):
    """A service did not become ready; says why, in its status's own words."""


class Platform:
    """Runs services on this machine. Use ``running``.

    Args:
        directory: Of logs, model files and claims.
        mode: Of services that ask for none.
        port: Of the way in; 0 takes a free one.
    """

    def __init__(
        self,
        plugins: Plugins,
        directory: Path,
        *,
        port: int = 0,
        mode: str | None = None,
        backoff: Backoff | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.plugins = plugins
        crds = [crd for dialect in plugins.dialects.values() for crd in dialect.crds()]
        self.api: KubeApi = MemoryApi(crds, served=[kinds.HTTP_ROUTE, kinds.RAY_SERVICE])
        self._kinds = _kinds(plugins)
        self._pods = Informer(self.api, kinds.POD)
        self._deployments = Informer(self.api, kinds.DEPLOYMENT)
        self._autoscalers = Informer(self.api, kinds.HORIZONTAL_POD_AUTOSCALER)
        self._routes = Informer(self.api, kinds.HTTP_ROUTE)
        self._endpoints = Informer(self.api, kinds.SERVICE)
        self._secrets = Informer(self.api, kinds.SECRET)
        self._config_maps = Informer(self.api, kinds.CONFIG_MAP)
        self._ray_services = Informer(self.api, kinds.RAY_SERVICE)
        self._services = [Informer(self.api, kind) for d in plugins.dialects.values() for kind in sorted(d.services)]
        self._directory = directory
        self._mode = mode or PlanningSettings().default_mode
        self._backoff = backoff or Backoff()
        self._client = Client()
        self._ingress = Ingress(self.api, self._routes, self._endpoints, self._pods, self._client)
        self._server = Server(self._ingress.route, host=host, port=port)
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        """Of the way in; the Host header says which service."""
        return self._server.url

    @property
    def port(self) -> int:
        """Of the way in."""
        return self._server.port

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Platform]:
        """Run until the end of the block; no process is left then."""
        task = asyncio.create_task(self._run(), name="platform")
        body = asyncio.current_task()
        assert body is not None
        # A platform that breaks takes its user along: nobody waits for a service that will never be.
        task.add_done_callback(lambda ended: None if ended.cancelled() else body.cancel())
        try:
            for informer in self._informers():
                await informer.synced()
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _informers(self) -> list[Informer]:
        workloads = [self._pods, self._deployments, self._autoscalers, self._routes, self._endpoints]
        return [*workloads, self._ray_services, self._secrets, self._config_maps, *self._services]

    async def _run(self) -> None:
        assignments = Assignments()
        async with contextlib.AsyncExitStack() as stack:
            with _forking_quietly():
                # It reads its variables when it is imported.
                from servery_controller.telling import serving

                port = await stack.enter_async_context(serving(assignments, "127.0.0.1:0", Anybody()))
            await self._run_with(assignments, port)

    async def _run_with(self, assignments: Assignments, assignments_port: int) -> None:
        schemes = {s for provider in self.plugins.storage_providers.values() for s in provider.schemes}
        settings = PlanningSettings(
            storage_schemes=PlanningSettings().storage_schemes | schemes,
            default_mode=self._mode,
            # A manifest that is meant for an engine serves its model here too.
            fallback_mode=PlanningSettings().default_mode,
            assignments_address=f"127.0.0.1:{assignments_port}",
        )
        configurations = Configurations(self._secrets, self._config_maps)
        doorway = Doorway(self.api, self._ingress.endpoints)
        runtimes, directory = self.plugins.runtimes, self._directory
        kubelet = Kubelet(self.api, self._pods, configurations, doorway, runtimes, directory, backoff=self._backoff)
        deployments = Deployments(self.api, self._deployments, self._pods, self._autoscalers)
        ray_services = RayServices(self.api, self._ray_services, self._deployments)
        async with self._client, self._server.running(), asyncio.TaskGroup() as group:
            for informer in self._informers():
                group.create_task(informer.run(), name=f"informer-{informer.kind.plural}")
            group.create_task(doorway.run(), name="doorway")
            group.create_task(kubelet.run(), name="kubelet")
            group.create_task(self._ingress.run(), name="ingress")
            group.create_task(deployments.run(), name="deployments")
            group.create_task(ray_services.run(), name="ray-services")
            controller = Controller(self.api, self.plugins, settings, assignments=assignments)
            group.create_task(controller.run(), name="controller")

    async def apply(self, manifests: Iterable[Manifest]) -> tuple[ObjectRef, ...]:
        """Apply every manifest, services after what they may name; return the references of the services.

        Raises:
            ServeryError: A kind that nobody here understands, or an object that is refused.
        """
        # All are looked at before the first is applied: a broken file should change nothing.
        wanted = [(self._kind(manifest), as_stored(manifest)) for manifest in manifests]
        is_service = {informer.kind for informer in self._services}
        for kind, manifest in sorted(wanted, key=lambda pair: pair[0] in is_service):
            await self.api.apply(manifest, kind, field_manager="servery-cli")
        return tuple(reference(kind, manifest) for kind, manifest in wanted if kind in is_service)

    def references(self, manifests: Iterable[Manifest]) -> tuple[ObjectRef, ...]:
        """Return the reference of every manifest.

        Raises:
            ServeryError: A kind that nobody here understands.
        """
        return tuple(reference(self._kind(manifest), manifest) for manifest in manifests)

    def _kind(self, manifest: Manifest) -> Kind:
        kind = self._kinds.get((str(manifest.get("apiVersion")), str(manifest.get("kind"))))
        if kind is None:
            found = f"{manifest.get('kind')}.{manifest.get('apiVersion')}"
            known = ", ".join(sorted(str(kind) for kind in self._kinds.values()))
            raise ServeryError(f"kind {found} does not run on the local platform; known: {known}")
        return kind

    async def delete(self, ref: ObjectRef) -> None:
        """Delete an object and what it owns."""
        await self.api.delete(ref)

    def services(self) -> list[Manifest]:
        """Return every service with its status."""
        return [manifest for informer in self._services for _, manifest in informer.items()]

    def subscribe(self, callback: Callable[[Manifest], None]) -> None:
        """Call ``callback`` with every service that changes."""
        for informer in self._services:
            informer.subscribe(callback)

    async def ready(self, ref: ObjectRef, *, give_up: bool = False) -> Manifest:
        """Return the service once it is ready for its present generation.

        Raises:
            NotReady: It says that it failed, and ``give_up`` is set.
        """
        changed = asyncio.Event()
        informer = self._informer(ref.kind)
        informer.subscribe(lambda _: changed.set())
        while True:
            changed.clear()
            found = informer.get(ref)
            if found is not None and is_ready(found):
                return found
            if found is not None and give_up and (words := failure(found)):
                raise NotReady(f"{ref}: {words}")
            await changed.wait()

    def _informer(self, kind: Kind) -> Informer:
        return next(informer for informer in self._services if informer.kind == kind)


@contextlib.contextmanager
def _forking_quietly() -> Iterator[None]:
    """Have gRPC, which begins meanwhile, not mind that processes are started: none of them goes on with ours."""
    name = "GRPC_ENABLE_FORK_SUPPORT"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def is_ready(service: Manifest) -> bool:
    """Return whether the status says Ready of the present generation."""
    status = service.get("status") or {}
    current = status.get("observedGeneration", 0) >= service["metadata"].get("generation", 0)
    return current and any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", ()))


def failure(service: Manifest) -> str | None:
    """Return why the service will not become ready by itself, or None."""
    status = service.get("status") or {}
    if status.get("observedGeneration", 0) < service["metadata"].get("generation", 0):
        return None
    for condition in status.get("conditions", ()):
        reason = str(condition.get("reason", ""))
        # A component that waits for its pods, and a route that waits for its component, have not failed.
        passing = reason == "MinimumReplicasUnavailable" or reason.endswith("NotReady")
        is_component = condition["type"] not in {"Ready", "IngressReady", "Stopped"}
        if is_component and condition["status"] == "False" and not passing:
            return f"{reason}: {condition.get('message', '')}"
    return None


def _kinds(plugins: Plugins) -> dict[tuple[str, str], Kind]:
    known = {kind for d in plugins.dialects.values() for kind in (*d.services, *d.runtimes, *d.models)}
    return {**NAMED, **{(kind.api_version, kind.kind): kind for kind in known}}
