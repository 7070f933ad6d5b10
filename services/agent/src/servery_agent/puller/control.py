"""The controller's word, pushed over ``servery.control.v1``; what became of it goes back on the same call."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from servery_sdk.protos.servery.control.v1 import control_pb2 as pb
from servery_sdk.protos.servery.control.v1 import control_pb2_grpc as stubs

from servery_agent.puller.assignments import Assignment
from servery_agent.puller.channels import channel
from servery_agent.puller.decider import State, Told

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
_STATES = {
    State.PENDING: pb.PENDING,
    State.FETCHING: pb.FETCHING,
    State.LOADING: pb.LOADING,
    State.LOADED: pb.LOADED,
    State.FAILED: pb.FAILED,
    State.UNFIT: pb.UNFIT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """Who asks."""

    namespace: str
    name: str
    service: str


class Control:
    """One agent's call of the controller, made again whenever it breaks.

    Args:
        address: ``host:port``.
        token_file: By which the controller knows the pod; the kubelet renews it, so each call reads it anew.
        on_assigned: Called with every list that the controller pushes.
        on_gone: Called when there is no controller.
    """

    def __init__(
        self,
        address: str,
        pod: Pod,
        *,
        token_file: Path | None = None,
        on_assigned: Callable[[tuple[Assignment, ...]], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._address, self._pod, self._token_file = address, pod, token_file
        self._on_assigned, self._on_gone = on_assigned, on_gone
        self._told: tuple[Told, ...] = ()
        self._changed = asyncio.Event()

    def tell(self, told: tuple[Told, ...]) -> None:
        """Have the controller know how far the models are."""
        self._told = told
        self._changed.set()

    async def run(self) -> None:
        """Listen and tell until cancelled."""
        async with channel(self._address) as connection:
            stub = stubs.AssignmentsStub(connection)  # type: ignore[no-untyped-call]  # generated
            while True:
                try:
                    watching = stub.Watch(self._reports(), metadata=self._metadata(), wait_for_ready=True)
                    async for assigned in watching:
                        self._on_assigned(tuple(map(_assignment, assigned.models)))
                except grpc.aio.AioRpcError as error:
                    logger.info("controller asked again", extra={"reason": error.details()})
                except OSError as error:
                    logger.warning("token for the controller not read", extra={"reason": str(error)})
                self._on_gone()
                await asyncio.sleep(_AGAIN_SECONDS)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self._token_file is None:
            return ()
        return (("authorization", f"Bearer {self._token_file.read_text().strip()}"),)

    async def _reports(self) -> AsyncIterator[pb.PodReport]:
        who = pb.PodReport(namespace=self._pod.namespace, pod=self._pod.name, service=self._pod.service)
        who.models.extend(map(_report, self._told))
        yield who
        told = self._told
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._told != told:
                told = self._told
                yield pb.PodReport(models=map(_report, told))


def _assignment(message: pb.Assignment) -> Assignment:
    return Assignment(
        name=message.name, uri=message.uri, framework=message.framework, memory_bytes=message.memory_bytes
    )


def _report(told: Told) -> pb.ModelReport:
    return pb.ModelReport(name=told.name, state=_STATES[told.state], reason=told.reason, uri=told.uri)
