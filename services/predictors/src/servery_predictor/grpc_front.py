"""The gRPC port where our own front listens: quick unary calls are answered here, all others by ``grpcio`` behind it."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message
from servery_http.rpc.calls import Done, Failure, Handler, Handlers, Status
from servery_http.rpc.front import CallLimits
from servery_http.rpc.server import RpcServer
from servery_sdk.errors import ServeryError
from servery_sdk.protocol import InferRequest
from servery_sdk.protocol import grpc as codec
from servery_sdk.protocol.messages import Messages, encode_response
from servery_sdk.protocol.shared import SharedRequest
from servery_sdk.protos.open_inference import grpc_predict_v2_pb2 as pb
from servery_sdk.routes import RpcService

from servery_predictor import grpc_server
from servery_predictor.batching.tickets import Outcome
from servery_predictor.dataplane import Call, DataPlane
from servery_predictor.errors import GRPC
from servery_predictor.grpc_server import SERVICE, GrpcServer

logger = logging.getLogger(__name__)

_SOCKET = "grpcio.sock"
_MOST_BYTES = 107
"""Of a Unix socket's path, the slash among them. Source: unix(7), ``sun_path``."""


def handlers(plane: DataPlane) -> Handlers:
    """Return the calls that need neither a task nor a context, by path."""
    unary: dict[str, tuple[type[Message], Callable[[Any, DataPlane], Message]]] = {
        "ServerLive": (pb.ServerLiveRequest, grpc_server.server_live),
        "ServerReady": (pb.ServerReadyRequest, grpc_server.server_ready),
        "ServerMetadata": (pb.ServerMetadataRequest, grpc_server.server_metadata),
        "ModelMetadata": (pb.ModelMetadataRequest, grpc_server.model_metadata),
    }
    quick = {_path(name): _quick(kind, answer, plane) for name, (kind, answer) in unary.items()}
    return _Answered(quick, _infer(plane), plane)


class _Answered(Mapping[bytes, Handler]):
    """``quick`` and ``infer``, but that one only while no model takes documents: those need a task and the metadata."""

    def __init__(self, quick: Mapping[bytes, Handler], infer: Handler, plane: DataPlane) -> None:
        self._quick = {**quick, _INFER: infer}
        self._plane = plane

    def __getitem__(self, path: bytes) -> Handler:
        if path == _INFER and self._plane.repository.holds_documents:
            raise KeyError(path)
        return self._quick[path]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._quick)

    def __len__(self) -> int:
        return len(self._quick)


def _path(method: str) -> bytes:
    return f"/{SERVICE}/{method}".encode()


_INFER = _path("ModelInfer")


def _quick(kind: type[Message], answer: Callable[[Any, DataPlane], Message], plane: DataPlane) -> Handler:
    def quick(message: bytes, done: Done) -> None:
        try:
            request = kind.FromString(message)
        except DecodeError as error:
            raise _unreadable(kind, error) from error
        try:
            done(answer(request, plane).SerializeToString())
        except ServeryError as failure:
            raise _failure(failure) from failure

    return quick


def _infer(plane: DataPlane) -> Handler:
    memory = plane.offered.shared_memory
    messages = Messages(regions=memory)

    def infer(message: bytes, done: Done) -> Callable[[], object]:
        try:
            asked, is_raw = messages.decode(message)
            if type(asked) is SharedRequest:
                memory.check(asked)
        except ServeryError as failure:
            raise _failure(failure) from failure
        except DecodeError as error:
            raise _unreadable(pb.ModelInferRequest, error) from error
        # A client that sends typed contents reads typed contents.
        call = _Asked(plane, asked, done, raw=is_raw)
        plane.submit(call)
        return call.cancel

    return infer


class _Asked(Call):
    """An inference whose answer is a message."""

    __slots__ = ("_done", "_memory", "_raw")

    def __init__(self, plane: DataPlane, asked: InferRequest, done: Done, *, raw: bool) -> None:
        Call.__init__(self, plane, asked, "grpc-v2")
        self._done: Done | None = done
        self._memory = plane.offered.shared_memory
        self._raw = raw

    def tell(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._encoded(outcome))

    def _encoded(self, outcome: Outcome) -> bytes | Failure:
        if isinstance(outcome, ServeryError):
            return _failure(outcome)
        try:
            if isinstance(self.request, SharedRequest):
                placed = self._memory.put(outcome, self.request)
                return codec.encode_response(outcome, raw=self._raw, placed=placed).SerializeToString()
            return encode_response(outcome, raw=self._raw)
        except ServeryError as failure:
            return _failure(failure)
        except Exception:
            # The rim of one request: its batch's other requests are answered after it.
            logger.exception("answer cannot be encoded", extra={"model": outcome.model})
            return Failure(Status.INTERNAL, _BUG)

    def cancel(self, msg: object = None) -> bool:
        # What it knows of the connection knows it, too.
        self._done = None
        return super().cancel(msg)


_BUG = "internal error; the server's log has the traceback"


def _unreadable(kind: type[Message], error: DecodeError) -> Failure:
    return Failure(Status.INTERNAL, f"not a {kind.DESCRIPTOR.full_name}: {error}")


def _failure(failure: ServeryError) -> Failure:
    return Failure(Status(GRPC[failure.code].value[0]), str(failure))


def private_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder of this process for a Unix socket, whose path has at most 107 bytes.

    Raises:
        OSError: There is none.
    """
    refused: OSError | None = None
    # A container whose root is read-only may have no place for files, but has the second one.
    for place in (None, "/dev/shm", "/tmp"):  # noqa: S108  # private in itself
        try:
            folder = tempfile.TemporaryDirectory(prefix="servery-grpc-", dir=place)
        except OSError as error:
            refused = error
            continue
        if len(os.fsencode(folder.name)) + len(_SOCKET) < _MOST_BYTES:
            return folder
        folder.cleanup()
    raise refused or OSError("no folder has a path that is short enough for a Unix socket")


class FastGrpcServer:
    """Our front on the port, ``grpcio`` on a Unix socket behind it; the port is bound once it is made.

    Args:
        is_shared: Whether other processes serve the same port.
        services: The runtime's own.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        host: str,
        port: int,
        max_message_bytes: int,
        is_shared: bool = False,
        services: Sequence[RpcService] = (),
    ) -> None:
        self._folder = private_folder()
        path = Path(self._folder.name) / _SOCKET
        self._behind = GrpcServer(plane, address=f"unix:{path}", max_message_bytes=max_message_bytes, services=services)
        limits = CallLimits(max_message_bytes=max_message_bytes)
        self._front = RpcServer(handlers(plane), path, host=host, port=port, limits=limits, is_shared=is_shared)
        self.port = self._front.port

    async def start(self) -> None:
        """Accept calls."""
        await self._behind.start()
        await self._front.start()

    async def set_ready(self, *, ready: bool) -> None:
        """Tell health checks."""
        await self._behind.set_ready(ready=ready)

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more and finish what is in flight."""
        await self._front.stop(drain_seconds)
        # Whom the front has let go has nothing in flight.
        await self._behind.stop(0)
        self._folder.cleanup()
