"""Gathers what is assigned, stored and served; has it decided; does it. One task looks, one for each model acts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from servery_sdk.errors import ServeryError

from servery_agent.puller.assignments import Assigned, Assignment
from servery_agent.puller.decider import Action, Bounds, Decision, Served, Setback, Snapshot, Told, Verb, decide
from servery_agent.puller.ports import ModelServer, ModelStorage, Unreachable

logger = logging.getLogger(__name__)

_FIRST_SECONDS, _MOST_SECONDS = 0.5, 120.0
_HEAR_SECONDS = 5.0
_AGAIN_SECONDS = 0.1
"""Before somebody who is beside us and did not answer is asked again."""


def backoff_seconds(attempts: int) -> float:
    """Return how long to wait after so many failures in a row."""
    return float(min(_MOST_SECONDS, _FIRST_SECONDS * 2 ** min(attempts - 1, 20)))


class Puller:
    """Keeps the models of one server to what is assigned.

    Args:
        on_told: Called with the states of all assigned models whenever one has changed.
    """

    def __init__(
        self,
        storage: ModelStorage,
        server: ModelServer,
        *,
        bounds: Bounds = Bounds(),  # noqa: B008  # frozen
        on_told: Callable[[tuple[Told, ...]], None] = lambda told: None,
    ) -> None:
        self._storage, self._server, self._bounds = storage, server, bounds
        self._listeners = [on_told]
        self.assigned = Assigned()
        self._stored: dict[str, str] | None = None
        self._served: Mapping[str, Served] | None = None
        self._doing: dict[str, Action] = {}
        self._setbacks: dict[str, Setback] = {}
        self._memory: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._told_served = asyncio.Condition()
        self.told: tuple[Told, ...] | None = None

    def tell_also(self, listener: Callable[[tuple[Told, ...]], None]) -> None:
        """Call ``listener`` as well, now and whenever a state has changed."""
        self._listeners.append(listener)
        if self.told is not None:
            listener(self.told)

    def look(self) -> None:
        """Have what is assigned now compared with what is there."""
        self._changed.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_storage(), name="models-stored")
            group.create_task(self._watch_server(), name="models-served")
            while True:
                self._changed.clear()
                decision = decide(self._snapshot())
                for action in decision.actions:
                    self._begin(group, action)
                if self.assigned.models is not None and decision.told != self.told:
                    self.told = decision.told
                    for listener in self._listeners:
                        listener(decision.told)
                await self._wait(decision)

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            assigned=self.assigned.models,
            stored=self._stored,
            served=self._served,
            doing=self._doing,
            setbacks=self._setbacks,
            memory=self._memory,
            bounds=self._bounds,
            now=asyncio.get_running_loop().time(),
        )

    async def _wait(self, decision: Decision) -> None:
        try:
            async with asyncio.timeout_at(decision.look_at):
                await self._changed.wait()
        except TimeoutError:
            # Somebody may be tried again.
            return

    async def _ask_storage(self) -> None:
        while True:
            try:
                self._stored = dict(await self._storage.stored())
            except Unreachable as error:
                logger.info("storage asked again", extra={"reason": str(error)})
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return self._changed.set()

    async def _watch_server(self) -> None:
        while True:
            try:
                async for served in self._server.watch():
                    await self._hear(served)
            except Unreachable as error:
                logger.info("model server asked again", extra={"reason": str(error)})
            await self._hear(None)
            await asyncio.sleep(_AGAIN_SECONDS)

    def _begin(self, group: asyncio.TaskGroup, action: Action) -> None:
        self._doing[action.name] = action
        group.create_task(self._do(action), name=f"{action.verb}-{action.name}")

    async def _do(self, action: Action) -> None:
        tag = action.assignment.tag if action.assignment is not None else ""
        began = asyncio.get_running_loop().time()
        try:
            await self._act(action)
        except ServeryError as error:
            before = self._setbacks.get(action.name)
            attempts = before.attempts + 1 if before is not None and before.tag == tag else 1
            seconds = backoff_seconds(attempts)
            logger.warning(
                "model action failed",
                extra={"verb": action.verb, "model": action.name, "reason": str(error), "again_seconds": seconds},
            )
            retry_at = asyncio.get_running_loop().time() + seconds
            self._setbacks[action.name] = Setback(tag=tag, reason=str(error), attempts=attempts, retry_at=retry_at)
        else:
            seconds = asyncio.get_running_loop().time() - began
            logger.info("model action done", extra={"verb": action.verb, "model": action.name, "seconds": seconds})
        finally:
            del self._doing[action.name]
            self._changed.set()

    async def _act(self, action: Action) -> None:
        name, assignment = action.name, action.assignment
        if assignment is None:
            await (self._unload if action.verb is Verb.UNLOAD else self._release)(name)
        else:
            await (self._fetch if action.verb is Verb.FETCH else self._load)(assignment)

    async def _fetch(self, assignment: Assignment) -> None:
        # Half of it may be the new one from now on.
        self._known().pop(assignment.name, None)
        await self._storage.fetch(assignment.name, assignment.uri)
        self._known()[assignment.name] = assignment.uri

    async def _load(self, assignment: Assignment) -> None:
        try:
            await self._server.load(assignment.name, assignment.tag)
        except ServeryError:
            # What lies there now may be mended at its source: the next try begins there.
            self._known().pop(assignment.name, None)
            raise
        self._memory[assignment.name] = assignment.memory_bytes
        self._setbacks.pop(assignment.name, None)
        await self._heard(lambda served: (model := served.get(assignment.name)) and model.tag == assignment.tag)

    async def _unload(self, name: str) -> None:
        await self._server.unload(name)
        self._memory.pop(name, None)
        self._setbacks.pop(name, None)
        await self._heard(lambda served: (model := served.get(name)) is None or not model.takes_memory)

    async def _release(self, name: str) -> None:
        await self._storage.release(name)
        self._known().pop(name, None)
        self._setbacks.pop(name, None)

    async def _heard(self, holds: Callable[[Mapping[str, Served]], object]) -> None:
        """Return when the server's own word says so, has said something else for too long, or there is none.

        The answer to a call and what is told of its outcome come on ways of their own; acting on an old word would do
        everything twice.
        """
        try:
            async with asyncio.timeout(_HEAR_SECONDS), self._told_served:
                await self._told_served.wait_for(lambda: self._served is None or bool(holds(self._served)))
        except TimeoutError:
            logger.warning("model server says otherwise than it answered")

    async def _hear(self, served: Mapping[str, Served] | None) -> None:
        async with self._told_served:
            self._served = served
            self._told_served.notify_all()
        self._changed.set()

    def _known(self) -> dict[str, str]:
        assert self._stored is not None
        return self._stored
