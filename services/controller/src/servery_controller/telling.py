"""``servery.control.v1``: agents are told at once what their pods should hold, and tell how far that is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
from servery_sdk import quantities
from servery_sdk.manifests import ObjectRef
from servery_sdk.model import HeldModel, HeldReport, ModelState
from servery_sdk.protos.servery.control.v1 import control_pb2 as pb
from servery_sdk.protos.servery.control.v1 import control_pb2_grpc as stubs

from servery_controller.assignments import Assignments

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

    def __init__(self, assignments: Assignments) -> None:
        self._assignments = assignments

    async def Watch(self, reports: AsyncIterator[pb.PodReport], context: Any) -> AsyncIterator[pb.Assigned]:  # noqa: N802  # the proto's name
        """Push what is assigned as long as the agent listens."""
        who = await anext(aiter(reports), None)
        if who is None:
            return
        with self._assignments.watched() as changed:
            listening: asyncio.Task[None] | None = None
            told: tuple[HeldModel, ...] | None = None
            try:
                while True:
                    changed.clear()
                    found = self._assignments.assigned(who.namespace, who.service)
                    if found is not None and listening is None:
                        listening = asyncio.create_task(self._listen(found[0], who, reports), name=f"agent-{who.pod}")
                    if found is not None and found[1] != told:
                        told = found[1]
                        yield pb.Assigned(models=map(_assignment, told))
                    await changed.wait()
            finally:
                if listening is not None:
                    listening.cancel()

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
async def serving(assignments: Assignments, address: str) -> AsyncIterator[int]:
    """Answer agents at ``host:port`` until the end of the block; give the port.

    Raises:
        OSError: Somebody else has the port.
    """
    # Two controllers that share a port by accident would each get half of the agents.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    stubs.add_AssignmentsServicer_to_server(AssignmentsService(assignments), server)  # type: ignore[no-untyped-call]  # generated
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"{address}: {error}") from error
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)
