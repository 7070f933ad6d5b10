"""``servery.control.v1``: agents are told at once what their pods should hold, and tell how far that is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from servery_sdk import quantities
from servery_sdk.errors import ServeryError
from servery_sdk.manifests import ObjectRef
from servery_sdk.model import HeldModel, HeldReport, ModelState
from servery_sdk.protos.servery.control.v1 import control_pb2 as pb
from servery_sdk.protos.servery.control.v1 import control_pb2_grpc as stubs

from servery_controller.assignments import Assignments
from servery_controller.callers import Caller, Callers, Stranger

logger = logging.getLogger(__name__)

_STATES: Mapping[int, ModelState] = {
    pb.PENDING: ModelState.PENDING,
    pb.FETCHING: ModelState.LOADING,
    pb.LOADING: ModelState.LOADING,
    pb.LOADED: ModelState.LOADED,
    pb.FAILED: ModelState.FAILED_TO_LOAD,
    pb.UNFIT: ModelState.FAILED_TO_LOAD,
}


class AssignmentsService(stubs.AssignmentsServicer):
    """Answers agents."""

    def __init__(self, assignments: Assignments, callers: Callers) -> None:
        self._assignments, self._callers = assignments, callers

    async def Watch(self, reports: AsyncIterator[pb.PodReport], context: Any) -> AsyncIterator[pb.Assigned]:  # noqa: N802  # the proto's name
        """Push what is assigned as long as the agent listens."""
        who = await anext(aiter(reports), None)
        if who is None:
            return
        await self._admit(who, context)
        looks = self._assignments.watchers.follow(lambda: self._assignments.assigned(who.namespace, who.service))
        listening: asyncio.Task[None] | None = None
        try:
            async with contextlib.aclosing(looks):
                async for found in looks:
                    if found is None:
                        continue
                    service, models = found
                    if listening is None:
                        listening = asyncio.create_task(self._listen(service, who, reports), name=f"agent-{who.pod}")
                    yield pb.Assigned(models=map(_assignment, models))
        finally:
            if listening is not None:
                listening.cancel()

    async def _admit(self, who: pb.PodReport, context: Any) -> None:
        sent = dict(context.invocation_metadata()).get("authorization", "")
        token = sent.removeprefix("Bearer ") if isinstance(sent, str) else ""
        try:
            await self._callers.check(token, Caller(namespace=who.namespace, pod=who.pod))
        except Stranger as error:
            logger.warning("agent refused", extra={"namespace": who.namespace, "pod": who.pod, "reason": str(error)})
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except ServeryError as error:
            # It asks again, and by then the API server may answer.
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the token cannot be looked at: {error}")

    async def _listen(self, service: ObjectRef, who: pb.PodReport, reports: AsyncIterator[pb.PodReport]) -> None:
        try:
            self._assignments.report(service, who.pod, _reports(who.pod, who))
            async for told in reports:
                self._assignments.report(service, who.pod, _reports(who.pod, told))
        finally:
            self._assignments.leave(service, who.pod)


def _assignment(model: HeldModel) -> pb.Assignment:
    return pb.Assignment(
        name=model.ref.name,
        uri=model.uri,
        framework=model.framework,
        memory_bytes=int(quantities.parse(model.memory)),
    )


def _reports(pod: str, told: pb.PodReport) -> Mapping[str, HeldReport]:
    return {
        model.name: HeldReport(
            pod=pod, state=_STATES.get(model.state, ModelState.PENDING), reason=model.reason, uri=model.uri
        )
        for model in told.models
    }


@contextlib.asynccontextmanager
async def serving(assignments: Assignments, address: str, callers: Callers) -> AsyncIterator[int]:
    """Answer agents that ``callers`` knows at ``host:port`` until the end of the block; give the port.

    Raises:
        OSError: Somebody else has the port.
    """
    # Two controllers that share a port by accident would each get half of the agents.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    stubs.add_AssignmentsServicer_to_server(AssignmentsService(assignments, callers), server)  # type: ignore[no-untyped-call]  # generated
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"{address}: {error}") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)
