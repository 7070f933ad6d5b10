"""The storage daemon beside, over its Unix socket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import grpc
from servery_sdk.protos.servery.storage.v1 import storage_pb2 as pb
from servery_sdk.protos.servery.storage.v1 import storage_pb2_grpc as stubs
from servery_sdk.unix_sockets import grpc_target

from servery_agent.puller.channels import channel
from servery_agent.puller.ports import Refused, Unreachable


class StorageDaemon:
    """A ``ModelStorage``. Use as a context."""

    def __init__(self, socket: Path) -> None:
        self._channel = channel(grpc_target(socket))
        self._stub = stubs.StorageStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def stored(self) -> Mapping[str, str]:
        """Return the URIs of what is there whole, by name.

        Raises:
            Unreachable: It went away while it was asked.
        """
        try:
            answer = await self._stub.List(pb.ListRequest(), wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise Unreachable(f"storage daemon: {error.details()}") from error
        return {model.name: model.uri for model in answer.models if model.is_held}

    async def fetch(self, name: str, uri: str) -> None:
        """Bring a model.

        Raises:
            Refused: In the daemon's own words.
        """
        try:
            async for _ in self._stub.Fetch(pb.FetchRequest(name=name, uri=uri), wait_for_ready=True):
                # Its progress is in the daemon's own log.
                pass
        except grpc.aio.AioRpcError as error:
            raise Refused(error.details() or str(error.code())) from error

    async def release(self, name: str) -> None:
        """Remove a model.

        Raises:
            Refused: In the daemon's own words.
        """
        try:
            await self._stub.Release(pb.ReleaseRequest(name=name, remove=True), wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise Refused(error.details() or str(error.code())) from error
