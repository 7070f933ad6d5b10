"""gRPC services of a runtime's own: beside the protocol's, or behind a port of theirs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from grpc_reflection.v1alpha import reflection
from servery_sdk.errors import ServeryError
from servery_sdk.protos.pool import POOL
from servery_sdk.routes import Call, Listener, RpcService

from servery_predictor.errors import GRPC
from servery_predictor.grpc_messages import Readable
from servery_predictor.runtime_routes import local_host

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcDoor:
    """A port of the runtime's own, and all services that are answered there."""

    host: str
    port: int
    services: tuple[RpcService, ...]


def rpc_doors(
    listeners: Sequence[Listener], *, host: str, grpc_port: int | None, taken: Iterable[int]
) -> tuple[tuple[RpcService, ...], tuple[RpcDoor, ...]]:
    """Return the services of the predictor's own gRPC port, and the doors beside it.

    Args:
        host: Where the predictor listens.
        grpc_port: The predictor's own; None where it speaks no gRPC, and then nobody is answered there.
        taken: Ports that something else of the predictor's has; services of theirs are answered at its own, but for
            those that only this machine may ask: rather nowhere.
    """
    own: dict[str, RpcService] = {}
    beside: dict[int, list[Listener]] = {}
    for listener in listeners:
        if listener.port is None or listener.port == grpc_port or (listener.port in taken and not listener.is_local):
            own.update({service.name: service for service in listener.services})
        elif listener.services and listener.port in taken:
            logger.warning("services are not answered: their port is taken", extra={"port": listener.port})
        elif listener.services:
            beside.setdefault(listener.port, []).append(listener)
    doors = tuple(
        RpcDoor(
            host=local_host(host) if all(each.is_local for each in here) else host,
            port=port,
            services=tuple({service.name: service for each in here for service in each.services}.values()),
        )
        for port, here in beside.items()
    )
    return tuple(own.values()), doors


def add_services(server: grpc.aio.Server, services: Iterable[RpcService]) -> None:
    """Let ``server`` answer them."""
    for service in services:
        methods = {call.name: _handler(call) for call in service.calls}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, methods),))


def _handler(call: Call) -> Any:
    kinds = {
        (False, False): (grpc.unary_unary_rpc_method_handler, _once),
        (False, True): (grpc.unary_stream_rpc_method_handler, _streamed),
        (True, False): (grpc.stream_unary_rpc_method_handler, _once),
        (True, True): (grpc.stream_stream_rpc_method_handler, _streamed),
    }
    make, answering = kinds[call.takes_stream, call.gives_stream]
    return make(answering(call.handle), call.request.FromString, _serialized)


def _serialized(message: Any) -> bytes:
    written: bytes = message.SerializeToString()
    return written


def _once(handle: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    async def answer(asked: Any, context: Any) -> Any:
        try:
            return await handle(asked)
        except ServeryError as failure:
            await _abort(context, failure)

    return answer


def _streamed(handle: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    async def answers(asked: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async with aclosing(handle(asked)) as made:
                async for message in made:
                    yield message
        except ServeryError as failure:
            await _abort(context, failure)

    return answers


async def _abort(context: Any, failure: ServeryError) -> NoReturn:
    await context.abort(GRPC[failure.code], str(failure))
    raise AssertionError("abort raises")


class RpcDoorServer:
    """Answers at a door; its port is bound once it is made.

    Args:
        is_shared: Whether other processes serve the same port.

    Raises:
        OSError: Somebody else has the port.
    """

    def __init__(self, door: RpcDoor, *, max_message_bytes: int, is_shared: bool) -> None:
        self._server = grpc.aio.server(
            interceptors=(Readable(),),
            options=[
                ("grpc.max_send_message_length", max_message_bytes),
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.so_reuseport", int(is_shared)),
            ],
        )
        add_services(self._server, door.services)
        names = (*(service.name for service in door.services), reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server, POOL)
        try:
            self.port: int = self._server.add_insecure_port(f"{door.host}:{door.port}")
        except RuntimeError as error:
            raise OSError(f"{door.host}:{door.port}: {error}") from error

    async def start(self) -> None:
        """Accept calls."""
        await self._server.start()

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more and finish what is in flight."""
        await self._server.stop(drain_seconds)
