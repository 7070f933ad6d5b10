"""``servery.model.v1``: loads and unloads for the agent beside, and tells it the models' states as they change."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
from servery_sdk.errors import ServeryError
from servery_sdk.model import ModelState
from servery_sdk.protos.servery.model.v1 import model_pb2 as pb
from servery_sdk.protos.servery.model.v1 import model_pb2_grpc as stubs
from servery_sdk.serving import LoadError

from servery_predictor.dataplane import DataPlane
from servery_predictor.errors import GRPC

SERVICE = "servery.model.v1.ModelRepository"

_STATES = {
    ModelState.PENDING: pb.PENDING,
    ModelState.STANDBY: pb.PENDING,
    ModelState.LOADING: pb.LOADING,
    ModelState.LOADED: pb.LOADED,
    ModelState.FAILED_TO_LOAD: pb.FAILED,
}


class ModelRepositoryService(stubs.ModelRepositoryServicer):
    """Answers the calls from one data plane."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane
        self._tags: dict[str, str] = {}

    async def Load(self, request: pb.LoadRequest, context: Any) -> pb.LoadResponse:  # noqa: N802  # the proto's name
        """Load a model, or load it again."""
        try:
            await self._plane.changes.load(request.name)
        except ServeryError as failure:
            await _abort(context, failure)
        self._tags[request.name] = request.tag
        self._plane.repository.watchers.tell()
        return pb.LoadResponse()

    async def Unload(self, request: pb.UnloadRequest, context: Any) -> pb.UnloadResponse:  # noqa: N802
        """Give a model back."""
        try:
            await self._plane.changes.unload(request.name)
        except ServeryError as failure:
            await _abort(context, failure)
        self._tags.pop(request.name, None)
        return pb.UnloadResponse()

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.Models]:  # noqa: N802
        """Tell the states, until the server drains."""
        looks = self._plane.repository.watchers.follow(lambda: (self._plane.draining, self._models()))
        async with contextlib.aclosing(looks):
            async for draining, models in looks:
                if draining:
                    return
                yield models

    def _models(self) -> pb.Models:
        return pb.Models(
            models=[
                pb.Model(
                    name=entry.name,
                    state=_STATES[entry.state],
                    reason=entry.reason,
                    tag=self._tags.get(entry.name, "") if entry.model is not None else "",
                )
                for entry in self._plane.repository.entries()
            ]
        )


def add_service(server: grpc.aio.Server, plane: DataPlane) -> None:
    """Let ``server`` answer."""
    stubs.add_ModelRepositoryServicer_to_server(ModelRepositoryService(plane), server)  # type: ignore[no-untyped-call]  # generated


async def _abort(context: Any, failure: ServeryError) -> NoReturn:
    # An unavailable server is one to be asked again; a model that cannot be served is none.
    is_models = isinstance(failure, LoadError)
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION if is_models else GRPC[failure.code], str(failure))
    raise AssertionError("abort raises")
