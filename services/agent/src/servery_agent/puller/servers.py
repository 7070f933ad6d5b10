"""The server beside: ours over ``servery.model.v1``, others over the v2 repository API."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Self

import grpc
from servery_http.client import Client
from servery_sdk.errors import Transient
from servery_sdk.protos.servery.model.v1 import model_pb2 as pb
from servery_sdk.protos.servery.model.v1 import model_pb2_grpc as stubs

from servery_agent.puller.channels import channel
from servery_agent.puller.decider import Served, ServedState
from servery_agent.puller.ports import Refused, Unreachable

logger = logging.getLogger(__name__)

LOAD_SECONDS = 600.0
_LOOK_SECONDS = 2.0
"""Between two looks at a server that does not tell."""

_STATES = {
    pb.PENDING: ServedState.PENDING,
    pb.LOADING: ServedState.LOADING,
    pb.LOADED: ServedState.LOADED,
    pb.FAILED: ServedState.FAILED,
}


class ModelRepository:
    """A ``ModelServer`` that speaks ``servery.model.v1``. Use as a context."""

    def __init__(self, host: str, port: int) -> None:
        self._channel = channel(f"{host}:{port}")
        self._stub = stubs.ModelRepositoryStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def watch(self) -> AsyncIterator[Mapping[str, Served]]:
        """Yield the states until the server goes away.

        Raises:
            Unreachable: It has gone.
        """
        try:
            async for told in self._stub.Watch(pb.WatchRequest(), wait_for_ready=True):
                yield {
                    model.name: Served(
                        state=_STATES.get(model.state, ServedState.PENDING), tag=model.tag, reason=model.reason
                    )
                    for model in told.models
                }
        except grpc.aio.AioRpcError as error:
            raise Unreachable(f"model server: {error.details()}") from error
        raise Unreachable("model server: it is ending")

    async def load(self, name: str, tag: str) -> None:
        """Load a model.

        Raises:
            Refused: In the server's own words.
        """
        try:
            await self._stub.Load(pb.LoadRequest(name=name, tag=tag), timeout=LOAD_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise Refused(error.details() or str(error.code())) from error

    async def unload(self, name: str) -> None:
        """Unload a model.

        Raises:
            Refused: In the server's own words.
        """
        try:
            await self._stub.Unload(pb.UnloadRequest(name=name), timeout=LOAD_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise Refused(error.details() or str(error.code())) from error


class V2Repository:
    """A ``ModelServer`` of somebody else's: Triton's index where there is one, else a look at each model. Use as a context.

    Source: Open Inference Protocol, model repository extension; KServe's servers have no index.
    """

    def __init__(self, host: str, port: int) -> None:
        self._url = f"http://{host}:{port}"
        self._client = Client()
        self._tags: dict[str, str] = {}
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__(*error)

    async def watch(self) -> AsyncIterator[Mapping[str, Served]]:
        """Yield the states, looked at again and again.

        Raises:
            Unreachable: It does not answer.
        """
        while True:
            self._changed.clear()
            yield await self._states()
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _states(self) -> Mapping[str, Served]:
        # Others load and unload while we ask: what they do is no part of the answer.
        loaded = dict(self._tags)
        status, body = await self._ask("POST", "/v2/repository/index", b"{}")
        if status != 200:
            found = {}
            for name in loaded:
                # Without an index nobody can tell more than what we have loaded ourselves.
                ready, _ = await self._ask("GET", f"/v2/models/{name}/ready")
                found[name] = ready == 200
        else:
            found = {str(model["name"]): model.get("state") == "READY" for model in json.loads(body)}
        # A server that came up anew has what it has, but nothing that we loaded before.
        for name, tag in loaded.items():
            if not found.get(name) and self._tags.get(name) == tag:
                del self._tags[name]
        return {
            name: Served(state=ServedState.LOADED, tag=self._tags.get(name, ""))
            for name, is_ready in found.items()
            if is_ready
        }

    async def load(self, name: str, tag: str) -> None:
        """Load a model.

        Raises:
            Refused: In the server's own words.
        """
        status, body = await self._ask("POST", f"/v2/repository/models/{name}/load", b"{}")
        if status != 200:
            raise Refused(f"loading answered {status}: {_words(body)}")
        self._tags[name] = tag
        self._changed.set()

    async def unload(self, name: str) -> None:
        """Unload a model.

        Raises:
            Refused: In the server's own words.
        """
        status, body = await self._ask("POST", f"/v2/repository/models/{name}/unload", b"{}")
        if status not in {200, 404}:
            raise Refused(f"unloading answered {status}: {_words(body)}")
        self._tags.pop(name, None)
        self._changed.set()

    async def _ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        json_type = ((b"content-type", b"application/json"),) if body else ()
        try:
            answer = await self._client.request(
                method, self._url + path, headers=json_type, body=body, timeout_seconds=LOAD_SECONDS
            )
        except Transient as error:
            raise Unreachable(f"model server: {error}") from error
        return answer.status, answer.body


def _words(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:500]
