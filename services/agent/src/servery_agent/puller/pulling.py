"""The puller of one agent, with everything that it talks to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from servery_agent.puller.assignments import Assignment
from servery_agent.puller.control import Control, Pod
from servery_agent.puller.decider import Bounds, State, Told
from servery_agent.puller.mounted import mounted
from servery_agent.puller.puller import Puller
from servery_agent.puller.servers import ModelRepository, V2Repository
from servery_agent.puller.storage import StorageDaemon
from servery_agent.settings import Settings

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
_COMING = frozenset({State.PENDING, State.FETCHING, State.LOADING})


class Pulling:
    """Keeps the models to what is assigned, between ``start`` and ``stop``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._task: asyncio.Task[None] | None = None
        self.told: tuple[Told, ...] = ()
        self.is_settled = False
        """Whether the models that were assigned first are loaded, or cannot be: a new pod is asked only then."""

    def start(self) -> None:
        """Begin; what is not there yet is waited for."""
        self._task = asyncio.create_task(self._run(), name="puller")

    async def stop(self) -> None:
        """End, and leave everything as it is: the next agent goes on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self._once()
            except* Exception:
                # The rim: requests pass by all the same, and what is there is gathered anew.
                logger.exception("puller failed")
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _once(self) -> None:
        settings = self._settings
        bounds = Bounds(
            fetches=settings.pull_fetches, loads=settings.pull_loads, memory_bytes=settings.models_memory_bytes
        )
        async with StorageDaemon(settings.storage_daemon) as storage, _server(settings) as server:
            puller = Puller(storage, server, bounds=bounds, on_told=self._tell)
            async with asyncio.TaskGroup() as group:
                group.create_task(puller.run(), name="puller-loop")
                group.create_task(self._mount(puller), name="assignments-mounted")
                if settings.controller_address:
                    group.create_task(self._control(puller), name="assignments-pushed")

    def _tell(self, told: tuple[Told, ...]) -> None:
        for before, now in zip(_by_name(self.told, told), told, strict=True):
            if before is None or before.state is not now.state:
                logger.info("model state", extra={"model": now.name, "state": now.state, "reason": now.reason})
        self.told = told
        self.is_settled = self.is_settled or not any(one.state in _COMING for one in told)

    async def _mount(self, puller: Puller) -> None:
        async for models in mounted(self._settings.config_dir):
            puller.assigned.mount(models)
            puller.look()

    async def _control(self, puller: Puller) -> None:
        settings = self._settings

        def assigned(models: tuple[Assignment, ...]) -> None:
            puller.assigned.push(models)
            puller.look()

        pod = Pod(namespace=settings.pod_namespace, name=settings.pod_name, service=settings.pod_service)
        control = Control(
            settings.controller_address,
            pod,
            token_file=settings.controller_token_file,
            on_assigned=assigned,
            on_gone=puller.assigned.disconnect,
        )
        puller.tell_also(control.tell)
        await control.run()


def _by_name(before: tuple[Told, ...], now: tuple[Told, ...]) -> list[Told | None]:
    known = {told.name: told for told in before}
    return [known.get(told.name) for told in now]


@contextlib.asynccontextmanager
async def _server(settings: Settings) -> AsyncIterator[ModelRepository | V2Repository]:
    host = settings.component_host
    if settings.component_models == "v2":
        async with V2Repository(host, settings.component_port) as other:
            yield other
    else:
        async with ModelRepository(host, settings.component_grpc_port or settings.component_port) as ours:
            yield ours
