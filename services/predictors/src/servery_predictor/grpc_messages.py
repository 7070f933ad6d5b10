"""Bytes that are no message, in ``grpcio``'s asyncio server: it takes them for a bug of its own and says UNKNOWN.

Every other server of gRPC, ``grpcio``'s with threads among them, says INTERNAL.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError


@dataclass(frozen=True, slots=True)
class _Unreadable:
    error: DecodeError


class Readable(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Ends calls whose request cannot be read with INTERNAL."""

    def __init__(self) -> None:
        # A handler is one object for the life of its server, and paths that have none are not kept.
        self._known: dict[str, Any] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the call's handler, which is given readable requests only."""
        path = handler_call_details.method
        if path not in self._known:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            self._known[path] = _readable(handler)
        return self._known[path]


def _readable(handler: Any) -> Any:
    name, make = _KINDS[handler.request_streaming, handler.response_streaming]
    check = _stream if handler.request_streaming else _one
    return make(
        _checked(getattr(handler, name), check),
        partial(_read, handler.request_deserializer),
        handler.response_serializer,
    )


_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def _read(deserialize: Callable[[bytes], Any], message: bytes) -> Any:
    try:
        return deserialize(message)
    except DecodeError as error:
        return _Unreadable(error)


def _checked(
    answer: Callable[[Any, Any], Any], check: Callable[[Any, Any], Awaitable[Any]]
) -> Callable[[Any, Any], Any]:
    # grpcio looks at what kind of function a handler is.
    if inspect.isasyncgenfunction(answer):

        async def responses(asked: Any, context: Any) -> AsyncIterator[Any]:
            async with aclosing(answer(await check(asked, context), context)) as made:
                async for response in made:
                    yield response

        return responses

    async def response(asked: Any, context: Any) -> Any:
        return await answer(await check(asked, context), context)

    return response


async def _one(request: Any, context: Any) -> Any:
    """Return ``request``, or end the call."""
    if isinstance(request, _Unreadable):
        await context.abort(grpc.StatusCode.INTERNAL, f"the request cannot be read: {request.error}")
    return request


async def _stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
    """Return ``requests``, whose first unreadable one ends the call."""

    async def readable() -> AsyncIterator[Any]:
        async for request in requests:
            yield await _one(request, context)

    return readable()
